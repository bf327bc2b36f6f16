"""The chaos proxy does what it says: tests that lean on it would prove nothing otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from tests.chaos.proxy import ChaosProxy
from tests.peers.endpoint import Connection, Endpoint

pytestmark = pytest.mark.both_loops


@dataclass
class Line:
    proxy: ChaosProxy
    near: Connection
    far: Connection


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    """A connection through a proxy, seen from both ends."""
    async with Endpoint() as endpoint, ChaosProxy(("127.0.0.1", endpoint.port)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        yield Line(proxy, Connection(reader, writer), await endpoint.accepted())
        writer.transport.abort()


async def test_it_carries_bytes_and_the_end_both_ways(line: Line) -> None:
    line.near.writer.write(b"up")
    line.far.writer.write(b"down")
    assert await line.far.read_exactly(2) == b"up"
    assert await line.near.read_exactly(4) == b"down"
    line.near.writer.write_eof()
    assert await line.far.read_all() == b""
    line.far.writer.write(b"still open")
    line.far.writer.write_eof()
    assert await line.near.read_all() == b"still open"


async def pour(end: Connection) -> None:
    while True:
        end.writer.write(bytes(1 << 20))
        await end.writer.drain()


async def test_a_stalled_way_pushes_back_and_the_other_goes_on(line: Line) -> None:
    line.proxy.up.stall()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pour(line.near), 0.2)
    line.far.writer.write(b"down")
    assert await line.near.read_exactly(4) == b"down"
    line.proxy.up.go_on()
    assert await line.far.read_exactly(1 << 20) == bytes(1 << 20)


async def test_delay_holds_bytes_without_limiting_their_number(line: Line) -> None:
    loop = asyncio.get_running_loop()
    line.proxy.up.delay = 0.1
    started = loop.time()
    for _ in range(10):
        line.near.writer.write(b"x")
        await asyncio.sleep(0.005)
    await line.far.read_exactly(10)
    assert 0.1 <= loop.time() - started < 0.5


async def test_rate_limits_bytes_per_second(line: Line) -> None:
    loop = asyncio.get_running_loop()
    line.proxy.down.rate = 1e6
    started = loop.time()
    line.far.writer.write(bytes(300_000))
    await line.near.read_exactly(300_000)
    assert loop.time() - started > 0.15


async def test_a_black_hole_takes_everything_and_gives_nothing(line: Line) -> None:
    line.proxy.up.black_hole = True
    for _ in range(8):
        line.near.writer.write(bytes(1 << 20))
        await line.near.writer.drain()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await line.far.reader.read(1)
    assert line.proxy.up.carried == 0


async def test_cut_ends_both_sides_in_order(line: Line) -> None:
    line.proxy.cut()
    assert await line.near.read_all() == b""
    assert await line.far.read_all() == b""


async def test_reset_ends_both_sides_with_an_error(line: Line) -> None:
    line.proxy.reset()
    for end in (line.near, line.far):
        with pytest.raises(ConnectionResetError):
            await end.read_all()
