"""Every tunnel ends on both sides, and costs the same however many there are: W26, W30, W63."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.e2e.conftest import (
    MODES,
    ConnectAgent,
    ConnectGrpc,
    Log,
    OpenTunnel,
    Pair,
    StartAgent,
    StartEndpoint,
    StartFakeServer,
    StartServer,
    until,
)
from tests.peers import schema
from tests.peers.endpoint import Endpoint, count_then_answer, pour
from tests.peers.frontend import ConnectClient, ConnectTunnel, GrpcTunnel, Tunnel, ping, read_all


async def vanish(tunnel: Tunnel) -> None:
    """Leave without a word."""
    if isinstance(tunnel, GrpcTunnel):
        await tunnel.stream.leave()
    elif isinstance(tunnel, ConnectTunnel):
        tunnel.writer.transport.abort()


@pytest.mark.parametrize("mode", MODES)
async def test_w26_a_frontend_that_vanishes_during_a_download_ends_the_tunnel_everywhere(
    mode: str, pair: Pair, open_tunnel: OpenTunnel, start_endpoint: StartEndpoint
) -> None:
    pouring = await start_endpoint(pour)
    tunnel = await open_tunnel(mode, pouring.address)
    await tunnel.read()
    await vanish(tunnel)
    await pouring.wait_until_open(0)
    await until(lambda: not pair.server.exchange.counters.established)
    await until(lambda: not pair.agent.connections.tunnels)
    assert pair.server.exchange.counters.tunnels_ended == {"frontend_close": 1}
    assert pair.server.exchange.budget.held == 0


@pytest.mark.parametrize("mode", MODES)
async def test_w26_a_stock_agent_is_told_that_the_frontend_vanished(
    mode: str, start_server: StartServer, connect_agent: ConnectAgent, open_tunnel: OpenTunnel
) -> None:
    await start_server()
    agent = await connect_agent()
    dialing = asyncio.create_task(open_tunnel(mode, "endpoint:1"))
    _, connect_id = await agent.accept()
    await vanish(await dialing)
    await agent.send(*(schema.data(connect_id, bytes(1000)) for _ in range(5)))
    assert (await agent.expect(schema.CLOSE_REQ)).closeRequest.connectID == connect_id
    await agent.expect_silence()


@pytest.mark.parametrize("mode", MODES)
async def test_an_endpoint_that_closes_ends_the_tunnel_behind_its_last_bytes(
    mode: str, pair: Pair, open_tunnel: OpenTunnel, start_endpoint: StartEndpoint
) -> None:
    endpoint = await start_endpoint()
    tunnel = await open_tunnel(mode, endpoint.address)
    connection = await endpoint.accepted()
    connection.writer.write(bytes(1 << 20))
    connection.writer.close()
    assert len(await read_all(tunnel)) == 1 << 20
    await tunnel.close()
    await until(lambda: not pair.agent.connections.tunnels)
    assert pair.server.exchange.counters.tunnels_ended == {"endpoint_close": 1}


@pytest.mark.parametrize("mode", MODES)
async def test_the_loss_of_the_agent_ends_its_tunnels_and_no_others(
    mode: str, start_server: StartServer, connect_agent: ConnectAgent, open_tunnel: OpenTunnel
) -> None:
    """Scenario 38."""
    server = await start_server()
    tunnels = {}
    for name in ("one", "two"):
        agent = await connect_agent("same id")
        dialing = asyncio.create_task(open_tunnel(mode, "endpoint:1"))
        await agent.accept()
        tunnels[name] = (agent, await dialing)
        await agent.send(schema.drain())  # the next dial is for the next agent
    await tunnels["one"][0].leave()
    assert await read_all(tunnels["one"][1]) == b""
    assert server.exchange.counters.tunnels_ended == {"agent_lost": 1}
    await tunnels["two"][0].send(schema.data(1, b"unharmed"))
    assert await tunnels["two"][1].read() == b"unharmed"


async def test_w30_a_dying_connection_does_not_take_its_replacement_along(
    start_fake_server: StartFakeServer, start_agent: StartAgent, echoing: Endpoint, log: Log
) -> None:
    old_server = await start_fake_server()
    agent = await start_agent()
    old = await old_server.session()
    old_id = await old.dial(echoing.address)
    # A GOAWAY: the old connection lives on, a new one to the same server id is made.
    stopping = asyncio.create_task(old_server.stop(grace=30))
    await until(lambda: agent.connections.links[0].going_away)
    await start_fake_server()
    await until(lambda: len(agent.connections.links) == 2)
    await old.send(schema.data(old_id, b"still works"))
    assert await old.collect(11) == b"still works"
    old.over.set()
    await stopping
    await log.wait_for("Lost a server", "server")
    assert len(agent.connections.links) == 1
    assert not agent.connections.links[0].going_away


# W63: the work of closing tunnels

FEW, MANY = 15, 200


def assert_no_scan(few: float, many: float) -> None:
    """Lines for each of few tunnels, and of many.

    A loop over all of them would add about `MANY` lines to each. The margin is for reads that
    happen to bring the packets of one tunnel or of several.
    """
    assert few > 10, "nothing was counted"
    assert many - few < MANY / 2


@contextmanager
def counted_lines() -> Iterator[list[int]]:
    """Count the lines of the package that run: loops show, clocks and other load do not."""
    count = [0]

    def line(frame: types.FrameType, event: str, _: Any) -> Any:
        if event == "line":
            count[0] += 1
        return line

    def call(frame: types.FrameType, *_: object) -> Any:
        return line if "/konnectivity/" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        yield count
    finally:
        sys.settrace(before)


async def lines_to_close(
    http_connect: ConnectClient, pair: Pair, endpoint: Endpoint, n: int
) -> int:
    """Lines that run while n tunnels are closed one by one."""
    tunnels = [await http_connect.dial(endpoint.address) for _ in range(n)]
    with counted_lines() as count:
        for tunnel in tunnels:
            tunnel.writer.transport.abort()
        await until(lambda: not pair.server.exchange.counters.established)
        await until(lambda: not pair.agent.connections.tunnels)
    await endpoint.wait_until_open(0)
    return count[0]


async def test_w63_the_work_of_closing_a_tunnel_does_not_grow_with_their_number(
    pair: Pair, http_connect: ConnectClient, echoing: Endpoint
) -> None:
    few = await lines_to_close(http_connect, pair, echoing, FEW)
    many = await lines_to_close(http_connect, pair, echoing, MANY)
    assert_no_scan(few / FEW, many / MANY)


async def test_w63_the_work_of_ending_a_grpc_frontends_streams_does_not_grow_with_their_number(
    pair: Pair, connect_grpc: ConnectGrpc, echoing: Endpoint
) -> None:
    async def lines(n: int) -> int:
        client = await connect_grpc()
        streams = [client.proxy() for _ in range(n)]
        for stream in streams:
            await stream.dial(echoing.address)
        with counted_lines() as count:
            for stream in streams:
                await stream.leave()
            await until(lambda: not pair.server.exchange.counters.established)
            await until(lambda: not pair.agent.connections.tunnels)
        return count[0]

    few, many = await lines(FEW), await lines(MANY)
    assert_no_scan(few / FEW, many / MANY)


async def test_dials_and_closes_in_a_crowd_leave_every_other_tunnel_alone(
    pair: Pair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    keepers = [await open_tunnel(mode, echoing.address) for mode in MODES for _ in range(5)]

    async def come_and_go(mode: str) -> None:
        for _ in range(10):
            tunnel = await open_tunnel(mode, echoing.address)
            await ping(tunnel)
            await tunnel.close()

    await asyncio.gather(*(come_and_go(mode) for mode in MODES for _ in range(4)))
    for number, keeper in enumerate(keepers):
        await ping(keeper, b"%d" % number)
    assert pair.server.exchange.counters.established == len(keepers)


# Half-close (W2): on streams, with a client whose two directions can end one by one


async def test_w02_a_frontend_that_shuts_its_write_side_still_gets_the_answer(
    pair: Pair, carrier: str, http_connect: ConnectClient, start_endpoint: StartEndpoint
) -> None:
    tunnel = await http_connect.dial((await start_endpoint(count_then_answer)).address)
    await tunnel.write(bytes(300_000))
    tunnel.writer.write_eof()
    assert await read_all(tunnel) == (b"300000" if carrier == "streams" else b"")
    await until(lambda: not pair.agent.connections.tunnels)
    assert pair.server.exchange.counters.tunnels_ended.total() == 1


async def test_w02_an_endpoint_that_shuts_its_write_side_still_gets_what_follows(
    pair: Pair, carrier: str, http_connect: ConnectClient, start_endpoint: StartEndpoint
) -> None:
    endpoint = await start_endpoint()
    tunnel = await http_connect.dial(endpoint.address)
    connection = await endpoint.accepted()
    connection.writer.write(b"enough")
    connection.writer.write_eof()
    assert await read_all(tunnel) == b"enough"
    if carrier == "streams":
        await tunnel.write(bytes(300_000))
    await tunnel.close()
    received = await connection.reader.read()
    assert len(received) == (300_000 if carrier == "streams" else 0)
    await until(lambda: not pair.agent.connections.tunnels)
    assert pair.server.exchange.counters.tunnels_ended == {"endpoint_close": 1}


@pytest.mark.parametrize("carrier", ["streams"], indirect=True)
async def test_a_half_closed_frontend_that_leaves_altogether_is_noticed(
    pair: Pair, http_connect: ConnectClient, start_endpoint: StartEndpoint
) -> None:
    endpoint = await start_endpoint()
    tunnel = await http_connect.dial(endpoint.address)
    connection = await endpoint.accepted()
    tunnel.writer.write_eof()
    assert await connection.reader.read() == b""
    await tunnel.close()
    await until(lambda: not pair.agent.connections.tunnels)
    assert pair.server.exchange.counters.tunnels_ended == {"frontend_close": 1}
