"""Packets both ways on one call of grpcio's asyncio API, whichever side we play.

A task reads ahead, because a read of grpcio that is given up cancels the whole call. `pause` stops
it: then HTTP/2's windows fill, and the other side meets a peer that does not read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from tests.peers.schema import DATA

PATIENCE = 10.0
"""Seconds in which anything that is bound to happen has happened."""


class StreamEnded(Exception):
    """The other side ended the call."""


class PacketStream:
    """One call. `read` and `write` are grpcio's."""

    def __init__(
        self, read: Callable[[], Awaitable[Any]], write: Callable[[Any], Awaitable[None]]
    ) -> None:
        self._read = read
        self._write = write
        self._inbox: asyncio.Queue[Any] = asyncio.Queue()
        self._gate = asyncio.Event()
        self._gate.set()
        self.reader = asyncio.create_task(self._pump())

    async def _pump(self) -> None:
        try:
            while True:
                await self._gate.wait()
                item = await self._read()
                if item is grpc.aio.EOF:
                    return
                self._inbox.put_nowait(item)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.CancelledError):
            pass
        finally:
            self._inbox.put_nowait(None)

    @property
    def waiting(self) -> int:
        """Packets that came and were not asked for yet."""
        return self._inbox.qsize()

    async def send(self, *packets: Any) -> None:
        """Send packets, or any bytes in their place; waits where HTTP/2 has no credit left."""
        for packet in packets:
            await self._write(packet)

    async def receive(self) -> Any:
        """The next packet.

        Raises:
            StreamEnded: there is none.
            TimeoutError: the other side is silent.
        """
        async with asyncio.timeout(PATIENCE):
            item = await self._inbox.get()
        if item is None:
            self._inbox.put_nowait(None)
            raise StreamEnded
        return item

    async def expect(self, kind: int) -> Any:
        """The next packet, which must be of this kind."""
        packet = await self.receive()
        assert packet.type == kind, f"wanted type {kind}, got {packet}"
        return packet

    async def collect(self, size: int) -> bytes:
        """The content of the next DATA packets, `size` bytes together."""
        content = b""
        while len(content) < size:
            content += (await self.expect(DATA)).data.data
        assert len(content) == size, f"wanted {size} bytes, got {len(content)}"
        return content

    async def expect_silence(self, seconds: float = 0.2) -> None:
        """Nothing may come for so long."""
        try:
            packet = await asyncio.wait_for(self._inbox.get(), seconds)
        except TimeoutError:
            return
        raise AssertionError(f"wanted silence, got {packet}")

    def pause(self) -> None:
        """Read no more, but for what is under way."""
        self._gate.clear()

    def resume(self) -> None:
        """Read on."""
        self._gate.set()

    async def stop_reading(self) -> None:
        """End the reader; the call is over or about to be."""
        self.reader.cancel()
        await asyncio.wait({self.reader})
