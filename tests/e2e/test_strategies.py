"""Which agent gets a dial, with real servers: strategies, identifiers, load, readiness."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from tests.chaos.proxy import ChaosProxy
from tests.e2e.conftest import (
    MODES,
    ConnectAgent,
    Log,
    OpenProxy,
    OpenTunnel,
    StartAgent,
    StartServer,
    until,
)
from tests.e2e.test_scenarios import get
from tests.net.authority import Authority, Identity
from tests.peers import schema
from tests.peers.agent import FakeAgent
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import Refused, ping

Join = Callable[..., Awaitable[FakeAgent]]
OpenVia = Callable[[str, FakeAgent], Awaitable[None]]


@pytest.fixture
def join(connect_agent: ConnectAgent) -> Join:
    """`join("a", "host=x")`: a fake agent with these identifiers."""

    async def connect(agent_id: str, identifiers: str = "") -> FakeAgent:
        metadata = [("agentid", agent_id), ("agentidentifiers", identifiers)]
        return await connect_agent(metadata=metadata)

    return connect


@pytest.fixture
def goes_to(open_proxy: OpenProxy) -> OpenVia:
    """`await goes_to("host:1", agent)`: a dial to this address comes to that agent."""

    async def dial(address: str, agent: FakeAgent) -> None:
        stream = await open_proxy()
        await stream.begin_dial(address)
        asked, _ = await agent.accept()
        assert asked.dialRequest.address == address
        await stream.end_dial()

    return dial


async def families(port: int) -> dict[str, float]:
    """The server's metrics, by name with labels."""
    _, text = await get(port, "/metrics")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@pytest.mark.parametrize("mode", MODES)
async def test_w61_a_destination_is_reached_through_the_agent_that_stands_for_it(
    mode: str,
    start_server: StartServer,
    start_agent: StartAgent,
    agent_options: dict[str, Any],
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
    join: Join,
) -> None:
    """Real agents of ours, whose identifiers are flags."""
    server = await start_server(proxy_strategies="destHost, destCIDR")
    await start_agent(agent_identifiers="cidr=127.0.0.0/8")
    await until(lambda: len(server.exchange.backends) == 1)
    bystander = await join("bystander", "host=elsewhere&cidr=10.0.0.0/8&default-route=true")
    tunnel = await open_tunnel(mode, echoing.address)
    await ping(tunnel)
    await tunnel.close()
    await bystander.expect_silence()


async def test_strategies_are_asked_in_order_and_identifiers_decide(
    start_server: StartServer, join: Join, goes_to: OpenVia
) -> None:
    """Scenarios 31 to 34."""
    await start_server(proxy_strategies="destHost,destCIDR,defaultRoute")
    name = await join("a", "host=node-1&ipv6=2001:DB8::1")
    pods = await join("b", "cidr=10.1.0.0/16")
    rest = await join("c", "default-route=true")
    idle = await join("d")
    await goes_to("node-1:10250", name)
    await goes_to("[2001:db8::1]:10250", name)
    await goes_to("10.1.2.3:8080", pods)
    await goes_to("10.2.2.3:8080", rest)
    await goes_to("webhook.default.svc:443", rest)
    await idle.expect_silence()


@pytest.mark.parametrize(
    "host", ["NODE-1.example", "node-1.Example.", "[2001:db8:0:0::1]", "[::ffff:10.0.0.7]"]
)
async def test_w56_an_agent_is_found_however_its_host_is_written(
    host: str, start_server: StartServer, join: Join, goes_to: OpenVia
) -> None:
    await start_server(proxy_strategies="destHost,default")
    agents = [await join(f"other-{number}") for number in range(5)]
    node = await join("node", "host=Node-1.example&ipv6=2001:DB8::1&ipv4=10.0.0.7")
    for _ in range(3):
        await goes_to(f"{host}:10250", node)
    assert not any(agent.waiting for agent in agents)


async def test_w56_identifiers_that_make_no_sense_are_named_once_and_ignored(
    start_server: StartServer, join: Join, goes_to: OpenVia, log: Log
) -> None:
    await start_server(proxy_strategies="destHost,default")
    agent = await join("kind", "ipv4=${HOST_IP}&host=node-1&cidr=pods")
    await log.wait_for("Identifiers", "kind", "ipv4=${HOST_IP} cidr=pods")
    await goes_to("node-1:1", agent)
    await goes_to("10.0.0.1:1", agent)
    assert sum("HOST_IP" in line for line in log.lines) == 1


@pytest.mark.parametrize("mode", MODES)
async def test_w61_where_no_strategy_has_an_agent_there_is_none_available(
    mode: str, start_server: StartServer, join: Join, open_tunnel: OpenTunnel, log: Log
) -> None:
    """Scenario 40. A list without `default` keeps traffic from agents it does not name."""
    server = await start_server(proxy_strategies="destHost,defaultRoute")
    agent = await join("a", "host=node-1&default-route=false")
    with pytest.raises(Refused, match="No agent available"):
        await open_tunnel(mode, "node-2:10250")
    assert server.exchange.counters.dial_failures == {"no_agent": 1}
    assert log.has("No agent for a dial", "node-2:10250")
    await agent.expect_silence()


