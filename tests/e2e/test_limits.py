"""Caps on tunnels and dials, and the dial's time limit: W24, W25, W34, experiment 2."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

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
    StartPair,
    StartServer,
    unharmed,
    until,
)
from tests.e2e.soak import soaking
from tests.peers import schema
from tests.peers.agent import FakeAgent
from tests.peers.endpoint import Endpoint, full_backlog
from tests.peers.frontend import (
    ESTABLISHED,
    ConnectClient,
    Refused,
    Tunnel,
    ping,
    read_exactly,
    request,
)
from tests.peers.streams import PATIENCE

from konnectivity.server.departures import Departures
from konnectivity.tunnel.budget import TunnelLimits

PIECE = bytes(64 << 10)

# Caps


@pytest.mark.parametrize("mode", MODES)
async def test_w34_over_the_servers_limit_of_tunnels_a_dial_fails_and_the_others_live(
    mode: str, start_pair: StartPair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    pair = await start_pair(server={"max_tunnels": 2})
    tunnels = [await open_tunnel(mode, echoing.address) for _ in range(2)]
    async with unharmed(tunnels[0]):
        with pytest.raises(Refused) as caught:
            await open_tunnel(mode, echoing.address)
        assert "the server has reached its limit of tunnels (2)" in str(caught.value)
        if mode == "http-connect":
            assert str(caught.value).startswith("HTTP/1.1 503 ")
    assert pair.server.exchange.counters.dial_failures == {"limit": 1}
    await tunnels[1].close()
    await until(lambda: pair.server.exchange.counters.established == 1)
    await ping(await open_tunnel(mode, echoing.address))


async def test_w34_over_the_servers_limit_of_dials_a_dial_fails_until_one_is_answered(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    server = await start_server(max_pending_dials=1)
    agent = await connect_agent()
    first, second, third = [await open_proxy() for _ in range(3)]
    await first.begin_dial("endpoint:1")
    await agent.expect(schema.DIAL_REQ)
    with pytest.raises(Refused, match="too many dials are pending at the server"):
        await second.dial("endpoint:1")
    assert server.exchange.counters.dial_failures == {"limit": 1}
    await first.send(schema.dial_close(first.random))
    await agent.expect(schema.DIAL_CLS)
    await third.begin_dial("endpoint:1")
    await agent.accept()
    await third.end_dial()


async def test_w34_over_the_agents_limit_of_tunnels_a_dial_fails_and_the_others_live(
    start_fake_server: StartFakeServer, start_agent: StartAgent, echoing: Endpoint
) -> None:
    server = await start_fake_server()
    agent = await start_agent(max_tunnels=1)
    session = await server.session()
    connect_id = await session.dial(echoing.address)
    await session.begin_dial(echoing.address)
    answer = (await session.expect(schema.DIAL_RSP)).dialResponse
    where = f"dial tcp {echoing.address}"
    assert answer.error == f"{where}: the agent has reached its limit of tunnels (1)"
    assert agent.counters.dial_failures == {"limit": 1}
    await session.send(schema.data(connect_id, b"still here"))
    await session.collect(10)
    await session.send(schema.close_request(connect_id))
    await session.expect(schema.CLOSE_RSP)
    await until(lambda: not agent.connections.endpoints.sockets)
    await session.dial(echoing.address)


async def test_w34_a_dial_that_no_agent_has_room_for_is_answered_with_503(
    start_pair: StartPair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    await start_pair(agent={"max_tunnels": 1})
    await open_tunnel("grpc", echoing.address)
    with pytest.raises(Refused, match=r"HTTP/1\.1 503 Service Unavailable") as caught:
        await open_tunnel("http-connect", echoing.address)
    assert "the agent has reached its limit of tunnels (1)" in str(caught.value)


async def test_w34_a_tunnel_that_stalls_pays_for_the_memory_and_not_one_that_is_read(
    start_server: StartServer, connect_agent: ConnectAgent, open_tunnel: OpenTunnel
) -> None:
    """A stock agent cannot be held back; what it sends to readers that stall is held."""
    server = await start_server(limits=TunnelLimits(queue=2 << 20, process=6 << 20))
    budget = server.exchange.budget
    agent = await connect_agent()
    for number in range(1, 4):
        _, stalled_id = await dial_through(agent, open_tunnel)
        while budget.held < number * (1800 << 10):
            await agent.send(schema.data(stalled_id, PIECE))
            await asyncio.sleep(0.005)
    assert budget.overflows == 0
    reading, reading_id = await dial_through(agent, open_tunnel)
    await agent.send(*[schema.data(reading_id, PIECE)] * 24)
    await until(lambda: budget.overflows)
    await read_exactly(reading, 24 * len(PIECE))
    await agent.send(schema.data(reading_id, b"still here"))
    assert await reading.read() == b"still here"
    assert server.exchange.counters.tunnels_ended == {"overflow": 1}
    assert budget.held <= 6 << 20


async def dial_through(agent: FakeAgent, open_tunnel: OpenTunnel) -> tuple[Tunnel, int]:
    dialing = asyncio.create_task(open_tunnel("http-connect", "endpoint:1"))
    _, connect_id = await agent.accept()
    return await dialing, connect_id


# Time limits of dials


@pytest.mark.parametrize("mode", MODES)
async def test_w24_an_agent_that_does_not_answer_holds_nobody_longer_than_the_limit(
    mode: str,
    start_server: StartServer,
    connect_agent: ConnectAgent,
    open_tunnel: OpenTunnel,
) -> None:
    server = await start_server(backend_dial_timeout=0.3)
    agent = await connect_agent()
    started = time.monotonic()
    with pytest.raises(Refused, match="timed out waiting for backend dial"):
        await open_tunnel(mode, "endpoint:1")
    assert 0.25 < time.monotonic() - started < 2
    assert server.exchange.counters.dial_failures == {"backend_dial_timeout": 1}
    assert server.exchange.counters.pending_dials == 0
    await agent.expect(schema.DIAL_REQ)
    await agent.expect(schema.DIAL_CLS)


async def test_w25_dials_that_run_out_of_time_on_a_blocked_agent_cut_none_of_its_tunnels(
    start_server: StartServer,
    connect_agent: ConnectAgent,
    open_tunnel: OpenTunnel,
    http_connect: ConnectClient,
) -> None:
    """Scenario 28, but that the agent keeps its stream: sending never waits here."""
    server = await start_server(backend_dial_timeout=0.5)
    agent = await connect_agent()
    opening = asyncio.create_task(open_tunnel("http-connect", "endpoint:1"))
    _, connect_id = await agent.accept()
    tunnel = await opening
    agent.pause()
    uploading = asyncio.create_task(tunnel.write(bytes(8 << 20)))
    await asyncio.sleep(0.2)
    started = time.monotonic()
    answers = await asyncio.gather(*(http_connect.answer_to("endpoint:2") for _ in range(5)))
    assert time.monotonic() - started < 2
    assert all(each.startswith(b"HTTP/1.1 504 ") for each in answers)
    assert server.exchange.counters.pending_dials == 0
    assert len(server.exchange.backends) == 1
    assert server.exchange.counters.established == 1
    agent.resume()
    received = 0
    while received < 8 << 20:
        packet = await agent.receive()
        if packet.type == schema.DATA:
            assert packet.data.connectID == connect_id
            received += len(packet.data.data)
    await uploading


@soaking(short=3, long=10)
async def test_dials_into_a_black_hole_leave_nothing_and_delay_nobody(
    much: int,
    pair: Pair,
    open_tunnel: OpenTunnel,
    http_connect: ConnectClient,
    echoing: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Experiment 2: dials that the agent gives up, and dials that their clients give up."""
    limits = pair.agent.connections.endpoints._limits
    monkeypatch.setattr(limits, "limit", 0.3)
    bystander = await open_tunnel("grpc", echoing.address)
    async with full_backlog() as nowhere, unharmed(bystander):
        for _ in range(much):
            answers = asyncio.gather(*(http_connect.answer_to(nowhere) for _ in range(100)))
            leaving = [await http_connect.ask(nowhere) for _ in range(100)]
            await asyncio.sleep(0.1)
            await asyncio.gather(*(each.close() for each in leaving))
            for answer in await answers:
                assert answer.startswith(b"HTTP/1.1 504 ")
                assert b"i/o timeout" in answer
            await until(lambda: tables(pair) == [0, 1, 0, 1])
    failures = pair.server.exchange.counters.dial_failures
    assert failures.total() == 200 * much
    assert failures["error_response"] + failures["frontend_close"] == 200 * much


