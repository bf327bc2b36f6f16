"""Our own client in gRPC mode, against a server and an agent that says what a test wants said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import ConnectAgent, StartServer, until
from tests.peers import schema
from tests.peers.agent import FakeAgent

from konnectivity.client import grpc as client
from konnectivity.errors import DialError
from konnectivity.server.app import Server

ADDRESS = "endpoint.example:10250"

Opened = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[], Awaitable[Opened]]


@pytest.fixture
async def server(start_server: StartServer) -> Server:
    return await start_server()


@pytest.fixture
async def agent(server: Server, connect_agent: ConnectAgent) -> FakeAgent:
    return await connect_agent()


@pytest.fixture
def dial(server_options: dict[str, Any]) -> Dial:
    return lambda: client.dial(server_options["uds_name"], ADDRESS)


async def open_(dial: Dial, agent: FakeAgent) -> tuple[Opened, int]:
    """A tunnel, and its connectID."""
    dialling = asyncio.ensure_future(dial())
    _, connect_id = await agent.accept()
    return await dialling, connect_id


async def test_a_dial_asks_for_its_address_and_ends_with_the_answer(
    dial: Dial, agent: FakeAgent
) -> None:
    """Scenario 70."""
    dialling = asyncio.ensure_future(dial())
    asked = await agent.expect(schema.DIAL_REQ)
    assert (asked.dialRequest.protocol, asked.dialRequest.address) == ("tcp", ADDRESS)
    assert not dialling.done()
    await agent.send(schema.dial_response(asked.dialRequest.random, 7))
    _, writer = await dialling
    writer.transport.abort()


async def test_writes_arrive_in_order_and_answers_are_read_one_by_one(
    dial: Dial, agent: FakeAgent
) -> None:
    """Scenario 73."""
    (reader, writer), connect_id = await open_(dial, agent)
    for content in (b"one", b"two", b"three"):
        writer.write(content)
        packet = await agent.expect(schema.DATA)
        assert (packet.data.connectID, packet.data.data) == (connect_id, content)
        await agent.send(schema.data(connect_id, content.upper()))
        assert await reader.readexactly(len(content)) == content.upper()
    writer.transport.abort()


async def test_closing_asks_the_agent_to_close_and_waits_for_its_answer(
    dial: Dial, agent: FakeAgent
) -> None:
    """Scenario 74."""
    (reader, writer), connect_id = await open_(dial, agent)
    writer.close()
    assert (await agent.expect(schema.CLOSE_REQ)).closeRequest.connectID == connect_id
    assert not reader.at_eof()
    await agent.send(schema.close_response(connect_id))
    async with asyncio.timeout(2):
        assert await reader.read() == b""
        await writer.wait_closed()


async def test_a_close_that_is_never_answered_ends_after_its_limit(
    dial: Dial, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scenario 75."""
    assert client.CLOSE_LIMIT == 10.0
    monkeypatch.setattr(client, "CLOSE_LIMIT", 0.2)
    (reader, writer), _ = await open_(dial, agent)
    reading = asyncio.ensure_future(reader.read())
    writer.close()
    async with asyncio.timeout(2):
        assert await reading == b""


async def test_a_server_that_is_not_there_is_an_error_and_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    """Scenarios 76 and 97."""
    with pytest.raises(OSError, match="No such file"):
        await client.dial(str(tmp_path / "nobody.sock"), ADDRESS)


async def test_a_dial_that_is_out_of_time_before_it_begins_fails(dial: Dial) -> None:
    """Scenarios 3 and 86."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(-1):
            await dial()


async def test_a_cancelled_dial_is_cancelled_at_the_agent(
    dial: Dial, agent: FakeAgent, server: Server
) -> None:
    """Scenarios 77 and 78."""
    dialling = asyncio.ensure_future(dial())
    asked = await agent.expect(schema.DIAL_REQ)
    dialling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialling
    assert (await agent.expect(schema.DIAL_CLS)).closeDial.random == asked.dialRequest.random
    await until(lambda: server.exchange.counters.dial_failures == {"frontend_close": 1})


async def test_the_agents_error_is_the_dials(dial: Dial, agent: FakeAgent) -> None:
    """Scenarios 79 and 96."""
    dialling = asyncio.ensure_future(dial())
    asked = await agent.expect(schema.DIAL_REQ)
    await agent.send(schema.dial_response(asked.dialRequest.random, error="no route to host"))
    with pytest.raises(DialError, match="no route to host"):
        await dialling


async def test_a_dial_that_the_agent_closes_fails(dial: Dial, agent: FakeAgent) -> None:
    """Scenario 80."""
    dialling = asyncio.ensure_future(dial())
    asked = await agent.expect(schema.DIAL_REQ)
    await agent.send(schema.dial_close(asked.dialRequest.random))
    with pytest.raises(DialError, match="dial closed"):
        await dialling
