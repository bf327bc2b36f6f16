"""Who stops reading stops only itself: W6, W7, W9, W10, W34.

Between our own pair back-pressure reaches from end to end, so a pause costs nothing. A stock peer
cannot be held back for one tunnel; what it sends is held up to a limit, then that tunnel ends.
"""

from __future__ import annotations

import asyncio
import hashlib
import os

import grpc
import pytest
from tests.e2e.conftest import (
    MODES,
    ConnectAgent,
    OpenProxy,
    OpenTunnel,
    Pair,
    StartAgent,
    StartEndpoint,
    StartFakeServer,
    StartServer,
    unharmed,
    until,
)
from tests.peers import schema
from tests.peers.agent import FakeAgent
from tests.peers.endpoint import Endpoint, pour
from tests.peers.frontend import GrpcTunnel, Tunnel, ping

from konnectivity.tunnel.budget import TunnelLimits

BLOCK = os.urandom(1 << 20)
BLOCKS = 64
"""Together more than every buffer on the way."""
WHOLE = hashlib.sha256(BLOCK * BLOCKS).digest()
PAUSE = 0.5
SMALL = TunnelLimits(queue=2 << 20, throttle=512 << 10, process=6 << 20)
PACKET = bytes(64 << 10)


async def send_all(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for _ in range(BLOCKS):
        writer.write(BLOCK)
        await writer.drain()
    writer.write_eof()
    await asyncio.Event().wait()


async def digest_of(tunnel: Tunnel) -> bytes:
    digest = hashlib.sha256()
    while content := await tunnel.read():
        digest.update(content)
    return digest.digest()


# A frontend that does not read


@pytest.mark.parametrize("mode", MODES)
async def test_w06_a_frontend_that_does_not_read_delays_nobody_else(
    mode: str,
    pair: Pair,
    open_tunnel: OpenTunnel,
    start_endpoint: StartEndpoint,
    echoing: Endpoint,
) -> None:
    paused = await open_tunnel(mode, (await start_endpoint(pour)).address)
    paused.pause()
    bystander = await open_tunnel(mode, echoing.address)
    async with unharmed(bystander, within=1):
        await asyncio.sleep(PAUSE)
        async with asyncio.timeout(1):
            other = await open_tunnel(mode, echoing.address)
            await ping(other)
            await other.close()
    assert pair.server.exchange.counters.established == 2


@pytest.mark.parametrize("mode", MODES)
async def test_w10_a_frontend_that_pauses_loses_nothing(
    mode: str, pair: Pair, open_tunnel: OpenTunnel, start_endpoint: StartEndpoint
) -> None:
    tunnel = await open_tunnel(mode, (await start_endpoint(send_all)).address)
    tunnel.pause()
    await asyncio.sleep(PAUSE)
    tunnel.resume()
    assert await digest_of(tunnel) == WHOLE


@pytest.mark.parametrize("mode", MODES)
async def test_w06_with_a_stock_agent_only_the_tunnel_that_is_not_read_ends(
    mode: str,
    start_server: StartServer,
    connect_agent: ConnectAgent,
    open_tunnel: OpenTunnel,
) -> None:
    server = await start_server(limits=SMALL)
    agent = await connect_agent()
    paused, paused_id = await dial_through(agent, open_tunnel, mode)
    bystander, bystander_id = await dial_through(agent, open_tunnel, mode)
    paused.pause()
    sent = 0
    while True:
        await agent.send(schema.data(paused_id, PACKET), schema.data(bystander_id, b"tick"))
        sent += len(PACKET)
        async with asyncio.timeout(2):
            assert await bystander.read() == b"tick"
        assert server.exchange.budget.held <= SMALL.queue + 2 * len(PACKET)
        if server.exchange.budget.overflows:
            break
    assert sent > SMALL.queue
    assert (await agent.expect(schema.CLOSE_REQ)).closeRequest.connectID == paused_id
    assert server.exchange.counters.tunnels_ended == {"overflow": 1}
    await bystander.write(b"still here")
    assert (await agent.expect(schema.DATA)).data.data == b"still here"


@pytest.mark.parametrize("mode", MODES)
async def test_w06_with_a_stock_agent_a_reader_that_is_slow_but_reads_gets_everything(
    mode: str,
    start_server: StartServer,
    connect_agent: ConnectAgent,
    open_tunnel: OpenTunnel,
) -> None:
    server = await start_server(limits=SMALL)
    agent = await connect_agent()
    slow, slow_id = await dial_through(agent, open_tunnel, mode)
    bystander, bystander_id = await dial_through(agent, open_tunnel, mode)
    total, turn = 8 * SMALL.queue, asyncio.Lock()

    async def send() -> None:
        for _ in range(total // len(PACKET)):
            async with turn:
                await agent.send(schema.data(slow_id, PACKET))

    async def tick() -> None:
        for _ in range(20):
            async with turn:
                await agent.send(schema.data(bystander_id, b"tick"))
            async with asyncio.timeout(2):
                assert await bystander.read() == b"tick"
            await asyncio.sleep(0.05)

    sending, ticking = asyncio.create_task(send()), asyncio.create_task(tick())
    received = 0
    while received < total and (content := await slow.read()):
        received += len(content)
        await asyncio.sleep(0.004)
    assert received == total
    await sending
    await ticking
    assert server.exchange.budget.overflows == 0
    assert server.exchange.counters.established == 2


async def dial_through(agent: FakeAgent, open_tunnel: OpenTunnel, mode: str) -> tuple[Tunnel, int]:
    dialing = asyncio.create_task(open_tunnel(mode, "endpoint:1"))
    _, connect_id = await agent.accept()
    return await dialing, connect_id


async def test_w06_a_grpc_frontend_whose_tunnel_overflowed_reads_why_before_what_was_held(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    await start_server(limits=SMALL)
    agent = await connect_agent()
    stream = await open_proxy()
    await stream.begin_dial("endpoint:1")
    _, connect_id = await agent.accept()
    tunnel = GrpcTunnel(stream, await stream.end_dial())
    tunnel.pause()
    for _ in range(2 * SMALL.queue // len(PACKET)):
        await agent.send(schema.data(connect_id, PACKET))
    tunnel.resume()
    read = 0
    while content := await tunnel.read():
        read += len(content)
    assert read < SMALL.queue // 2
    code, text = await stream.status()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "frontend reads too slowly" in text


@pytest.mark.parametrize("mode", MODES)
async def test_w09_closing_during_a_download_is_quick_and_delays_nobody_else(
    mode: str,
    pair: Pair,
    open_tunnel: OpenTunnel,
    start_endpoint: StartEndpoint,
    echoing: Endpoint,
) -> None:
    pouring = await start_endpoint(pour)
    bystander = await open_tunnel(mode, echoing.address)
    async with unharmed(bystander, within=1):
        for _ in range(5):
            tunnel = await open_tunnel(mode, pouring.address)
            await tunnel.read()
            async with asyncio.timeout(2):
                await tunnel.close()
    await pouring.wait_until_open(0)


async def test_w09_after_its_close_request_a_frontend_gets_no_more_data(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    await start_server()
    agent = await connect_agent()
    stream = await open_proxy()
    await stream.begin_dial("endpoint:1")
    _, connect_id = await agent.accept()
    await stream.end_dial()
    await stream.send(schema.close_request(connect_id))
    await agent.expect(schema.CLOSE_REQ)
    for _ in range(20):
        await agent.send(schema.data(connect_id, b"late"))
    await agent.send(schema.close_response(connect_id))
    answer = await stream.receive()
    assert answer.type == schema.CLOSE_RSP
    assert answer.closeResponse.connectID == connect_id


# An endpoint that does not read


@pytest.mark.parametrize("mode", MODES)
async def test_w07_an_endpoint_that_pauses_loses_nothing_and_delays_nobody_else(
    mode: str,
    pair: Pair,
    open_tunnel: OpenTunnel,
    start_endpoint: StartEndpoint,
    echoing: Endpoint,
) -> None:
    slow = await start_endpoint(receive_buffer=4096)
    tunnel = await open_tunnel(mode, slow.address)
    connection = await slow.accepted()
    bystander = await open_tunnel(mode, echoing.address)
    sending = asyncio.create_task(send_blocks(tunnel))
    async with unharmed(bystander, within=1):
        await asyncio.sleep(PAUSE)
        async with asyncio.timeout(1):
            other = await open_tunnel(mode, echoing.address)
            await ping(other)
            await other.close()
    assert not sending.done()
    digest = hashlib.sha256()
    while content := await connection.reader.read(1 << 18):
        digest.update(content)
    assert digest.digest() == WHOLE
    await sending


async def send_blocks(tunnel: Tunnel) -> None:
    for _ in range(BLOCKS):
        await tunnel.write(BLOCK)
    await tunnel.close()


async def test_w07_the_close_request_for_a_slow_endpoints_tunnel_is_answered_at_once(
    start_fake_server: StartFakeServer, start_agent: StartAgent, start_endpoint: StartEndpoint
) -> None:
    server = await start_fake_server()
    await start_agent()
    session = await server.session()
    slow_id = await session.dial((await start_endpoint(receive_buffer=4096)).address)
    for _ in range(8):
        await session.send(schema.data(slow_id, BLOCK))
    await session.send(schema.close_request(slow_id))
    async with asyncio.timeout(2):
        answer = (await session.expect(schema.CLOSE_RSP)).closeResponse
    assert (answer.connectID, answer.error) == (slow_id, "")


async def test_w07_with_a_stock_server_only_the_tunnel_whose_endpoint_does_not_read_ends(
    start_fake_server: StartFakeServer,
    start_agent: StartAgent,
    start_endpoint: StartEndpoint,
    echoing: Endpoint,
) -> None:
    server = await start_fake_server()
    agent = await start_agent(limits=SMALL)
    session = await server.session()
    slow = await start_endpoint(receive_buffer=4096)
    slow_id, bystander_id = await session.dial(slow.address), await session.dial(echoing.address)
    sent = 0
    while True:
        await session.send(schema.data(slow_id, PACKET), schema.data(bystander_id, b"tick"))
        sent += len(PACKET)
        async with asyncio.timeout(2):
            packet = await session.receive()
        assert agent.connections.budget.held <= SMALL.queue + 2 * len(PACKET)
        if packet.type == schema.CLOSE_RSP:
            break
        assert packet.data.data == b"tick"
    assert sent > SMALL.queue
    assert packet.closeResponse.connectID == slow_id
    assert packet.closeResponse.error == "endpoint reads too slowly"
    await session.collect(4)
    await session.send(schema.data(bystander_id, b"still here"))
    await session.collect(10)


# Memory


async def test_w34_what_an_agent_holds_is_bounded_in_bytes_for_all_tunnels_together(
    start_fake_server: StartFakeServer, start_agent: StartAgent, start_endpoint: StartEndpoint
) -> None:
    """Upstream holds 150 packets of up to 4 MiB for each tunnel and direction."""
    server = await start_fake_server()
    agent = await start_agent(limits=SMALL)
    session = await server.session()
    slow = await start_endpoint(receive_buffer=4096)
    tunnels = [await session.dial(slow.address) for _ in range(8)]
    ended: set[int] = set()
    for _ in range(128):  # the kernel takes some of it
        for connect_id in tunnels:
            await session.send(schema.data(connect_id, PACKET))
        # The answer to this shows that the agent has dealt with all before.
        await session.send(schema.close_request(999))
        while (answer := await session.receive()).closeResponse.connectID != 999:
            ended.add(answer.closeResponse.connectID)
        assert agent.connections.budget.held <= SMALL.process + len(PACKET)
    assert agent.connections.budget.overflows == 8
    assert ended == set(tunnels)


@pytest.mark.parametrize("mode", MODES)
async def test_w34_what_a_server_holds_is_bounded_in_bytes_for_all_tunnels_together(
    mode: str, start_server: StartServer, connect_agent: ConnectAgent, open_tunnel: OpenTunnel
) -> None:
    server = await start_server(limits=SMALL)
    agent = await connect_agent()
    paused = [await dial_through(agent, open_tunnel, mode) for _ in range(8)]
    for tunnel, _ in paused:
        tunnel.pause()
    for _ in range(64):
        for _, connect_id in paused:
            await agent.send(schema.data(connect_id, PACKET))
        assert server.exchange.budget.held <= SMALL.process + len(PACKET)
    await until(lambda: server.exchange.counters.tunnels_ended == {"overflow": 8})
    assert server.exchange.budget.held == 0
