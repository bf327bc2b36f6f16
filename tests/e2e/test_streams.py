"""Tunnels on streams of their own: a second implementation, mixed fleets, and misuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from h2.events import ResponseReceived
from tests.e2e.conftest import (
    MODES,
    ConnectAgent,
    ConnectGrpc,
    Log,
    OpenTunnel,
    Pair,
    StartEndpoint,
    StartPair,
    StartServer,
    until,
)
from tests.net.authority import Authority, Identity
from tests.peers import schema
from tests.peers.endpoint import Endpoint, count_then_answer, pour
from tests.peers.frontend import ConnectClient, Tunnel, ping, read_all
from tests.peers.stream_agent import StreamAgent

from konnectivity.server.app import Server
from konnectivity.wire import frames

ConnectStreaming = Callable[..., Awaitable[StreamAgent]]


@pytest.fixture
def connect_streaming(
    exits: AsyncExitStack,
    server_options: dict[str, Any],
    authority: Authority,
    identity: Identity,
) -> ConnectStreaming:
    """Agents on the h2 library."""

    async def connect(**options: Any) -> StreamAgent:
        port = server_options["agent_port"]
        agent = await StreamAgent.connect(port, authority, identity, **options)
        return await exits.enter_async_context(agent)

    return connect


@asynccontextmanager
async def dialing(open_tunnel: OpenTunnel, mode: str) -> AsyncIterator[asyncio.Task[Tunnel]]:
    task = asyncio.create_task(open_tunnel(mode, "endpoint:1"))
    yield task
    await task


async def opened(
    agent: StreamAgent, open_tunnel: OpenTunnel, mode: str, *, connect_id: int = 1
) -> tuple[Tunnel, int]:
    """A tunnel of this agent, and its stream."""
    async with dialing(open_tunnel, mode) as task:
        stream = agent.open((await agent.dialed()).random, connect_id)
    return task.result(), stream


# A second implementation


@pytest.mark.parametrize("mode", MODES)
async def test_another_implementation_carries_bytes_both_ways(
    mode: str,
    start_server: StartServer,
    connect_streaming: ConnectStreaming,
    open_tunnel: OpenTunnel,
) -> None:
    server = await start_server()
    agent = await connect_streaming()
    assert agent.answer["konnectivity-streams"] == "1"
    tunnel, stream = await opened(agent, open_tunnel, mode)
    agent.send(stream, b"from the endpoint")
    assert await tunnel.read() == b"from the endpoint"
    await tunnel.write(b"from the frontend")
    assert await agent.content(stream, 17) == b"from the frontend"
    head = await agent.expect(ResponseReceived, stream)
    assert dict(head.headers)[b":status"] == b"200"
    await tunnel.close()
    assert await agent.reset(stream) == frames.NO_ERROR
    await until(lambda: not server.exchange.counters.established)
    assert server.exchange.counters.tunnels_ended == {"frontend_close": 1}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (frames.NO_ERROR, "endpoint_close"),
        (frames.CONNECT_ERROR, "endpoint_reset"),
        (frames.ENHANCE_YOUR_CALM, "overflow"),
        (frames.REFUSED_STREAM, "shutdown"),
        (frames.INTERNAL_ERROR, "agent_lost"),
    ],
)
async def test_w12_a_reset_says_why_the_tunnel_ended(
    code: int,
    reason: str,
    start_server: StartServer,
    connect_streaming: ConnectStreaming,
    open_tunnel: OpenTunnel,
) -> None:
    server = await start_server()
    agent = await connect_streaming()
    tunnel, stream = await opened(agent, open_tunnel, "http-connect")
    agent.send(stream, b"last words")
    agent.reset_stream(stream, code)
    arrived = await read_all(tunnel)
    assert arrived == b"last words" or reason == "overflow"
    assert server.exchange.counters.tunnels_ended == {reason: 1}


async def test_both_directions_end_one_by_one(
    start_server: StartServer, connect_streaming: ConnectStreaming, http_connect: ConnectClient
) -> None:
    server = await start_server()
    agent = await connect_streaming()
    task = asyncio.create_task(http_connect.dial("endpoint:1"))
    stream = agent.open((await agent.dialed()).random, 1)
    tunnel = await task
    await tunnel.write(b"question")
    tunnel.writer.write_eof()
    assert await agent.content(stream, 8) == b"question"
    await agent.ended(stream)
    agent.send(stream, b"answer", end=True)
    assert await read_all(tunnel) == b"answer"
    await until(lambda: not server.exchange.counters.established)
    assert server.exchange.counters.tunnels_ended == {"frontend_close": 1}


async def test_a_window_that_stays_closed_stops_its_tunnel_alone(
    start_server: StartServer, connect_streaming: ConnectStreaming, open_tunnel: OpenTunnel
) -> None:
    await start_server()
    agent = await connect_streaming()
    stalled, _ = await opened(agent, open_tunnel, "http-connect", connect_id=1)
    other, stream = await opened(agent, open_tunnel, "http-connect", connect_id=2)
    agent.granting = False
    writing = asyncio.create_task(stalled.write(bytes(4 << 20)))
    agent.h2.increment_flow_control_window(1 << 20)
    agent.send(stream, b"unharmed")
    assert await other.read() == b"unharmed"
    assert not writing.done()
    writing.cancel()


# Mixed fleets


@pytest.mark.parametrize("refusing", ["server", "agent"])
async def test_either_side_can_turn_streams_off(
    refusing: str, start_pair: StartPair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    off: dict[str, dict[str, Any]] = {refusing: {"tunnel_streams": False}}
    pair = await start_pair(**off)
    await ping(await open_tunnel("http-connect", echoing.address))
    (tunnel,) = pair.agent.connections.links[0].packets.tunnels.values()  # type: ignore[union-attr]
    assert tunnel.way is tunnel.carrier


async def test_a_dial_that_no_stream_is_left_for_goes_on_packets(
    pair: Pair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    await ping(await open_tunnel("http-connect", echoing.address))
    link = pair.agent.connections.links[0]
    link._h2.core.peer_max_streams = 2  # type: ignore[union-attr]
    tunnels = [await open_tunnel(mode, echoing.address) for mode in MODES]
    for tunnel in tunnels:
        await ping(tunnel)
    ways = [each.way is each.carrier for each in link.packets.tunnels.values()]  # type: ignore[union-attr]
    assert ways == [False, True, True]


# Misuse


@pytest.fixture
async def bystander(
    start_server: StartServer, connect_agent: ConnectAgent, open_tunnel: OpenTunnel
) -> AsyncIterator[Server]:
    """A server with a stock agent, whose tunnel must work throughout the test."""
    server = await start_server()
    agent = await connect_agent("bystander")
    async with dialing(open_tunnel, "http-connect") as task:
        _, connect_id = await agent.accept()
    tunnel = task.result()
    await agent.send(schema.drain())
    await until(lambda: any(each.draining for each in server.exchange.backends.streams()))
    yield server
    await agent.send(schema.data(connect_id, b"unharmed"))
    assert await tunnel.read() == b"unharmed"
    await until(lambda: len(server.exchange.backends) == 1)


async def test_a_stream_for_a_dial_that_nobody_made_is_reset_and_many_are_a_flood(
    bystander: Server, connect_streaming: ConnectStreaming, log: Log
) -> None:
    agent = await connect_streaming()
    stream = agent.open(12345, 1)
    assert await agent.reset(stream) == frames.CANCEL
    for number in range(2, 300):
        agent.open(12345, number)
    await asyncio.wait_for(agent.lost.wait(), 5)
    await log.wait_for("too many streams for dials that nobody made")
    assert sum("HTTP/2 fault" in line for line in log.lines) == 1


async def test_streams_for_dials_that_were_given_up_are_no_misuse(
    bystander: Server, connect_streaming: ConnectStreaming, connect_grpc: ConnectGrpc
) -> None:
    agent = await connect_streaming()
    client = await connect_grpc()
    gone = []
    for _ in range(250):
        stream = client.proxy()
        await stream.begin_dial("endpoint:1")
        gone.append((await agent.dialed()).random)
        await stream.leave()
    await until(lambda: not bystander.exchange.counters.pending_dials)
    for number, dial in enumerate(gone):
        assert await agent.reset(agent.open(dial, number + 1)) == frames.NO_ERROR
    await agent.__aexit__()


async def test_a_second_stream_for_the_same_dial_changes_nothing(
    bystander: Server,
    connect_streaming: ConnectStreaming,
    open_tunnel: OpenTunnel,
) -> None:
    agent = await connect_streaming()
    async with dialing(open_tunnel, "http-connect") as task:
        dial = await agent.dialed()
        first, second = agent.open(dial.random, 1), agent.open(dial.random, 2)
    assert await agent.reset(second) == frames.CANCEL
    agent.send(first, b"the first one")
    assert await task.result().read() == b"the first one"
    await agent.__aexit__()


async def test_a_number_that_another_tunnel_has_fails_the_dial(
    bystander: Server,
    connect_streaming: ConnectStreaming,
    open_tunnel: OpenTunnel,
) -> None:
    agent = await connect_streaming()
    tunnel, stream = await opened(agent, open_tunnel, "http-connect", connect_id=7)
    dial = asyncio.create_task(open_tunnel("http-connect", "endpoint:1"))
    again = agent.open((await agent.dialed()).random, 7)
    assert await agent.reset(again) == frames.NO_ERROR
    with pytest.raises(Exception, match="connectID 7"):
        await dial
    agent.send(stream, b"unharmed")
    assert await tunnel.read() == b"unharmed"
    await agent.__aexit__()


@pytest.mark.parametrize("path", ["", "1", "1/", "/1", "x/1", "1/-1", "1/1/1", "1/" + "9" * 30])
async def test_a_path_that_names_no_dial_costs_the_connection(
    path: str, bystander: Server, connect_streaming: ConnectStreaming, log: Log
) -> None:
    agent = await connect_streaming()
    agent.open(0, 0, path=f"/konnectivity.Tunnels/{path}")
    await asyncio.wait_for(agent.lost.wait(), 5)
    await log.wait_for("which names no dial")


async def test_windows_too_small_for_tunnels_cost_the_connection(
    bystander: Server, connect_streaming: ConnectStreaming, open_tunnel: OpenTunnel, log: Log
) -> None:
    agent = await connect_streaming(window=1000)
    agent.open(1, 1)
    await asyncio.wait_for(agent.lost.wait(), 5)
    await log.wait_for("a window of 1000 bytes, at least 16384 are needed")


async def test_content_before_its_stream_was_opened_costs_the_connection(
    bystander: Server, connect_streaming: ConnectStreaming, log: Log
) -> None:
    agent = await connect_streaming()
    agent.say(frames.frame(frames.DATA, 0, 9, b"too early"))
    await asyncio.wait_for(agent.lost.wait(), 5)
    await log.wait_for("DATA on stream 9, which is idle")


async def test_more_than_a_window_costs_the_tunnel_and_its_agent_hears_why(
    bystander: Server,
    connect_streaming: ConnectStreaming,
    open_tunnel: OpenTunnel,
) -> None:
    agent = await connect_streaming()
    tunnel, stream = await opened(agent, open_tunnel, "http-connect")
    tunnel.pause()
    agent.say(frames.frame(frames.DATA, 0, stream, bytes(250_000)))
    assert await agent.reset(stream) == frames.FLOW_CONTROL_ERROR
    await until(lambda: not bystander.exchange.budget.held)
    await agent.__aexit__()


async def test_streams_before_the_connect_call_are_not_for_tunnels(
    bystander: Server, connect_agent: ConnectAgent, authority: Authority, identity: Identity
) -> None:
    """A stock agent that was promised nothing gets what any unknown method gets."""
    agent = await connect_agent("stock")
    method = agent._channel.stream_stream("/konnectivity.Tunnels/1/1")
    call = method()
    assert (await call.code()).name == "UNIMPLEMENTED"
    await agent.leave()
    await until(lambda: len(bystander.exchange.backends) == 1)


# The agent's side of it


@pytest.mark.parametrize("mode", MODES)
async def test_tunnels_of_all_kinds_leave_nothing_behind_on_their_connection(
    mode: str, pair: Pair, open_tunnel: OpenTunnel, start_endpoint: StartEndpoint, echoing: Endpoint
) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    addresses = [
        (await start_endpoint(talk)).address for talk in (pour, reset, count_then_answer)
    ] + [echoing.address]
    for address in addresses * 5:
        tunnel = await open_tunnel(mode, address)
        await tunnel.write(bytes(100_000))
        if address == addresses[0]:
            await tunnel.read()
        await tunnel.close()
    await until(lambda: not pair.agent.connections.tunnels)
    await until(lambda: not pair.server.exchange.counters.established)
    (ours,) = (link._h2 for link in pair.agent.connections.links)
    (theirs,) = pair.server._agents._connections
    for h2 in (ours, theirs):
        assert h2 is not None
        await until(lambda h2=h2: len(h2.core.streams) == len(h2.calls) == 1)
        assert h2.window_pool.free == h2.options.pooled_windows


async def test_tunnels_end_when_their_agent_is_not_trusted_any_more(
    pair: Pair, open_tunnel: OpenTunnel, start_endpoint: StartEndpoint
) -> None:
    """The `Connect` call ends and the connection stays a moment: its streams end with the call."""
    endpoint = await start_endpoint()
    tunnel = await open_tunnel("http-connect", endpoint.address)
    connection = await endpoint.accepted()
    (backend,) = pair.server.exchange.backends.streams()
    backend.lost()  # type: ignore[attr-defined]
    assert await read_all(tunnel) == b""
    assert await connection.reader.read() == b""
