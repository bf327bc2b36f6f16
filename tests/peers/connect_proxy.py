"""A small HTTP proxy on loopback that knows CONNECT only, in plain text or with TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from typing import Self


class ConnectProxy:
    """Connects who asks for a key of `targets` to the loopback port that is its value.

    `answer` replaces the answer's head; a status but 200 in it refuses.
    """

    def __init__(
        self,
        targets: Mapping[str, int],
        *,
        answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.heads: list[bytes] = []
        """What it was asked for, each head whole."""
        self.port = 0
        self._targets = targets
        self._answer = answer
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # for transports that end with their tasks

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                writer.write(self._answer)
                target = head.split()[1].decode()
                if b" 200 " in self._answer and target in self._targets:
                    await relay(reader, writer, self._targets[target])
                elif self._answer:
                    await writer.drain()
                else:
                    await reader.read()
        finally:
            writer.transport.abort()


async def relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Pass bytes on to a loopback port, and back, until either side ends."""
    name = "localhost" if tls else None
    streams = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
    onward_reader, onward = streams
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(_copy(reader, onward))
            both.create_task(_copy(onward_reader, writer))
    except* OSError:
        pass
    finally:
        onward.transport.abort()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while piece := await source.read(1 << 16):
        sink.write(piece)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()
    else:
        sink.close()
