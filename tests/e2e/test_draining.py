"""An agent that is told to go drains, and leaves when it may: W39, W40, experiment 5."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import pytest
from tests.e2e.conftest import (
    MODES,
    OpenTunnel,
    Pair,
    StartAgent,
    StartEndpoint,
    StartFakeServer,
    StartPair,
    StartServer,
    unharmed,
    until,
)
from tests.e2e.soak import soaking
from tests.e2e.test_scenarios import get
from tests.peers import schema
from tests.peers.endpoint import Endpoint, full_backlog
from tests.peers.frontend import ConnectClient, ping, read_all
from tests.peers.ports import free_port
from tests.peers.program import Program, flags, running

from konnectivity.agent import draining
from konnectivity.agent.app import Agent


def program_flags(options: dict[str, Any], **more: object) -> list[str]:
    quick = {"sync_interval": "0.1s", "sync_interval_cap": "1s"}
    return ["agent", *flags(**options | quick | more)]


async def ends(program: Program, *, within: float) -> None:
    started = time.monotonic()
    assert await program.status() == 0
    assert time.monotonic() - started < within
    assert "Traceback" not in "".join(program.lines)


async def test_w39_the_program_leaves_when_its_last_tunnel_has_ended_and_is_not_ready_meanwhile(
    start_server: StartServer,
    agent_options: dict[str, Any],
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
) -> None:
    server = await start_server()
    async with running(*program_flags(agent_options)) as agent:
        await until(lambda: len(server.exchange.backends))
        tunnel = await open_tunnel("grpc", echoing.address)
        port = agent_options["health_server_port"]
        assert (await get(port, "/readyz"))[0] == 200
        agent.signal(signal.SIGTERM)
        await agent.line("Draining")
        assert (await get(port, "/readyz"))[0] == 503
        assert (await get(port, "/healthz"))[0] == 200
        await asyncio.sleep(draining.SETTLE + 0.5)
        async with unharmed(tunnel):
            await asyncio.sleep(0.1)
        await tunnel.close()
        await ends(agent, within=draining.SETTLE + 3)


async def test_w39_a_second_signal_ends_the_program_at_once_whatever_is_open(
    start_server: StartServer,
    agent_options: dict[str, Any],
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
) -> None:
    server = await start_server()
    async with running(*program_flags(agent_options, drain_timeout="0")) as agent:
        await until(lambda: len(server.exchange.backends))
        tunnel = await open_tunnel("grpc", echoing.address)
        await ping(tunnel)
        agent.signal(signal.SIGTERM)
        await agent.line("Draining")
        agent.signal(signal.SIGTERM)
        await ends(agent, within=draining.SETTLE)
    assert await read_all(tunnel) == b""


async def test_w39_when_the_time_is_up_what_is_left_is_ended_in_order(
    start_fake_server: StartFakeServer, start_agent: StartAgent, start_endpoint: StartEndpoint
) -> None:
    server = await start_fake_server()
    agent = await start_agent(drain_timeout=0.3)
    session = await server.session()
    endpoint = await start_endpoint()
    connect_id = await session.dial(endpoint.address)
    connection = await endpoint.accepted()
    await agent.drain()
    await session.expect(schema.DRAIN)
    async with full_backlog() as nowhere:
        pending = await session.begin_dial(nowhere)
        await session.send(schema.data(connect_id, b"last words"))
        await until(lambda: agent.connections.links[0].packets.received[schema.DATA])
        await agent.stop()
    answers = [await session.receive(), await session.receive()]
    refused = next(each.dialResponse for each in answers if each.type == schema.DIAL_RSP)
    assert (refused.random, refused.connectID) == (pending, 0)
    assert refused.error == f"dial tcp {nowhere}: the agent is stopping"
    ended = next(each.closeResponse for each in answers if each.type == schema.CLOSE_RSP)
    assert (ended.connectID, ended.error) == (connect_id, "")
    assert await connection.read_all() == b"last words"


async def test_w39_an_agent_without_tunnels_does_not_wait_for_the_limit(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "SETTLE", 0.2)
    async with asyncio.timeout(2):
        await pair.agent.drain()


async def test_w39_without_a_limit_tunnels_have_all_the_time_they_want(
    start_pair: StartPair,
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(draining, "SETTLE", 0.1)
    pair = await start_pair(agent={"drain_timeout": 0.0})
    tunnel = await open_tunnel("grpc", echoing.address)
    leaving = asyncio.create_task(pair.agent.drain())
    await asyncio.sleep(0.6)
    assert not leaving.done()
    await tunnel.close()
    async with asyncio.timeout(2):
        await leaving


async def test_w40_a_draining_agent_that_loses_its_server_comes_back_and_still_drains(
    start_fake_server: StartFakeServer, start_agent: StartAgent, echoing: Endpoint
) -> None:
    server = await start_fake_server()
    agent = await start_agent()
    session = await server.session()
    agent.connections.drain()
    await session.expect(schema.DRAIN)
    session.over.set()
    again = await server.session()
    await again.expect(schema.DRAIN)
    assert agent.unready()
    await again.dial(echoing.address)


@soaking(short=1, long=20)
async def test_draining_under_load_fails_no_dial_and_keeps_a_live_tunnel(
    much: float,
    start_pair: StartPair,
    start_agent: StartAgent,
    open_tunnel: OpenTunnel,
    http_connect: ConnectClient,
    echoing: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Experiment 5: fifty dials a second while the agent drains and leaves."""
    monkeypatch.setattr(draining, "SETTLE", 0.3)
    pair = await start_pair()
    live = await open_tunnel("grpc", echoing.address)
    await second_agent(pair, start_agent)
    over, dials = asyncio.Event(), 0

    async def keep_dialling() -> None:
        nonlocal dials
        async with asyncio.TaskGroup() as tasks:
            while not over.is_set():
                tasks.create_task(one_dial())
                dials += 1
                await asyncio.sleep(0.02)

    async def one_dial() -> None:
        tunnel = await http_connect.dial(echoing.address)
        await ping(tunnel)
        await tunnel.close()

    load = asyncio.create_task(keep_dialling())
    async with unharmed(live):
        await asyncio.sleep(0.3)
        leaving = asyncio.create_task(pair.agent.drain())
        await asyncio.sleep(much)
    assert not leaving.done()
    await live.close()
    await leaving
    await pair.agent.stop()
    await asyncio.sleep(0.3)
    over.set()
    await load
    assert dials > 50
    assert not pair.server.exchange.counters.dial_failures


async def second_agent(pair: Pair, start_agent: StartAgent) -> Agent:
    agent = await start_agent(
        agent_id="agent-2", health_server_port=free_port(), admin_server_port=free_port()
    )
    await until(lambda: len(pair.server.exchange.backends) == 2)
    return agent


@pytest.mark.parametrize("mode", MODES)
async def test_a_draining_agent_that_is_the_only_one_still_serves(
    mode: str, pair: Pair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    """Scenario 13."""
    old = await open_tunnel(mode, echoing.address)
    pair.agent.connections.drain()
    await until(lambda: all(each.draining for each in pair.server.exchange.backends.streams()))
    await ping(old)
    await ping(await open_tunnel(mode, echoing.address))
