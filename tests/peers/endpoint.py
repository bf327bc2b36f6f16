"""What agents dial in tests: a TCP listener on loopback whose behaviour is a coroutine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Self, TypeAlias

from tests.peers.streams import PATIENCE

Talk: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Connection:
    """One accepted connection that the test itself talks on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def read_exactly(self, size: int) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readexactly(size)

    async def read_all(self) -> bytes:
        """Everything until the end of the stream; a reset raises."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read(-1)


class Endpoint:
    """A listener. With `talk` connections behave like it; without, `accepted` hands them out.

    `receive_buffer`: a small one makes the kernel push back early.
    """

    def __init__(
        self, talk: Talk | None = None, *, host: str = "127.0.0.1", receive_buffer: int = 0
    ) -> None:
        self.open = 0
        """Connections that are open now."""
        self.seen = 0
        """Connections that ever came."""
        self._talk = talk
        self._accepted: asyncio.Queue[Connection] = asyncio.Queue()
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if receive_buffer:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._sock.bind((host, 0))
        self.port = int(self._sock.getsockname()[1])
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        # A small limit: what the test does not read stays in the kernel.
        self._server = await asyncio.start_server(self._begin, sock=self._sock, limit=1 << 12)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._server is not None:
            await self._server.wait_closed()

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.seen += 1
        try:
            if self._talk is not None:
                await self._talk(reader, writer)
            else:
                self._accepted.put_nowait(Connection(reader, writer))
                await self._over.wait()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.transport.abort()

    async def accepted(self) -> Connection:
        """The next connection."""
        async with asyncio.timeout(PATIENCE):
            return await self._accepted.get()

    async def wait_until_open(self, count: int) -> None:
        """Until so many connections are open."""
        async with asyncio.timeout(PATIENCE):
            while self.open != count:  # noqa: ASYNC110 - it may pass it
                await asyncio.sleep(0.01)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes."""
    while content := await reader.read(1 << 16):
        writer.write(content)
        await writer.drain()


async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say nothing, read until the other side ends."""
    while await reader.read(1 << 16):
        pass


def say(content: bytes, *, stay: bool = True) -> Talk:
    """Speak first; then listen, or close."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        await writer.drain()
        if stay:
            await listen(reader, writer)
        else:
            writer.write_eof()
            await listen(reader, writer)

    return talk


async def count_then_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As `wc -c` behind a socket: the answer follows the end of the question."""
    writer.write(b"%d" % len(await reader.read()))
    await writer.drain()


async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send without end."""
    block = bytes(1 << 16)
    while True:
        writer.write(block)
        await writer.drain()


@asynccontextmanager
async def full_backlog() -> AsyncIterator[str]:
    """The address of a listener whose queue is full: the kernel ignores further SYNs.

    What a black hole looks like from the dialling side, without leaving loopback.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers: list[socket.socket] = []
        try:
            for _ in range(4):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
                fillers.append(filler)
            await asyncio.sleep(0.05)
            host, port = listener.getsockname()
            yield f"{host}:{port}"
        finally:
            for filler in fillers:
                filler.close()
