"""Several connections of one agent to each server (`--connections-per-server`)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from tests.e2e.conftest import (
    ConnectAgent,
    Log,
    OpenFleet,
    StartAgent,
    StartFakeServer,
    StartPair,
    unharmed,
    until,
)
from tests.e2e.fleet import Fleet
from tests.peers.admin import status_of
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ConnectClient, Tunnel, ping
from tests.peers.metrics import Page
from tests.peers.program import flags, running
from tests.spec.metrics import AGENT, SERVER

from konnectivity.agent.app import Agent
from konnectivity.agent.options import AgentOptions, validate
from konnectivity.server.app import Server

N = 3


@pytest.fixture
async def fleet(open_fleet: OpenFleet) -> Fleet:
    return await open_fleet(sync_interval=0.05, sync_interval_cap=0.3, connections_per_server=N)


@pytest.fixture
async def pair(fleet: Fleet) -> tuple[Agent, list[Server]]:
    """An agent with all its connections to two servers behind one balancer."""
    servers = [await fleet.start_server(name, server_count=2) for name in ("s1", "s2")]
    agent = await fleet.start_agent("a1")
    await until(full(agent, s1=N, s2=N))
    await until(lambda: [len(list(each.exchange.backends.streams())) for each in servers] == [N, N])
    return agent, servers


def full(agent: Agent, **wanted: int) -> Callable[[], bool]:
    """Whether the agent has just so many connections to each server."""
    return lambda: Counter(link.server_id for link in agent.connections.links) == wanted


@asynccontextmanager
async def tunnels(server: Server, endpoint: Endpoint, count: int) -> AsyncIterator[list[Tunnel]]:
    """Tunnels that have echoed."""
    async with AsyncExitStack() as stack:
        opened: list[Tunnel] = []
        for _ in range(count):
            client = await stack.enter_async_context(ConnectClient(server.options.uds_name))
            opened.append(await client.dial(endpoint.address))
            await ping(opened[-1])
        yield opened


async def test_an_agent_has_so_many_connections_to_each_server_and_is_one_agent(
    pair: tuple[Agent, list[Server]],
) -> None:
    agent, servers = pair
    assert agent.counters.known_servers == 2
    for server in servers:
        assert len(server.exchange.backends) == 1
        page = await Page.scrape(server.options.health_port, SERVER)
        assert page.value("ready_backend_connections") == 1
        status = await status_of(server.options.admin_port)
        assert [peer.id for peer in status.agents] == ["a1"] * N  # type: ignore[union-attr]
    page = await Page.scrape(agent.options.health_server_port, AGENT)
    assert page.value("open_server_connections") == 2
    assert page.value("known_server_count") == 2
    assert page.value("server_connections") == 2 * N
    status = await status_of(agent.options.admin_server_port)
    assert Counter(peer.id for peer in status.servers) == {"s1": N, "s2": N}  # type: ignore[union-attr]


async def test_nobody_looks_for_more(fleet: Fleet, pair: tuple[Agent, list[Server]]) -> None:
    agent, _ = pair
    before = fleet.choices
    await asyncio.sleep(0.5)
    assert fleet.choices == before
    assert full(agent, s1=N, s2=N)()


async def test_tunnels_spread_evenly_over_the_connections(
    pair: tuple[Agent, list[Server]], echoing: Endpoint
) -> None:
    _, servers = pair
    async with tunnels(servers[0], echoing, 9):
        assert [each.load for each in servers[0].exchange.backends.streams()] == [3, 3, 3]


async def test_a_lost_connection_takes_its_own_tunnels_only_and_is_replaced(
    pair: tuple[Agent, list[Server]], echoing: Endpoint
) -> None:
    agent, (server, _) = pair
    async with tunnels(server, echoing, 6) as opened:
        lost = next(link for link in agent.connections.links if link.server_id == "s1")
        lost.abort()
        await until(lambda: lost not in agent.connections.links)
        await until(lambda: server.exchange.counters.established == 4)
        assert [await answers(tunnel) for tunnel in opened].count(True) == 4
        assert not agent.unready()
        await until(full(agent, s1=N, s2=N))
        await until(lambda: len(list(server.exchange.backends.streams())) == N)
        async with tunnels(server, echoing, 2):  # the new one has none, so it gets these
            assert [each.load for each in server.exchange.backends.streams()] == [2, 2, 2]


async def test_one_of_two_servers_that_goes_leaves_all_connections_to_the_other(
    fleet: Fleet, pair: tuple[Agent, list[Server]], echoing: Endpoint
) -> None:
    agent, servers = pair
    async with tunnels(servers[1], echoing, 3) as opened, AsyncExitStack() as watched:
        for tunnel in opened:
            await watched.enter_async_context(unharmed(tunnel))
        await fleet.stop_server("s1")
        await until(full(agent, s2=N))
        await fleet.start_server("s3", server_count=2)
        await until(full(agent, s2=N, s3=N))


async def test_all_connections_drain_with_their_agent(pair: tuple[Agent, list[Server]]) -> None:
    agent, servers = pair
    streams = [each for server in servers for each in server.exchange.backends.streams()]
    agent.connections.drain()
    await until(lambda: all(each.draining for each in streams))


async def test_connections_that_must_come_anew_keep_their_number(
    start_pair: StartPair, echoing: Endpoint
) -> None:
    pair = await start_pair(
        server={"max_agent_connection_age": 0.5},
        agent={"connections_per_server": N, "sync_interval": 0.02},
    )
    await until(full(pair.agent, **{"server-1": N}))
    first = set(pair.agent.connections.links)
    async with tunnels(pair.server, echoing, 1) as opened, unharmed(opened[0]):
        await until(lambda: first.isdisjoint(pair.agent.connections.usable))
        await until(lambda: len(pair.agent.connections.usable) == N)


async def test_a_stock_server_gets_one_connection_however_many_are_asked_for(
    start_fake_server: StartFakeServer, start_agent: StartAgent, log: Log
) -> None:
    server = await start_fake_server()
    agent = await start_agent(connections_per_server=N)
    session = await server.session()
    assert ("konnectivity-connections", str(N)) in session.metadata
    await asyncio.sleep(0.5)
    assert server.calls == 1
    assert len(agent.connections.links) == 1
    await server.stop()


@pytest.mark.parametrize(("said", "granted"), [("99", "16"), ("none", "1"), ("3", "3")])
async def test_a_server_grants_a_bounded_number_to_those_that_ask(
    said: str, granted: str, start_pair: StartPair, connect_agent: ConnectAgent
) -> None:
    await start_pair()
    metadata = (("agentid", "b"), ("konnectivity-connections", said))
    asking = await connect_agent(metadata=metadata)
    assert (await asking.answer())["konnectivity-connections"] == granted
    stock = await connect_agent("c")
    assert "konnectivity-connections" not in await stock.answer()


async def test_an_agent_is_at_all_workers_so_many_times(
    server_options: dict[str, Any], start_agent: StartAgent, echoing: Endpoint
) -> None:
    options = server_options | {"workers": 2}
    async with running("server", *flags(**options)) as program:
        for number in range(2):
            await program.line(f'"Worker is up" worker={number}')
        agent = await start_agent(connections_per_server=N, sync_interval=0.05)
        await until(full(agent, **{"server-1-0": N, "server-1-1": N}))
        async with AsyncExitStack() as stack:
            for _ in range(6):
                client = await stack.enter_async_context(ConnectClient(options["uds_name"]))
                await ping(await client.dial(echoing.address))
            found = await status_of(options["admin_port"])
            assert [(each.id, each.connections) for each in found.agents] == [  # type: ignore[union-attr]
                ("agent-1", 2 * N)
            ]
            assert found.tunnel_counts.open == 6
            agent.connections.links[0].abort()
            await until(lambda: len(agent.connections.links) == 2 * N - 1)
            await until(full(agent, **{"server-1-0": N, "server-1-1": N}))


@pytest.mark.parametrize("number", [0, 17, -1])
def test_a_number_that_makes_no_sense_is_refused(number: int) -> None:
    problems = validate(AgentOptions(connections_per_server=number))
    assert f"connections-per-server must be 1 to 16, got {number}" in problems


async def answers(tunnel: Tunnel) -> bool:
    try:
        await ping(tunnel)
    except (AssertionError, OSError, EOFError, asyncio.IncompleteReadError):
        return False
    return True
