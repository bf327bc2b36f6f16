"""A TCP relay that misbehaves on request, each direction by itself, while it runs.

    async with ChaosProxy(("127.0.0.1", 8091)) as proxy:
        ...                          # connect to proxy.port
        proxy.down.stall()           # nothing more from server to client; the kernel pushes back
        proxy.down.go_on()
        proxy.reset()                # every connection ends with an RST

`target` may be a function: it is asked for each connection, which makes a load balancer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Self, TypeAlias

Address: TypeAlias = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""

CHUNK = 64 << 10
RESET = b"\x01\0\0\0\0\0\0\0"
"""SO_LINGER on, zero seconds: close with RST."""


class Way:
    """One direction of all connections. Change the attributes at any time."""

    def __init__(self) -> None:
        self.delay = 0.0
        """Seconds that bytes are held, in order; later bytes may wait at the same time."""
        self.rate = 0.0
        """Bytes per second for each connection; 0 is no limit."""
        self.black_hole = False
        """Take bytes and drop them."""
        self.carried = 0
        """Bytes passed on so far."""
        self._open = asyncio.Event()
        self._open.set()

    def stall(self) -> None:
        """Read no more, so that the sender's kernel notices."""
        self._open.clear()

    def go_on(self) -> None:
        """End a stall."""
        self._open.set()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection's bytes until the sender's end, then pass the end on."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=64)

        async def deliver() -> None:
            while True:
                since, data = await queue.get()
                await asyncio.sleep(since + self.delay - loop.time())
                await self._open.wait()
                if not data:
                    writer.write_eof()
                    return
                if not self.black_hole:
                    writer.write(data)
                    await writer.drain()
                    self.carried += len(data)
                if self.rate:
                    await asyncio.sleep(len(data) / self.rate)

        async def take() -> None:
            data = b"first"
            while data:
                await self._open.wait()
                data = await reader.read(CHUNK)
                await queue.put((loop.time(), data))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(deliver())
            tasks.create_task(take())


class ChaosProxy:
    """A listener on 127.0.0.1 (`port`) in front of `target`."""

    def __init__(self, target: Address | Callable[[], Address], *, port: int = 0) -> None:
        self.up = Way()
        """From client to target."""
        self.down = Way()
        """From target to client."""
        self.port = port
        self.accepted = 0
        """Connections that ever came."""
        self._target = target if callable(target) else lambda: target
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", self.port, limit=CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]
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

    def cut(self) -> None:
        """Close every connection on both sides, in an orderly way, whatever is under way."""
        for writer in self._writers:
            writer.close()

    def reset(self) -> None:
        """End every connection on both sides with an RST."""
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return len(self._tasks)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.create_task(self._relay(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        other: asyncio.StreamWriter | None = None
        try:
            back, other = await self._connect(self._target())
            self._writers.add(other)
            with contextlib.suppress(ExceptionGroup):  # either side may break off at any time
                async with asyncio.TaskGroup() as ways:
                    ways.create_task(self.up.pump(reader, other))
                    ways.create_task(self.down.pump(back, writer))
        except OSError:
            pass  # no target: the client's connection is closed
        finally:
            for each in (writer, other):
                if each is not None:
                    self._writers.discard(each)
                    each.transport.abort()

    async def _connect(self, target: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(target, str):
            return await asyncio.open_unix_connection(target, limit=CHUNK)
        return await asyncio.open_connection(*target, limit=CHUNK)
