"""Asks a worker: HTTP/1.1 over its Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import h11

from konnectivity.observe.status import Event
from konnectivity.observe.status_json import event_from_json

LIMIT: Final = 2.0
"""Seconds for an answer."""
LARGEST: Final = 64 << 20
"""Bytes of an answer."""
READ: Final = 64 << 10


class WorkerSilent(Exception):
    """A worker did not answer; the text says how."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A whole answer."""

    status: int
    content_type: str
    body: bytes


class Worker:
    """Where one worker answers."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def get(self, target: str) -> Answered:
        """Ask for a path with its query.

        Raises:
            WorkerSilent: there was no answer within the limit, or none that can be read.
        """
        try:
            async with asyncio.timeout(LIMIT), self._exchange(target) as exchange:
                body = bytearray()
                async for chunk in exchange.chunks():
                    body += chunk
                    if len(body) > LARGEST:
                        raise WorkerSilent(f"more than {LARGEST} bytes")
                return Answered(exchange.status, exchange.content_type, bytes(body))
        except (OSError, h11.RemoteProtocolError) as error:
            raise WorkerSilent(str(error) or f"no answer within {LIMIT:g} s") from error

    async def events(self) -> AsyncIterator[Event | None]:
        """What happens there from now on; first None, once the worker listens.

        Raises:
            WorkerSilent: it stopped.
        """
        try:
            async with self._exchange("/api/v1/events") as exchange:
                yield None
                kept = b""
                async for chunk in exchange.chunks():
                    *whole, kept = (kept + chunk).split(b"\n")
                    for line in whole:
                        if line.startswith(b"data: "):
                            yield event_from_json(line.removeprefix(b"data: "))
        except (OSError, h11.RemoteProtocolError, ValueError) as error:
            raise WorkerSilent(str(error)) from error
        raise WorkerSilent("the stream of events ended")

    @asynccontextmanager
    async def _exchange(self, target: str) -> AsyncIterator[_Exchange]:
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            exchange = _Exchange(reader)
            writer.write(exchange.request(target))
            await exchange.head()
            yield exchange
        finally:
            writer.transport.abort()


class _Exchange:
    """One request and its answer."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.status = 0
        self.content_type = ""
        self._reader = reader
        self._http = h11.Connection(h11.CLIENT)

    def request(self, target: str) -> bytes:
        head = h11.Request(method="GET", target=target, headers=[("Host", "worker")])
        return (self._http.send(head) or b"") + (self._http.send(h11.EndOfMessage()) or b"")

    async def head(self) -> None:
        event = await self._next()
        if isinstance(event, h11.Response):
            self.status = event.status_code
            self.content_type = dict(event.headers).get(b"content-type", b"").decode("latin-1")

    async def chunks(self) -> AsyncIterator[bytes]:
        while isinstance(event := await self._next(), h11.Data):
            yield bytes(event.data)

    async def _next(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(READ))
        return event
