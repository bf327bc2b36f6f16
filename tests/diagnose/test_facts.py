"""Facts from real servers, agents, and an API server: who says what, and what nobody says."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.diagnose.conftest import put_pod, put_workload
from tests.e2e.conftest import ConnectAgent, StartAgent, StartServer, until
from tests.net.authority import Authority, Identity
from tests.peers.kube_api import Fault, KubeApi

from konnectivity.diagnose.facts import AgentFacts, Facts
from konnectivity.diagnose.gather import gather
from konnectivity.diagnose.pods import matches
from konnectivity.diagnose.samples import parse
from konnectivity.diagnose.sources import ServerSource, Sources
from konnectivity.kube import heartbeat
from konnectivity.kube.heartbeat import Heartbeat

LEASES = "/apis/coordination.k8s.io/v1/namespaces/konnectivity-heartbeats/leases"


def agent_of(facts: Facts, name: str) -> AgentFacts:
    (found,) = [each for each in facts.agents if each.id == name]
    return found


def troubles(facts: Facts) -> set[tuple[str, str]]:
    return {(each.source, each.trouble) for each in facts.problems}


def beat(agent: str, at: float, **more: Any) -> Heartbeat:
    moment = heartbeat.Time(at)
    known = {"version": "1", "state": "running", "servers_wanted": 1}
    return Heartbeat(agent=agent, started_at=moment, updated_at=moment, **known | more)


def put_heartbeat(api: KubeApi, told: Heartbeat) -> None:
    name = heartbeat.lease_name(told.agent)
    api.put(f"{LEASES}/{name}", heartbeat.lease_of(told, name=name, interval=60.0))


async def test_an_agent_is_put_together_from_server_heartbeat_and_pod(
    start_server: StartServer,
    start_agent: StartAgent,
    api: KubeApi,
    kubeconfig: str,
    sources: Sources,
) -> None:
    put_workload(api, desired=1, ready=1)
    put_pod(api, "agent-1")
    server = await start_server()
    await start_agent(heartbeat_interval=1.0, kubeconfig=kubeconfig)
    await until(lambda: api.get(f"{LEASES}/agent-1"))
    await until(lambda: server.exchange.backends)
    found = agent_of(await gather(sources), "agent-1")
    assert found.node == "node-of-agent-1"
    assert found.pod == "agent-1"
    assert found.heartbeat is not None
    assert not found.silent
    (peer,) = found.seen["server-1"]
    assert peer.certificate is not None


async def test_a_server_tells_its_events_metrics_and_clock(
    start_server: StartServer, connect_agent: ConnectAgent, sources: Sources
) -> None:
    await start_server()
    await connect_agent("a1")
    (server,) = (await gather(sources)).servers
    assert [each.kind for each in server.events] == ["agent_connected"]
    assert server.values("ready_backend_connections") == [1.0]
    assert server.skew is not None
    assert abs(server.skew) < 1.0


async def test_events_that_nobody_may_read_now_are_not_taken_for_none(
    start_server: StartServer, connect_agent: ConnectAgent, sources: Sources
) -> None:
    server = await start_server()
    await connect_agent("a1")
    url = sources.servers[0].url
    following = []
    async with AsyncExitStack() as readers:
        for _ in range(server.exchange.events.most_readers):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.options.admin_port)
            readers.callback(writer.close)
            writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            following.append(writer)  # one that nobody holds is closed
        facts = await gather(dataclasses.replace(sources, cluster=None))
    (found,) = facts.servers
    assert found.status is not None
    assert found.unread == {"events": "HTTP 503"}
    assert [(each.source, each.what) for each in facts.problems] == [(url, "events")]


async def test_what_does_not_answer_is_a_problem_and_the_rest_is_there(
    start_server: StartServer, connect_agent: ConnectAgent, sources: Sources, folder: Path
) -> None:
    await start_server()
    await connect_agent("a1")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        urls = ("http://127.0.0.1:1", f"unix:{folder}/no", f"http://127.0.0.1:{port}")
        more = tuple(map(ServerSource, urls))
        asked = dataclasses.replace(sources, servers=(*sources.servers, *more), timeout=0.5)
        facts = await gather(asked)
    assert agent_of(facts, "a1").seen.keys() == {"server-1"}
    assert troubles(facts) >= {(urls[0], "refused"), (urls[1], "refused"), (urls[2], "silent")}


async def test_each_right_that_is_missing_is_named_and_the_rest_is_read(
    api: KubeApi, sources: Sources
) -> None:
    put_pod(api, "p1")
    api.faults.append(Fault("GET", "/networkpolicies", status=403, message="no"))
    facts = await gather(dataclasses.replace(sources, servers=()))
    cluster = facts.cluster
    assert cluster is not None
    assert [each.name for each in cluster.pods] == ["p1"]
    assert not cluster.knows("policies")
    (problem,) = facts.problems
    assert "allow list on networkpolicies.networking.k8s.io in namespace kube-system" in str(
        problem
    )


async def test_an_api_that_is_away_is_said_once(api: KubeApi, sources: Sources) -> None:
    await api.stop()
    facts = await gather(dataclasses.replace(sources, servers=()))
    (problem,) = facts.problems
    assert problem.source == "cluster"
    assert facts.cluster is not None
    assert not facts.cluster.knows("pods")


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"apiVersion\":\"v1\",", "unreadable"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{}", "unreadable"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "unreadable"),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "unauthorized"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "forbidden"),
        (b"HTTP/1.1 421 Misdirected Request\r\nContent-Length: 0\r\n\r\n", "forbidden"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "unreadable"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "unreadable"),
        (b"", "unreadable"),
    ],
)  # fmt: skip
async def test_an_answer_that_makes_no_sense_is_a_problem(answer: bytes, trouble: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    facts = await gather(Sources(servers=(ServerSource(url),), timeout=2.0))
    server.close()
    await server.wait_closed()
    assert troubles(facts) == {(url, trouble)}


async def test_tokens_and_certificates_of_the_admin_port_are_shown(
    start_server: StartServer, authority: Authority, identity: Identity, folder: Path
) -> None:
    (folder / "token").write_text("s3cret\n")
    server = await start_server(
        admin_cert=identity.cert,
        admin_key=identity.key,
        admin_client_ca=authority.bundle,
        admin_token_file=str(folder / "token"),
    )
    url = f"https://127.0.0.1:{server.options.admin_port}"
    right = ServerSource(url, "s3cret", authority.bundle, identity.cert, identity.key)
    wrong = {
        "unauthorized": dataclasses.replace(right, token="other"),  # noqa: S106
        "tls": dataclasses.replace(right, ca=""),
        "unreadable": dataclasses.replace(right, url=url.replace("https", "http")),
    }
    facts = await gather(Sources(servers=(right,), timeout=2.0))
    assert [each.name for each in facts.servers] == ["server-1"]
    for trouble, source in wrong.items():
        facts = await gather(Sources(servers=(source,), timeout=2.0))
        assert [each.trouble for each in facts.problems] == [trouble]
        assert "s3cret" not in repr(facts)


async def test_a_stock_server_tells_what_its_metrics_tell() -> None:
    page = b"# HELP x\nkonnectivity_network_proxy_server_ready_backend_connections 7\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        known = head.startswith(b"GET /metrics ")
        body = page if known else b"404 page not found\n"
        status = b"200 OK" if known else b"404 Not Found"
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    facts = await gather(Sources(servers=(ServerSource(url),)))
    server.close()
    await server.wait_closed()
    (found,) = facts.servers
    assert found.answers
    assert found.status is None
    assert found.values("ready_backend_connections") == [7.0]
    assert troubles(facts) == {(url, "absent")}


async def test_heartbeats_that_are_late_or_broken_are_told_apart(
    api: KubeApi, sources: Sources
) -> None:
    facts = await gather(dataclasses.replace(sources, servers=()))
    now = facts.taken_at
    for told in (beat("fresh", now), beat("late", now - 400), beat("forgotten", now - 9000)):
        put_heartbeat(api, told)
    broken = heartbeat.lease_of(beat("x", now), name="broken", interval=60.0)
    broken["metadata"]["annotations"][heartbeat.ANNOTATION] = '{"schema":"v1","agent":'
    api.put(f"{LEASES}/broken", broken)
    facts = await gather(dataclasses.replace(sources, servers=()))
    assert {each.id: each.silent for each in facts.agents} == {"fresh": False, "late": True}
    (problem,) = facts.problems
    assert (problem.source, problem.trouble) == ("heartbeats", "unreadable")
    assert "broken" in problem.reason


async def test_pods_that_no_one_has_heard_of_are_agents_too(api: KubeApi, sources: Sources) -> None:
    put_pod(api, "p1", waiting="ImagePullBackOff")
    facts = await gather(dataclasses.replace(sources, servers=()))
    assert [(each.id, each.pod) for each in facts.agents] == [("p1", "p1")]
    assert facts.cluster is not None
    assert (facts.cluster.pods[0].reason, facts.cluster.pods[0].message) == (
        "ImagePullBackOff",
        "told",
    )


async def test_a_stock_agent_is_joined_with_the_pod_on_its_node(
    start_server: StartServer, connect_agent: ConnectAgent, api: KubeApi, sources: Sources
) -> None:
    put_pod(api, "stock-x")
    await start_server()
    metadata = (("agentid", "4711"), ("agentidentifiers", "host=node-of-stock-x"))
    await connect_agent("4711", metadata=metadata)
    facts = await gather(sources)
    assert [(each.id, each.pod, each.node) for each in facts.agents] == [
        ("4711", "stock-x", "node-of-stock-x")
    ]


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ({}, {}, True),
        ({"matchLabels": {"a": "b"}}, {"a": "b", "c": "d"}, True),
        ({"matchLabels": {"a": "b"}}, {"a": "c"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}, {"a": "b"}, True),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": ""}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": ""}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Near"}]}, {"a": ""}, False),
    ],
)
def test_label_selectors_match_as_in_kubernetes(
    selector: dict[str, Any], labels: dict[str, str], expected: bool
) -> None:
    assert matches(selector, labels) is expected


def test_a_page_of_metrics_is_read_as_far_as_it_makes_sense() -> None:
    page = 'a{x="1,2",y="q\\"}"} 3\n# TYPE b gauge\nb 1e3 1700000000\nnonsense\nc{} NaNa\nd +Inf\n'
    found = [(each.name, dict(each.labels), each.value) for each in parse(page)]
    assert found == [
        ("a", {"x": "1,2", "y": 'q"}'}, 3.0),
        ("b", {}, 1000.0),
        ("d", {}, float("inf")),
    ]
