"""Agents show who they are by tokens, once and again (scenario 26; W28, W43 to W46, W52)."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.e2e.conftest import Log, OpenTunnel, StartAgent, StartServer, unharmed, until
from tests.net.authority import Authority, Identity
from tests.peers import schema
from tests.peers.agent import FakeAgent, Metadata
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ping
from tests.peers.kube_api import REVIEWS, Fault, KubeApi

from konnectivity.errors import ConfigError
from konnectivity.kube.token_review import NODE
from konnectivity.net import tls
from konnectivity.server.admission import EARLY_LIMIT, WAITING
from konnectivity.server.app import AGENT_LIMITS
from konnectivity.wire import grpc as wire_grpc
from konnectivity.wire.http2 import Connection

NAMESPACE, ACCOUNT, AUDIENCE = "kube-system", "konnectivity-agent", "system:konnectivity-server"
USER = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
GOOD = {
    "authenticated": True,
    "audiences": [AUDIENCE],
    "user": {"username": USER, "extra": {NODE: ["node-1"]}},
}
TOKENS = {
    "good": GOOD,
    "unknown": {"authenticated": False},
    "failing": {"error": "the keys are lost"},
    "other-namespace": {**GOOD, "user": {"username": f"system:serviceaccount:other:{ACCOUNT}"}},
    "other-account": {**GOOD, "user": {"username": f"system:serviceaccount:{NAMESPACE}:other"}},
    "no-account": {**GOOD, "user": {"username": "system:node:kube-system:node-1"}},
    "no-colons": {**GOOD, "user": {"username": "admin"}},
    "other-audience": {**GOOD, "audiences": ["https://kubernetes.default.svc"]},
}
WRAPPED = "Failed to validate authentication token, err:"


def bearer(token: str, **more: str) -> Metadata:
    return [("agentid", "fake"), ("authorization", f"Bearer {token}"), *more.items()]


@pytest.fixture
async def api() -> AsyncIterator[KubeApi]:
    """An API that knows the tokens above, and no others."""
    async with KubeApi() as started:
        started.review = lambda spec: TOKENS.get(spec["token"], {"authenticated": False})
        yield started


@pytest.fixture
def demanding(api: KubeApi, folder: Path) -> dict[str, Any]:
    """Options of a server that asks for tokens, and for no certificates."""
    return {
        "cluster_ca_cert": "",
        "agent_namespace": NAMESPACE,
        "agent_service_account": ACCOUNT,
        "authentication_audience": AUDIENCE,
        "authentication_cache_ttl": 0.0,
        "kubeconfig": str(api.kubeconfig(folder)),
    }


Apply = Callable[[Metadata], Awaitable[FakeAgent]]


@pytest.fixture
def apply(
    exits: AsyncExitStack, server_options: dict[str, Any], authority: Authority, identity: Identity
) -> Apply:
    """A stock agent that calls `Connect` with this metadata; its answer is not awaited."""

    async def connect(metadata: Metadata) -> FakeAgent:
        port = server_options["agent_port"]
        agent = await FakeAgent.connect(port, authority, identity, metadata=metadata)
        return await exits.enter_async_context(agent)

    return connect


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ([("agentid", "a")], "Authentication context was not found in metadata"),
        (
            [("agentid", "a"), ("token", "good")],
            "Authentication context was not found in metadata",
        ),
        (
            [("agentid", "a"), ("authorization", "good")],
            'received token does not have "Bearer " prefix',
        ),
        (
            [("agentid", "a"), ("authorization", "Bearer good"), ("authorization", "Bearer good")],
            "too many (2) tokens are received",
        ),
        (bearer("unknown"), f"{WRAPPED}lookup failed: service account jwt not valid"),
        (bearer(""), f"{WRAPPED}lookup failed: service account jwt not valid"),
        (bearer("failing"), f"{WRAPPED}lookup failed: the keys are lost"),
        (
            bearer("other-namespace"),
            f'{WRAPPED}lookup failed: incoming request from "other" namespace. '
            'Expected "kube-system"',
        ),
        (
            bearer("other-account"),
            f'{WRAPPED}lookup failed: incoming request from "other" service account. '
            'Expected "konnectivity-agent"',
        ),
        (
            bearer("no-account"),
            f"{WRAPPED}lookup failed: username returned is not a service account",
        ),
        (bearer("no-colons"), f"{WRAPPED}lookup failed: unexpected username format"),
        (
            bearer("other-audience"),
            f'{WRAPPED}lookup failed: token is not for audience "{AUDIENCE}": '
            'the Kubernetes API vouches for ["https://kubernetes.default.svc"]',
        ),
    ],
    ids=lambda value: "" if isinstance(value, list) else value[-30:],
)
async def test_scenario_26_each_fault_of_a_token_has_its_text(
    metadata: Metadata,
    text: str,
    start_server: StartServer,
    demanding: dict[str, Any],
    apply: Apply,
    log: Log,
) -> None:
    """Scenario 26."""
    server = await start_server(**demanding)
    agent = await apply(metadata)
    assert await agent.status() == (grpc.StatusCode.UNKNOWN, text)
    await log.wait_for("Agent refused", text.replace('"', '\\"'))
    assert not len(server.exchange.backends)
    assert server.exchange.counters.authentications["accepted"] == 0
    assert sum(server.exchange.counters.authentications.values()) == 1
    assert not log.has("Bearer good")


async def test_scenario_26_with_a_good_token_headers_come_and_a_goodbye_ends_the_call_cleanly(
    start_server: StartServer, demanding: dict[str, Any], apply: Apply, api: KubeApi
) -> None:
    """Scenario 26."""
    server = await start_server(**demanding)
    agent = await apply(bearer("good"))
    assert (await agent.answer())["serverid"] == "server-1"
    assert len(server.exchange.backends) == 1
    assert server.exchange.counters.authentications == {"accepted": 1}
    assert api.requests[0].body["spec"] == {"token": "good", "audiences": [AUDIENCE]}
    await agent.say_goodbye()
    assert await agent.status() == (grpc.StatusCode.OK, "")


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault(status=403, message="no, you may not"), "no, you may not (HTTP 403 Forbidden)"),
        (Fault(status=500, message="etcd is away"), "etcd is away (HTTP 500 InternalError)"),
        (Fault(hang=True), "no answer from the Kubernetes API within 0.2 s"),
        (Fault(drop=True), "disconnected"),
    ],
    ids=["forbidden", "internal", "silent", "dropped"],
)
async def test_scenario_26_an_api_that_fails_refuses_agents_until_it_works(
    fault: Fault,
    text: str,
    start_server: StartServer,
    demanding: dict[str, Any],
    apply: Apply,
    api: KubeApi,
) -> None:
    """Scenario 26."""
    api.faults.append(fault)
    server = await start_server(**demanding, authentication_timeout=0.2)
    code, told = await (await apply(bearer("good"))).status()
    assert code is grpc.StatusCode.UNKNOWN
    assert told.startswith(f"{WRAPPED}Failed to authenticate request. err:")
    assert text in told
    assert server.exchange.counters.authentications == {"unavailable": 1}
    api.faults.clear()
    await (await apply(bearer("good"))).answer()


@pytest.fixture
def token_file(folder: Path) -> Path:
    path = folder / "agent-token"
    path.write_text("good\n")
    return path


def write(path: Path, text: str) -> None:
    path.write_text(text)


async def test_an_agent_with_a_good_token_carries_tunnels(
    start_server: StartServer,
    start_agent: StartAgent,
    demanding: dict[str, Any],
    token_file: Path,
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
) -> None:
    server = await start_server(**demanding)
    await start_agent(service_account_token_path=str(token_file), agent_cert="", agent_key="")
    await until(lambda: len(server.exchange.backends))
    await ping(await open_tunnel("grpc", echoing.address))


async def test_w28_the_agent_logs_why_its_token_was_rejected_and_tries_the_next_one(
    start_server: StartServer,
    start_agent: StartAgent,
    demanding: dict[str, Any],
    token_file: Path,
    log: Log,
) -> None:
    write(token_file, "other-account")
    server = await start_server(**demanding)
    await start_agent(service_account_token_path=str(token_file))
    await log.wait_for("Cannot connect to a server", 'from \\"other\\" service account')
    write(token_file, "good")
    await until(lambda: len(server.exchange.backends))


async def test_an_api_that_is_away_at_the_start_keeps_agents_waiting_and_nothing_else(
    start_server: StartServer,
    start_agent: StartAgent,
    demanding: dict[str, Any],
    token_file: Path,
    api: KubeApi,
    log: Log,
) -> None:
    await api.stop()
    server = await start_server(**demanding)
    await start_agent(service_account_token_path=str(token_file))
    await log.wait_for("Cannot connect to a server", "Failed to authenticate request", api.url)
    await api.start()
    await until(lambda: len(server.exchange.backends))


def no_context(path: Path) -> None:
    content = json.loads(path.read_text())
    del content["current-context"]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (no_context, "current-context is not set"),
        (Path.unlink, "cannot be read: No such file or directory"),
        (lambda path: path.write_text("{"), "is not YAML"),
    ],
)
async def test_a_kubeconfig_that_leads_nowhere_stops_the_start_with_one_line(
    spoil: Callable[[Path], object],
    text: str,
    start_server: StartServer,
    demanding: dict[str, Any],
) -> None:
    spoil(Path(demanding["kubeconfig"]))
    with pytest.raises(ConfigError) as caught:
        await start_server(**demanding)
    assert f"kubeconfig {demanding['kubeconfig']}" in str(caught.value)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_w43_a_server_that_authenticates_nobody_says_so_loudly(
    start_server: StartServer, log: Log
) -> None:
    await start_server(cluster_ca_cert="")
    line = await log.wait_for("AGENTS ARE NOT AUTHENTICATED", "--cluster-ca-cert")
    assert "--agent-namespace" in line


@pytest.mark.parametrize("with_tokens", [True, False])
async def test_w43_a_server_that_authenticates_agents_does_not(
    with_tokens: bool, start_server: StartServer, demanding: dict[str, Any], log: Log
) -> None:
    await start_server(**(demanding if with_tokens else {}))
    assert not log.has("NOT AUTHENTICATED")


async def test_w44_certificate_and_token_are_both_demanded_when_both_are_asked_for(
    start_server: StartServer,
    start_agent: StartAgent,
    demanding: dict[str, Any],
    apply: Apply,
    authority: Authority,
    token_file: Path,
    log: Log,
) -> None:
    server = await start_server(**demanding | {"cluster_ca_cert": authority.bundle})
    _, text = await (await apply([("agentid", "a")])).status()
    assert text == "Authentication context was not found in metadata"
    bare = await start_agent(
        service_account_token_path=str(token_file), agent_cert="", agent_key=""
    )
    await log.wait_for("Cannot connect to a server", "certificate")
    assert not bare.connections.links
    assert not len(server.exchange.backends)
    await (await apply(bearer("good"))).answer()
    assert len(server.exchange.backends) == 1


async def test_identifiers_that_are_not_the_nodes_are_refused_if_that_is_asked_for(
    start_server: StartServer, demanding: dict[str, Any], apply: Apply
) -> None:
    server = await start_server(**demanding, bind_identifiers_to_node=True)
    claims = "host=node-1&host=kube-dns&cidr=0.0.0.0/0"
    agent = await apply(bearer("good", agentidentifiers=claims))
    _, text = await agent.status()
    assert "identifiers host=kube-dns, cidr=0.0.0.0/0 are not those of node node-1" in text
    assert not len(server.exchange.backends)
    honest = await apply(bearer("good", agentidentifiers="host=node-1&ipv4=127.0.0.1"))
    await honest.answer()
    assert server.exchange.counters.authentications == {"node": 1, "accepted": 1}


async def test_packets_that_come_before_the_answer_are_not_lost(
    start_server: StartServer, demanding: dict[str, Any], apply: Apply, api: KubeApi
) -> None:
    api.faults.append(Fault(delay=0.3))
    server = await start_server(**demanding)
    agent = await apply(bearer("good"))
    await agent.send(schema.drain())
    await agent.answer()
    await until(lambda: [each.draining for each in server.exchange.backends.streams()] == [True])


async def test_a_goodbye_before_the_answer_is_answered_in_turn(
    start_server: StartServer, demanding: dict[str, Any], apply: Apply, api: KubeApi
) -> None:
    api.faults.append(Fault(delay=0.2))
    server = await start_server(**demanding)
    agent = await apply(bearer("good"))
    await agent.say_goodbye()
    assert (await agent.answer())["serverid"] == "server-1"
    assert await agent.status() == (grpc.StatusCode.OK, "")
    await until(lambda: not len(server.exchange.backends))


@pytest.mark.parametrize(
    "messages", [[bytes(20_000)] * 4, [b""] * (EARLY_LIMIT // 5 + 1)], ids=["large", "many"]
)
async def test_an_agent_that_sends_much_before_the_answer_is_refused(
    messages: list[bytes],
    start_server: StartServer,
    demanding: dict[str, Any],
    apply: Apply,
    api: KubeApi,
) -> None:
    api.faults.append(Fault(hang=True))
    server = await start_server(**demanding)
    agent = await apply(bearer("good"))
    await agent.send(*messages)  # the last is too much
    code, text = await agent.status()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(EARLY_LIMIT) in text
    assert not len(server.exchange.backends)


async def test_what_makes_no_sense_before_the_answer_ends_the_call_after_it(
    start_server: StartServer, demanding: dict[str, Any], apply: Apply, api: KubeApi
) -> None:
    api.faults.append(Fault(delay=0.2))
    server = await start_server(**demanding)
    agent = await apply(bearer("good"))
    await agent.send(b"\xff\xff\xff")
    code, text = await agent.status()
    assert code is grpc.StatusCode.INTERNAL
    assert "varint" in text
    await until(lambda: not len(server.exchange.backends))


async def test_an_agent_that_leaves_before_the_answer_leaves_nothing_behind(
    start_server: StartServer, demanding: dict[str, Any], apply: Apply, api: KubeApi, log: Log
) -> None:
    api.faults.append(Fault(delay=0.2))
    server = await start_server(**demanding)
    agent = await apply(bearer("good"))
    await until(lambda: api.requests)
    await agent.leave()
    await asyncio.sleep(0.4)
    assert not len(server.exchange.backends)
    assert not log.has("Agent connected")
    assert not server.exchange.counters.authentications


async def test_a_server_that_stops_does_not_wait_for_reviews(
    start_server: StartServer, demanding: dict[str, Any], apply: Apply, api: KubeApi
) -> None:
    api.faults.append(Fault(hang=True))
    server = await start_server(**demanding)
    await apply(bearer("good"))
    await until(lambda: api.requests)
    began = time.monotonic()
    await server.stop()
    assert time.monotonic() - began < 2.0


async def test_w45_a_token_for_another_audience_does_not_let_an_agent_in(
    start_server: StartServer, demanding: dict[str, Any], apply: Apply
) -> None:
    server = await start_server(**demanding)
    _, text = await (await apply(bearer("other-audience"))).status()
    assert "token is not for audience" in text
    assert not len(server.exchange.backends)
    assert server.exchange.counters.authentications == {"audience": 1}


async def test_w52_many_agents_at_once_are_reviewed_a_few_at_a_time(
    start_server: StartServer, demanding: dict[str, Any], apply: Apply, api: KubeApi
) -> None:
    open_, most = 0, 0

    async def review(spec: dict[str, Any]) -> dict[str, Any]:
        nonlocal open_, most
        open_ += 1
        most = max(most, open_)
        await asyncio.sleep(0.02)
        open_ -= 1
        return GOOD

    api.review = review
    server = await start_server(**demanding)
    agents = [
        await apply([("agentid", f"a{number}"), ("authorization", f"Bearer t{number}")])
        for number in range(40)
    ]
    for agent in agents:
        await agent.answer()
    assert len(server.exchange.backends) == 40
    assert 1 < most <= 16


async def test_w52_agents_beyond_those_that_may_wait_are_refused_at_once(
    start_server: StartServer,
    demanding: dict[str, Any],
    apply: Apply,
    api: KubeApi,
    exits: AsyncExitStack,
    authority: Authority,
) -> None:
    api.faults.append(Fault(hang=True))
    server = await start_server(**demanding)
    port, calls = server.options.agent_port, AGENT_LIMITS.max_streams
    crowd = [await hold(port, calls, authority, exits) for _ in range(WAITING // calls)]
    await until(lambda: len(crowd) * calls == WAITING and len(api.requests) == 16)
    agent = await apply(bearer("good"))
    code, text = await agent.status()
    assert code is grpc.StatusCode.UNKNOWN
    assert text == f"{WAITING} agents wait for their token's review already"
    assert server.exchange.counters.authentications == {"overload": 1}


async def hold(
    port: int, calls: int, authority: Authority, exits: AsyncExitStack
) -> asyncio.StreamReader:
    """One connection with this many `Connect` calls; it lives as long as what is returned."""
    context = tls.client_context(authority.bundle, alpn=["h2"])
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost"
    )
    exits.callback(writer.close)
    connection = Connection(client=True)
    for number in range(calls):
        metadata = [("agentid", "a"), ("authorization", f"Bearer token-{number}")]
        head = wire_grpc.request_headers(wire_grpc.CONNECT, authority="a", metadata=metadata)
        connection.open_stream(head)
    while data := connection.data_to_send(1 << 16):
        writer.write(data)
    await reader.read(1)
    return reader


async def test_w58_one_token_on_many_connections_is_reviewed_once(
    start_server: StartServer, demanding: dict[str, Any], apply: Apply, api: KubeApi
) -> None:
    await start_server(**demanding | {"authentication_cache_ttl": 10.0})
    for _ in range(5):
        await (await apply(bearer("good"))).answer()
    assert len(api.asked("POST", REVIEWS)) == 1


# What happens later


def bound_token(seconds: float) -> str:
    """A token that says when it expires."""
    claims = json.dumps({"exp": time.time() + seconds}).encode()
    return f"e30.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.c2ln"


async def test_w46_an_agent_whose_account_is_gone_loses_its_stream_and_is_told_why(
    start_server: StartServer, demanding: dict[str, Any], apply: Apply, api: KubeApi, log: Log
) -> None:
    demanding["authentication_cache_ttl"] = 60.0  # what was said once does not count here
    server = await start_server(**demanding, authentication_recheck_interval=0.1)
    agent = await apply(bearer("good"))
    await agent.answer()
    await asyncio.sleep(0.3)
    assert len(server.exchange.backends) == 1  # a good one stays
    api.review = lambda spec: {"error": "service account konnectivity-agent has been deleted"}
    code, text = await agent.status()
    assert code is grpc.StatusCode.UNKNOWN
    assert "has been deleted" in text
    assert not len(server.exchange.backends)
    assert server.exchange.counters.authentications["revoked"] == 1
    await log.wait_for("Agent is not trusted any more", "has been deleted", "agentID=")


async def test_w46_an_api_that_goes_away_costs_no_agent_its_stream(
    start_server: StartServer, demanding: dict[str, Any], apply: Apply, api: KubeApi, log: Log
) -> None:
    server = await start_server(**demanding, authentication_recheck_interval=0.1)
    agent = await apply(bearer("good"))
    await agent.answer()
    await api.stop()
    await log.wait_for("Cannot check an agent's token again", api.url)
    await asyncio.sleep(0.3)
    assert len(server.exchange.backends) == 1
    await agent.expect_silence()


@pytest.mark.parametrize("by_age", [True, False], ids=["age", "expired"])
async def test_w46_an_agent_of_ours_comes_again_and_its_tunnels_do_not_notice(
    by_age: bool,
    start_server: StartServer,
    start_agent: StartAgent,
    demanding: dict[str, Any],
    token_file: Path,
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
    api: KubeApi,
    log: Log,
) -> None:
    options = {"max_agent_connection_age": 0.5} if by_age else {}
    server = await start_server(**demanding, **options, authentication_recheck_interval=0.2)
    first = bound_token(0.5)
    fresh = bound_token(3600.0)
    expired = False
    api.review = lambda spec: (
        {"error": "token has expired"} if expired and spec["token"] == first else GOOD
    )
    write(token_file, first)
    agent = await start_agent(service_account_token_path=str(token_file))
    await until(lambda: len(server.exchange.backends))
    tunnel = await open_tunnel("grpc", echoing.address)
    write(token_file, fresh)
    expired = not by_age
    async with unharmed(tunnel):
        await log.wait_for("Agent is asked to connect anew", "age" if by_age else "expired")
        streams = server.exchange.backends.streams
        await until(lambda: [each for each in streams() if not each.draining and not each.load])
        second = await open_tunnel("grpc", echoing.address)
        await ping(second)
        assert len(agent.connections.links) >= 2
    assert any(request.body["spec"]["token"] == fresh for request in api.asked("POST", REVIEWS))


async def test_w46_a_stock_agent_with_an_expired_token_may_finish_its_tunnel(
    start_server: StartServer,
    demanding: dict[str, Any],
    apply: Apply,
    api: KubeApi,
    log: Log,
    open_tunnel: OpenTunnel,
) -> None:
    server = await start_server(**demanding, authentication_recheck_interval=0.1)
    agent = await apply(bearer("good"))
    await agent.answer()
    opening = asyncio.ensure_future(open_tunnel("grpc", "endpoint:1"))
    _, connect_id = await agent.accept()
    await opening
    api.review = lambda spec: {"error": "token has expired"}
    reviews = len(api.requests)
    await until(lambda: len(api.requests) > reviews)
    await asyncio.sleep(0.3)
    assert not log.has("Agent is asked to connect anew")
    await agent.send(schema.close_response(connect_id))
    await log.wait_for("Agent is asked to connect anew", "expired")
    assert next(iter(server.exchange.backends.streams())).draining
