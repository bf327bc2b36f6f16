"""Who may say what about which tunnel: W14 to W18."""

from __future__ import annotations

import contextlib

import grpc
import pytest
from tests.e2e.conftest import (
    ConnectAgent,
    ConnectGrpc,
    Log,
    OpenProxy,
    OpenTunnel,
    Pair,
    StartAgent,
    StartFakeServer,
    StartServer,
    unharmed,
    until,
)
from tests.peers import schema
from tests.peers.agent import FakeAgent
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ProxyStream, Refused
from tests.peers.streams import PacketStream, StreamEnded

MISMATCH = "mismatched connection IDs"
# Every type without its payload, nothing at all, a type that nobody knows, a negative one.
HOLLOW = [
    b"",
    *(b"\x08" + bytes([kind]) for kind in range(1, 7)),
    b"\x08\x63",
    b"\x08" + b"\xff" * 9 + b"\x01",
]


async def dialled(stream: ProxyStream, agent: FakeAgent) -> int:
    """Take a stream's dial through; the connectID."""
    await stream.begin_dial("endpoint:1")
    await agent.accept()
    return await stream.end_dial()


async def test_w14_tunnels_of_two_agents_that_share_an_id_do_not_mix(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    """Scenarios 29 and 38."""
    await start_server()
    old = await connect_agent("shared")
    first = await open_proxy()
    assert await dialled(first, old) == 1
    await old.send(schema.drain())  # the newer stream gets the next dials
    new = await connect_agent("shared")
    second = await open_proxy()
    assert await dialled(second, new) == 1
    await old.send(schema.data(1, b"from old"))
    await new.send(schema.data(1, b"from new"))
    assert await first.collect(8) == b"from old"
    assert await second.collect(8) == b"from new"
    await first.send(schema.data(1, b"to old"))
    await second.send(schema.data(1, b"to new"))
    assert await old.collect(6) == b"to old"
    assert await new.collect(6) == b"to new"
    await old.leave()
    await first.expect(schema.CLOSE_RSP)
    await new.send(schema.data(1, b"unharmed"))
    assert await second.collect(8) == b"unharmed"


@pytest.mark.parametrize("odd", [schema.data(1, b"injected"), schema.close_request(1)])
async def test_w15_a_frontend_cannot_touch_a_tunnel_that_it_did_not_open(
    odd: object, start_server: StartServer, connect_agent: ConnectAgent, connect_grpc: ConnectGrpc
) -> None:
    """Scenario 44."""
    server = await start_server()
    agent = await connect_agent()
    client = await connect_grpc()
    victim, rogue = client.proxy(), client.proxy()
    assert await dialled(victim, agent) == 1
    assert await dialled(rogue, agent) == 2
    await rogue.send(odd)
    for connect_id in (1, 2):
        answer = (await rogue.expect(schema.CLOSE_RSP)).closeResponse
        assert (answer.connectID, answer.error) == (connect_id, MISMATCH)
    # The agent hears of the rogue's own tunnel, and of nothing else.
    assert (await agent.expect(schema.CLOSE_REQ)).closeRequest.connectID == 2
    await victim.send(schema.data(1, b"mine"))
    assert (await agent.expect(schema.DATA)).data.data == b"mine"
    assert server.exchange.counters.tunnels_ended == {"violation": 1}


async def test_w15_a_frontend_cannot_guess_a_connect_id_before_it_has_one(
    start_server: StartServer, connect_agent: ConnectAgent, connect_grpc: ConnectGrpc
) -> None:
    await start_server()
    agent = await connect_agent()
    client = await connect_grpc()
    victim, rogue = client.proxy(), client.proxy()
    await dialled(victim, agent)
    await rogue.begin_dial("endpoint:1")
    await agent.expect(schema.DIAL_REQ)
    await rogue.send(schema.data(1, b"injected"))
    assert (await rogue.expect(schema.CLOSE_RSP)).closeResponse.error == MISMATCH
    await agent.expect(schema.DIAL_CLS)
    await agent.expect_silence()


async def test_w16_an_agent_cannot_answer_a_dial_that_went_to_another(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    await start_server()
    agents = [await connect_agent("one"), await connect_agent("two")]
    stream = await open_proxy()
    await stream.begin_dial("endpoint:1")
    asked = await whoever_is_asked(agents)
    thief = agents[1 - agents.index(asked)]
    await thief.send(schema.dial_response(stream.random, 7))
    assert (await thief.expect(schema.CLOSE_REQ)).closeRequest.connectID == 7
    await thief.send(schema.data(7, b"stolen"))
    assert (await thief.expect(schema.CLOSE_REQ)).closeRequest.connectID == 7
    await asked.send(schema.dial_response(stream.random, 1))
    assert await stream.end_dial() == 1
    await asked.send(schema.data(1, b"genuine"))
    assert await stream.collect(7) == b"genuine"


async def whoever_is_asked(agents: list[FakeAgent]) -> FakeAgent:
    await until(lambda: any(agent.waiting for agent in agents))
    asked = next(agent for agent in agents if agent.waiting)
    await asked.expect(schema.DIAL_REQ)
    return asked


async def test_w17_a_second_dial_on_a_stream_is_refused_and_the_first_tunnel_goes_on(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    """Scenario 72."""
    await start_server()
    agents = [await connect_agent("one"), await connect_agent("two")]
    stream = await open_proxy()
    await stream.begin_dial("endpoint:1")
    asked = await whoever_is_asked(agents)
    await asked.send(schema.dial_response(stream.random, 1))
    await stream.end_dial()
    with pytest.raises(Refused, match="dialed already"):
        await stream.dial("endpoint:2")
    await stream.send(schema.data(1, b"goes on"))
    assert (await asked.expect(schema.DATA)).data.data == b"goes on"
    await agents[1 - agents.index(asked)].expect_silence()


async def ended(stream: PacketStream) -> None:
    """Read until the other side ends the call."""
    with contextlib.suppress(StreamEnded):
        while True:
            await stream.receive()


@pytest.mark.parametrize("packet", HOLLOW, ids=repr)
async def test_w18_a_packet_without_payload_from_a_frontend_harms_nobody(
    packet: bytes, pair: Pair, open_proxy: OpenProxy, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    bystander = await open_tunnel("grpc", echoing.address)
    async with unharmed(bystander):
        fresh, used = await open_proxy(), await open_proxy()
        await used.dial(echoing.address)
        for stream in (fresh, used):
            await stream.send(packet, packet)
            await stream.half_close()
            await ended(stream)
    await until(lambda: pair.server.exchange.counters.established == 1)
    assert pair.server.exchange.counters.pending_dials == 0


@pytest.mark.parametrize("packet", HOLLOW, ids=repr)
async def test_w18_a_packet_without_payload_from_an_agent_harms_nobody(
    packet: bytes, start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    await start_server()
    agents = [await connect_agent("one"), await connect_agent("two")]
    stream = await open_proxy()
    await stream.begin_dial("endpoint:1")
    agent = await whoever_is_asked(agents)
    await agent.send(schema.dial_response(stream.random, 1))
    await stream.end_dial()
    rude = agents[1 - agents.index(agent)]
    await rude.send(packet, packet)
    await rude.say_goodbye()
    await ended(rude)
    await agent.send(packet, schema.data(1, b"still here"))
    assert await stream.collect(10) == b"still here"


@pytest.mark.parametrize("packet", HOLLOW, ids=repr)
async def test_w18_a_packet_without_payload_from_a_server_harms_no_tunnel(
    packet: bytes, start_fake_server: StartFakeServer, start_agent: StartAgent, echoing: Endpoint
) -> None:
    server = await start_fake_server()
    await start_agent()
    session = await server.session()
    connect_id = await session.dial(echoing.address)
    await session.send(packet, packet, schema.data(connect_id, b"still here"))
    # What is hollow names dial 0 or tunnel 0, which nobody has: it is answered, or ignored.
    while (answer := await session.receive()).type != schema.DATA:
        assert answer.dialResponse.error or answer.closeResponse.error == "Unknown connectID"
    assert answer.data.data == b"still here"


async def test_w18_bytes_that_are_no_packet_end_an_agents_stream_with_a_status_that_says_so(
    start_server: StartServer, connect_agent: ConnectAgent
) -> None:
    await start_server()
    agent, other = await connect_agent(), await connect_agent("other")
    await agent.send(b"\xff\xff\xff")
    code, text = await agent.status()
    assert code is grpc.StatusCode.INTERNAL
    assert "varint" in text
    await other.expect_silence()


async def test_w18_bytes_that_are_no_packet_end_a_frontends_tunnel_alone(
    start_server: StartServer, connect_agent: ConnectAgent, connect_grpc: ConnectGrpc
) -> None:
    await start_server()
    agent = await connect_agent()
    client = await connect_grpc()
    rude, polite = client.proxy(), client.proxy()
    for stream in (rude, polite):
        await dialled(stream, agent)
    await rude.send(b"\xff\xff\xff")
    code, text = await rude.status()
    assert code is grpc.StatusCode.INTERNAL
    assert "varint" in text
    assert (await agent.expect(schema.CLOSE_REQ)).closeRequest.connectID == 1
    await polite.send(schema.data(2, b"still here"))
    assert (await agent.expect(schema.DATA)).data.data == b"still here"


async def test_w18_after_bytes_that_are_no_packet_the_agent_comes_back(
    start_fake_server: StartFakeServer, start_agent: StartAgent, log: Log
) -> None:
    server = await start_fake_server()
    await start_agent()
    await (await server.session()).send(b"\xff\xff\xff")
    await server.session()
    await log.wait_for("Lost a server", "varint")