async def test_w54_a_new_connection_of_an_agent_takes_over_from_one_that_died_unnoticed(
    start_server: StartServer,
    exits: AsyncExitStack,
    join: Join,
    goes_to: OpenVia,
    authority: Authority,
    identity: Identity,
) -> None:
    server = await start_server()
    way = await exits.enter_async_context(ChaosProxy(("127.0.0.1", server.options.agent_port)))
    old = await exits.enter_async_context(
        await FakeAgent.connect(way.port, authority, identity, agent_id="twin")
    )
    await old.answer()
    way.up.black_hole = way.down.black_hole = True
    new = await join("twin")
    backends = server.exchange.backends
    assert len(backends) == 1
    await until(lambda: sorted(each.silence is None for each in backends.streams()) == [0, 1])
    async with asyncio.timeout(2):
        for _ in range(3):
            await goes_to("endpoint:1", new)
    assert server.exchange.counters.dial_retries == 0


async def test_w54_the_older_of_two_living_connections_of_an_agent_keeps_its_dials(
    start_server: StartServer, join: Join, goes_to: OpenVia
) -> None:
    """Scenario 19: upstream's rule, for agents that are about to close a duplicate."""
    server = await start_server()
    old, new = await join("twin"), await join("twin")
    await until(lambda: all(each.silence is None for each in server.exchange.backends.streams()))
    for _ in range(3):
        await goes_to("endpoint:1", old)
    await old.send(schema.drain())
    await until(lambda: server.exchange.backends.choose().draining is False)
    await goes_to("endpoint:1", new)


async def test_w55_least_loaded_gives_a_dial_to_the_agent_with_less_to_do(
    start_server: StartServer, join: Join, open_proxy: OpenProxy
) -> None:
    await start_server(agent_selection="least-loaded")
    agents = [await join("a"), await join("b")]
    share: Counter[int] = Counter()
    for _ in range(10):
        stream = await open_proxy()
        await stream.begin_dial("endpoint:1")
        await until(lambda: any(agent.waiting for agent in agents))
        asked = 0 if agents[0].waiting else 1
        share[asked] += 1
        await agents[asked].accept()
        await stream.end_dial()
    assert share == {0: 5, 1: 5}


async def test_w57_a_server_is_ready_when_any_of_its_strategies_can_serve(
    start_server: StartServer, join: Join
) -> None:
    server = await start_server(proxy_strategies="destHost,default")
    port = server.options.health_port
    assert await get(port, "/readyz") == (500, "no connection to any proxy agent")
    agent = await join("a")
    assert await get(port, "/readyz") == (200, "ok")
    await agent.send(schema.drain())
    assert await get(port, "/readyz") == (200, "ok")
    await agent.leave()
    await until(lambda: not len(server.exchange.backends))
    assert await get(port, "/readyz") == (500, "no connection to any proxy agent")


async def test_w57_a_server_whose_agents_serve_no_strategy_says_what_they_lack(
    start_server: StartServer, join: Join
) -> None:
    server = await start_server(proxy_strategies="destHost,defaultRoute")
    await join("a", "uid=7")
    status, text = await get(server.options.health_port, "/readyz")
    assert status == 500
    assert "destHost (host, ipv4 or ipv6), defaultRoute (default-route=true)" in text


async def test_w70_gauges_of_agents_count_agents_under_every_strategy(
    start_server: StartServer, join: Join
) -> None:
    """Scenario 45."""
    server = await start_server(proxy_strategies="default,destHost,defaultRoute")
    prefix = "konnectivity_network_proxy_server_ready_backend"

    async def gauges() -> list[float]:
        found = await families(server.options.health_port)
        names = ("default", "destHost", "defaultRoute")
        strategies = [found[f'{prefix}s{{proxy_strategy="{name}"}}'] for name in names]
        return [found[prefix + "_connections"], *strategies]

    assert await gauges() == [0, 0, 0, 0]
    first = await join("a", "host=x&host=y&ipv4=10.0.0.7&default-route=true")
    assert await gauges() == [1, 1, 1, 1]
    await join("b", "ipv6=::1")
    assert await gauges() == [2, 2, 2, 1]
    second = await join("a", "host=x")
    assert await gauges() == [2, 2, 2, 1]
    await first.leave()
    await until(lambda: len(list(server.exchange.backends.streams())) == 2)
    assert await gauges() == [2, 2, 2, 0]
    await second.leave()
    await until(lambda: len(server.exchange.backends) == 1)
    assert await gauges() == [1, 1, 1, 0]
