"""Dials that are given up, time out, or lose their agent: W19 to W23."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.e2e.conftest import (
    MODES,
    ConnectAgent,
    ConnectGrpc,
    OpenProxy,
    OpenTunnel,
    StartAgent,
    StartFakeServer,
    StartPair,
    StartServer,
    unharmed,
    until,
)
from tests.peers import schema
from tests.peers.agent import FakeAgent
from tests.peers.endpoint import Endpoint, full_backlog
from tests.peers.frontend import ConnectClient, ProxyStream, Refused
from tests.peers.leaks import descriptors

from konnectivity.agent import endpoint
from konnectivity.net.connect import DIAL_TIMEOUT
from konnectivity.server.app import Server

TIMEOUT = 0.1
"""Seconds of `--backend-dial-timeout` in the test that waits for it."""


def nothing_open(server: Server) -> bool:
    counters = server.exchange.counters
    return counters.pending_dials == counters.established == 0


@pytest.mark.parametrize("early", [b"", b"sent ahead"], ids=["silent", "sends-ahead"])
async def test_w19_an_http_connect_client_that_leaves_mid_dial_leaves_nothing_behind(
    early: bytes,
    start_server: StartServer,
    connect_agent: ConnectAgent,
    http_connect: ConnectClient,
) -> None:
    server = await start_server()
    agent = await connect_agent()
    tunnel = await http_connect.ask("endpoint:1")
    random = (await agent.expect(schema.DIAL_REQ)).dialRequest.random
    await tunnel.write(early)
    await tunnel.close()
    assert (await agent.expect(schema.DIAL_CLS)).closeDial.random == random
    await agent.send(schema.dial_response(random, 1))
    assert (await agent.expect(schema.CLOSE_REQ)).closeRequest.connectID == 1
    assert nothing_open(server)
    assert server.exchange.counters.dial_failures == {"frontend_close": 1}


@pytest.mark.parametrize("mode", MODES)
async def test_w20_a_dial_timeout_that_meets_success_ends_in_one_of_the_two(
    mode: str, start_server: StartServer, connect_agent: ConnectAgent, open_tunnel: OpenTunnel
) -> None:
    server = await start_server(backend_dial_timeout=TIMEOUT)
    agent = await connect_agent()
    outcomes = []

    async def dial() -> None:
        try:
            tunnel = await open_tunnel(mode, "endpoint:1")
        except Refused as refused:
            outcomes.append(str(refused))
        else:
            outcomes.append("opened")
            closing.append(asyncio.create_task(tunnel.close()))

    closing: list[asyncio.Task[None]] = []
    handed_out, closed = set(), set()
    for number in range(1, 16):
        dialing = asyncio.create_task(dial())
        random = (await next_dial(agent, closed)).dialRequest.random
        # From a little early to a little late, in steps of a millisecond.
        await asyncio.sleep(TIMEOUT - 0.006 + number * 0.001)
        await agent.send(schema.dial_response(random, number))
        handed_out.add(number)
        await dialing
    while closed != handed_out:
        packet = await agent.receive()
        await note_close(agent, packet, closed)
    await asyncio.gather(*closing)
    await until(lambda: nothing_open(server))
    assert len(outcomes) == len(handed_out)
    refusals = [outcome for outcome in outcomes if outcome != "opened"]
    assert all("timed out waiting for backend dial" in refusal for refusal in refusals)


async def next_dial(agent: FakeAgent, closed: set[int]) -> object:
    """The next DIAL_REQ; closes that come before it are answered and noted."""
    while (packet := await agent.receive()).type != schema.DIAL_REQ:
        await note_close(agent, packet, closed)
    return packet


async def note_close(agent: FakeAgent, packet: object, closed: set[int]) -> None:
    if packet.type == schema.CLOSE_REQ:
        connect_id = packet.closeRequest.connectID
        assert connect_id not in closed
        closed.add(connect_id)
        await agent.send(schema.close_response(connect_id))


async def test_w21_a_grpc_frontend_lost_while_its_dial_is_answered_leaves_nothing_behind(
    start_server: StartServer, connect_agent: ConnectAgent, connect_grpc: ConnectGrpc
) -> None:
    server = await start_server()
    agent = await connect_agent()
    client = await connect_grpc()
    handed_out, closed = set(), set()
    for number in range(1, 31):
        stream = client.proxy()
        await stream.begin_dial("endpoint:1")
        random = (await next_dial(agent, closed)).dialRequest.random
        answer = agent.send(schema.dial_response(random, number))
        await asyncio.gather(
            *((answer, stream.leave()) if number % 2 else (stream.leave(), answer))
        )
        handed_out.add(number)
    while closed != handed_out:
        await note_close(agent, await agent.receive(), closed)
    await until(lambda: nothing_open(server))


async def test_w22_a_grpc_frontend_hears_at_once_that_the_agent_was_lost_mid_dial(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    server = await start_server()
    agent = await connect_agent()
    stream = await open_proxy()
    await stream.begin_dial("endpoint:1")
    await agent.expect(schema.DIAL_REQ)
    await agent.leave()
    async with asyncio.timeout(2):
        with pytest.raises(Refused, match="context canceled"):
            await stream.end_dial()
    assert nothing_open(server)
    assert server.exchange.counters.dial_failures == {"backend_close": 1}


@pytest.mark.parametrize("how", ["DIAL_CLS", "half-close", "cancel"])
async def test_w23_a_cancelled_dial_is_cancelled_at_the_agent_too(
    how: str, start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    await start_server()
    agent = await connect_agent()
    stream = await open_proxy()
    await stream.begin_dial("endpoint:1")
    await agent.expect(schema.DIAL_REQ)
    await give_up(stream, how)
    assert (await agent.expect(schema.DIAL_CLS)).closeDial.random == stream.random
    await agent.send(schema.dial_response(stream.random, 1))
    assert (await agent.expect(schema.CLOSE_REQ)).closeRequest.connectID == 1


async def give_up(stream: ProxyStream, how: str) -> None:
    match how:
        case "DIAL_CLS":
            await stream.send(schema.dial_close(stream.random))
        case "half-close":
            await stream.half_close()
        case "cancel":
            await stream.leave()


async def test_w23_the_agent_stops_a_cancelled_dial_instead_of_dialling_on_for_five_seconds(
    start_fake_server: StartFakeServer, start_agent: StartAgent
) -> None:
    server = await start_fake_server()
    agent = await start_agent()
    session = await server.session()
    async with full_backlog() as address:
        before = len(descriptors())
        random = await session.begin_dial(address)
        await until(lambda: len(descriptors()) == before + 1)
        assert agent.connections.tunnels == 1
        await session.send(schema.dial_close(random))
        async with asyncio.timeout(1):
            await until(lambda: len(descriptors()) == before)
        assert agent.connections.tunnels == 0
        await session.expect_silence()


@pytest.mark.parametrize(
    ("carrier", "seconds"), [("streams", DIAL_TIMEOUT), ("packets", 1.0)], indirect=["carrier"]
)
async def test_a_dial_to_a_black_hole_ends_after_five_seconds_and_delays_nobody_else(
    seconds: float,
    start_pair: StartPair,
    open_proxy: OpenProxy,
    open_tunnel: OpenTunnel,
    http_connect: ConnectClient,
    echoing: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Scenario 7. How long it takes is the agent's affair, whatever carries the answer."""
    monkeypatch.setattr(endpoint, "DIAL_TIMEOUT", seconds)
    pair = await start_pair()
    bystander = await open_tunnel("grpc", echoing.address)
    started = time.monotonic()
    async with full_backlog() as address, unharmed(bystander, within=1):
        dialing = asyncio.create_task((await open_proxy()).dial(address))
        answer = await http_connect.answer_to(address)
        with pytest.raises(Refused) as refused:
            await dialing
    text = f"dial tcp {address}: i/o timeout"
    assert str(refused.value) == text
    assert answer == (
        b"HTTP/1.1 504 Gateway Timeout\r\nConnection: close\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + text.encode()
    )
    assert seconds - 0.5 < time.monotonic() - started < seconds + 2
    assert pair.server.exchange.counters.dial_failures == {"error_response": 2}
    assert pair.agent.counters.dial_failures == {"timeout": 2}
