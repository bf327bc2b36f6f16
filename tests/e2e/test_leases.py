"""Leases between our server and our agent, with a small API server between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import Log, OpenFleet, StartAgent, StartServer, until
from tests.e2e.fleet import Fleet
from tests.peers.frontend import ping
from tests.peers.kube_api import Fault, KubeApi
from tests.peers.ports import free_port

from konnectivity.cli.flags import parse
from konnectivity.errors import ConfigError
from konnectivity.server.app import Server
from konnectivity.server.options import ServerOptions, validate

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
OWN = f"{LEASES}/konnectivity-proxy-server-server-1"


@pytest.fixture
async def api() -> AsyncIterator[KubeApi]:
    async with KubeApi() as api:
        yield api


@pytest.fixture
def leasing(api: KubeApi, folder: Path) -> dict[str, Any]:
    """Options of a server that has a lease."""
    return {"enable_lease_controller": True, "kubeconfig": str(api.kubeconfig(folder))}


@pytest.fixture
def counting(api: KubeApi, folder: Path) -> dict[str, Any]:
    """Options of an agent that counts leases."""
    return {"count_server_leases": True, "kubeconfig": str(api.kubeconfig(folder))}


@pytest.fixture
async def fleet(open_fleet: OpenFleet) -> Fleet:
    return await open_fleet()


# Upstream's end-to-end cases


async def test_one_server_and_one_agent_count_one(fleet: Fleet) -> None:
    """Scenario 98."""
    await fleet.start_server("s1")
    await fleet.start_agent("a1")
    await fleet.until_full()
    assert await fleet.figures() == [(1,), (1, 1)]


async def test_three_servers_and_three_agents_count_three_each(fleet: Fleet) -> None:
    """Scenario 99."""
    for number in range(3):
        await fleet.start_server(f"s{number}", server_count=3)
        await fleet.start_agent(f"a{number}", sync_interval=0.05)
    await fleet.until_full()
    assert await fleet.figures() == [(3,)] * 3 + [(3, 3)] * 3


async def test_an_agent_that_is_there_before_the_server_counts_its_lease(
    fleet: Fleet, leasing: dict[str, Any], counting: dict[str, Any]
) -> None:
    """Scenario 100."""
    await fleet.start_agent("a1", **counting)
    await asyncio.sleep(0.3)
    await fleet.start_server("s1", **leasing)
    await fleet.until_full()
    assert await fleet.figures() == [(1,), (1, 1)]


@pytest.mark.parametrize("advertised", [False, True], ids=["by chance", "by address"])
async def test_two_servers_and_agents_become_four_by_leases(
    advertised: bool, fleet: Fleet, leasing: dict[str, Any], counting: dict[str, Any]
) -> None:
    """Scenario 101."""
    for number in (1, 2):
        await fleet.start_server(f"s{number}", advertised=advertised, **leasing)
        await fleet.start_agent(f"a{number}", sync_interval=0.05, **counting)
    await fleet.until_full()
    assert await fleet.figures() == [(2,)] * 2 + [(2, 2)] * 2
    for number in (3, 4):
        await fleet.start_server(f"s{number}", advertised=advertised, **leasing)
        await fleet.start_agent(f"a{number}", sync_interval=0.05, **counting)
    await fleet.until_full()
    assert await fleet.figures() == [(4,)] * 4 + [(4, 4)] * 4
    if advertised:
        assert fleet.choices <= 8  # one for each agent, and what came before the leases


# The server's side


async def test_the_lease_lives_as_long_as_the_server(
    start_server: StartServer, api: KubeApi, leasing: dict[str, Any]
) -> None:
    server = await start_server(**leasing)
    await until(lambda: api.get(OWN))
    await server.stop()
    assert api.get(OWN) is None


async def test_w38_the_lease_goes_first_at_a_stop_that_waits_for_tunnels(
    start_server: StartServer,
    start_agent: StartAgent,
    open_tunnel: Any,
    echoing: Any,
    api: KubeApi,
    leasing: dict[str, Any],
) -> None:
    server = await start_server(**leasing, graceful_shutdown_timeout=5.0)
    await start_agent()
    await until(lambda: api.get(OWN) and len(server.exchange.backends))
    tunnel = await open_tunnel("http-connect", echoing.address)
    stopping = asyncio.create_task(server.stop())
    await until(lambda: not api.get(OWN))
    assert not stopping.done()
    await ping(tunnel)
    await tunnel.close()
    await stopping


async def test_a_server_serves_while_its_api_hangs_and_stops_in_time(
    start_server: StartServer,
    start_agent: StartAgent,
    api: KubeApi,
    leasing: dict[str, Any],
    log: Log,
) -> None:
    api.faults.append(Fault(hang=True))
    server = await start_server(**leasing)
    agent = await start_agent()
    await until(lambda: len(server.exchange.backends) and agent.connections.links)
    started = time.monotonic()
    await server.stop()
    assert time.monotonic() - started < 4


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "no-such-file"), ("{}", "clusters"), ("nonsense", "not a kubeconfig")],
)
async def test_a_kubeconfig_that_is_wrong_stops_the_start_and_is_named(
    text: str | None,
    words: str,
    server_options: dict[str, Any],
    folder: Path,
    start_agent: StartAgent,
) -> None:
    path = folder / ("no-such-file" if text is None else "kubeconfig")
    if text is not None:
        path.write_text(text)
    options = server_options | {"enable_lease_controller": True, "kubeconfig": str(path)}
    with pytest.raises(ConfigError) as caught:
        async with Server(ServerOptions(**options)):
            pass
    assert str(path) in str(caught.value)
    with pytest.raises(ConfigError, match=str(path)):
        await start_agent(count_server_leases=True, kubeconfig=str(path))


@pytest.mark.parametrize("label", ["", "a", "a=b=c", "-=x"])
def test_w42_labels_are_checked_before_anything_opens_and_only_if_they_are_used(
    label: str, server_options: dict[str, Any]
) -> None:
    options = server_options | {"lease_label": label}
    assert validate(ServerOptions(**options)) == []
    assert len(validate(ServerOptions(**options, enable_lease_controller=True))) == 1


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--server-id=Server_1"], 'server id "Server_1" cannot be part of a lease\'s name'),
        (["--advertise-agent-address=10.0.0.1"], "missing port in address"),
        (["--advertise-agent-address=:8091"], "host and port wanted"),
        (["--advertise-agent-address=h:99999"], "invalid port"),
        (
            ["--advertise-agent-address=h:1", "--enable-lease-controller=false"],
            "set --enable-lease-controller",
        ),
    ],
)
def test_what_cannot_be_published_is_refused(
    argv: list[str], text: str, server_options: dict[str, Any]
) -> None:
    files = [f"--cluster-{one}={server_options[f'cluster_{one}']}" for one in ("cert", "key")]
    base = ["--uds-name=/x", "--server-port=0", "--enable-lease-controller", *files]
    assert validate(parse(ServerOptions, base).options) == []
    (problem,) = validate(parse(ServerOptions, [*base, *argv]).options)
    assert text in problem


# Both sides


async def test_w33_odd_leases_do_no_harm_to_either_program(
    fleet: Fleet, api: KubeApi, leasing: dict[str, Any], counting: dict[str, Any], log: Log
) -> None:
    labels = {"labels": {"k8s-app": "konnectivity-server"}}
    spec = {"renewTime": "2020-01-01T00:00:00Z", "holderIdentity": "odd"}
    api.put(f"{LEASES}/odd", {"metadata": labels, "spec": spec})
    server = await fleet.start_server("s1", **leasing)
    agent = await fleet.start_agent("a1", **counting)
    await until(lambda: sum("A lease does not count" in line for line in log.lines) == 2)
    await fleet.until_full()
    assert server.exchange.counters.leases_culled == 0
    assert agent.counters.known_servers == 1
    assert api.get(f"{LEASES}/odd")


async def test_w60_an_agent_asks_for_leases_by_their_labels_alone(
    fleet: Fleet, api: KubeApi, counting: dict[str, Any]
) -> None:
    await fleet.start_agent("a1", **counting, lease_label_selector="tier in (a,b)")
    await until(lambda: api.watches)
    assert {each.query["labelSelector"] for each in api.requests} == {"tier in (a,b)"}
    assert {each.path for each in api.requests} == {LEASES}


# The agent's side


async def test_w41_an_agent_is_up_and_connected_while_its_api_hangs(
    start_server: StartServer,
    start_agent: StartAgent,
    api: KubeApi,
    counting: dict[str, Any],
) -> None:
    api.faults.append(Fault(hang=True))
    server = await start_server()
    port = free_port()
    agent = await start_agent(**counting, health_server_port=port)
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    await writer.wait_closed()
    await until(lambda: len(server.exchange.backends))
    assert agent.counters.known_servers == 1


async def test_w41_an_agent_without_rights_says_which_and_is_connected(
    start_server: StartServer,
    start_agent: StartAgent,
    api: KubeApi,
    counting: dict[str, Any],
    log: Log,
) -> None:
    api.faults.append(Fault(status=403))
    server = await start_server()
    await start_agent(**counting)
    await log.wait_for("Cannot follow server leases", "allow get, list, watch on leases")
    await until(lambda: len(server.exchange.backends))