def tables(pair: Pair) -> list[int]:
    """Dials and tunnels of the server, of the agent."""
    (link,) = pair.agent.connections.links
    (stream,) = pair.server.exchange.backends.streams()
    counters = pair.server.exchange.counters
    assert (counters.pending_dials, counters.established) == (
        len(stream.pending),
        len(stream.tunnels),
    )
    return [len(stream.pending), len(stream.tunnels), len(link.packets.pending), tunnels(pair)]


def tunnels(pair: Pair) -> int:
    return len(pair.agent.connections.endpoints.sockets)


# Clients that leave while they are not read


async def test_a_paused_client_that_leaves_is_noticed_and_its_upload_still_delivered(
    pair: Pair,
    open_tunnel: OpenTunnel,
    server_options: dict[str, Any],
    start_endpoint: StartEndpoint,
    echoing: Endpoint,
) -> None:
    pair.server._frontends.departures = Departures(interval=0.1)
    slow = await start_endpoint(receive_buffer=4096)
    bystander = await open_tunnel("grpc", echoing.address)
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        await connect(client, server_options["uds_name"], slow.address)
        connection = await slow.accepted()
        sent = await fill(client)
    async with unharmed(bystander):
        await until(lambda: not pair.server.exchange.counters.http_connections)
        async with asyncio.timeout(PATIENCE):
            received = 0
            while content := await connection.reader.read(1 << 18):
                received += len(content)
    assert received == sent
    assert not pair.server._frontends.departures.paused


async def connect(client: socket.socket, path: str, address: str) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, path)
    await loop.sock_sendall(client, request(address))
    assert await loop.sock_recv(client, 100) == ESTABLISHED


async def fill(client: socket.socket) -> int:
    """Send until nothing more is taken; what was sent."""
    sent, idle = 0, 0
    while idle < 10:
        try:
            sent += client.send(bytes(1 << 16))
            idle = 0
        except BlockingIOError:
            idle += 1
            await asyncio.sleep(0.03)
    return sent
