"""Asks the admin endpoints of a server or an agent, over TCP, TLS or a Unix socket.

One connection for each question, each with a time limit and a bound on the answer. What goes wrong
is a `Silence` with the word for it (`facts.Trouble`) and one line of reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import h11

from konnectivity.diagnose.facts import Trouble
from konnectivity.diagnose.sources import ADMIN_PORT, ServerSource
from konnectivity.errors import KonnectivityError
from konnectivity.gotext import one_line
from konnectivity.net.address import join_host_port
from konnectivity.net.handshake import explain
from konnectivity.observe.status import Event, Status
from konnectivity.observe.status_json import event_from_json, from_json

LARGEST_ANSWER: Final = 64 << 20  # bytes; 10 000 agents and 10 000 tunnels are a tenth of it
LARGEST_EVENTS: Final = 4 << 20
CHUNK: Final = 256 << 10
QUIET: Final = 0.5
"""Seconds without an event after which there are no older ones."""


class Silence(KonnectivityError):
    """An admin endpoint gave no answer that can be used. `status` is the HTTP status, if any."""

    def __init__(self, trouble: Trouble, reason: str, *, status: int = 0) -> None:
        super().__init__(reason)
        self.trouble = trouble
        self.status = status


class AdminClient:
    """One admin address. `context` is its TLS, made by `tls_context`; None: plain HTTP."""

    def __init__(
        self, source: ServerSource, context: ssl.SSLContext | None, *, timeout: float
    ) -> None:
        self._source = source
        self._context = context
        self._timeout = timeout

    async def status(self, *, tunnels: int) -> Status:
        """The status.

        Raises:
            Silence: there is none.
        """
        body = await self._get(f"/api/v1/status?tunnels={tunnels}")
        try:
            return from_json(body)
        except (ValueError, RecursionError) as error:
            raise Silence("unreadable", f"its status cannot be read: {_line(error)}") from error

    async def metrics(self) -> str:
        """The metrics page.

        Raises:
            Silence: there is none.
        """
        return (await self._get("/metrics")).decode(errors="replace")

    async def page(self, path: str) -> bytes:
        """Whatever is at `path`.

        Raises:
            Silence: there is nothing to be had.
        """
        return await self._get(path)

    async def events(self, *, last: str) -> tuple[Event, ...]:
        """The events that are kept, oldest first, up to the one with the id `last`.

        Raises:
            Silence: there are none to be had.
        """
        found: list[Event] = []
        if last.endswith("-0"):  # there was none
            return ()
        lines = self._lines("/api/v1/events?after=0", LARGEST_EVENTS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout), contextlib.aclosing(lines):
                async for line in lines:
                    if line.startswith(b"data: "):
                        found.append(_event(line[6:]))
                        if found[-1].id == last:
                            break
        return tuple(found)

    async def _lines(self, path: str, largest: int) -> AsyncGenerator[bytes, None]:
        rest = b""
        async with _connected(self._source, self._context) as exchange:
            await exchange.ask(path)
            async for chunk in exchange.body(largest, quiet=QUIET):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line

    async def _get(self, path: str) -> bytes:
        try:
            async with (
                asyncio.timeout(self._timeout),
                _connected(self._source, self._context) as exchange,
            ):
                await exchange.ask(path)
                return b"".join([chunk async for chunk in exchange.body(LARGEST_ANSWER)])
        except TimeoutError:
            raise Silence("silent", f"no answer within {self._timeout:g} s") from None


def tls_context(source: ServerSource) -> ssl.SSLContext | None:
    """TLS for an address; reads files, so in a thread.

    Raises:
        Silence: a file is not what it should be.
    """
    if not source.url.startswith("https://"):
        return None
    try:
        context = ssl.create_default_context(cafile=source.ca or None)
        if source.cert:
            context.load_cert_chain(source.cert, source.key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(each for each in (source.ca, source.cert, source.key) if each)
        raise Silence("tls", f"cannot load {files}: {_line(error)}; PEM is wanted") from error
    return context


@asynccontextmanager
async def _connected(
    source: ServerSource, context: ssl.SSLContext | None
) -> AsyncIterator[_Exchange]:
    try:
        reader, writer = await _connect(source.url, context)
    except ssl.SSLError as error:
        raise Silence("tls", f"TLS failed: {explain(error)}") from error
    except OSError as error:
        raise Silence("refused", f"no connection: {_cause(error)}") from error
    try:
        yield _Exchange(source, reader, writer)
    finally:
        writer.transport.abort()


async def _connect(
    url: str, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if url.startswith("unix:"):
        return await asyncio.open_unix_connection(url.removeprefix("unix:"), limit=CHUNK)
    parts = urlsplit(url)
    port = parts.port or ADMIN_PORT
    return await asyncio.open_connection(parts.hostname, port, ssl=context, limit=CHUNK)


class _Exchange:
    """One request and its answer on a connection of its own."""

    def __init__(
        self, source: ServerSource, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._source = source
        self._reader = reader
        self._writer = writer
        self._wire = h11.Connection(h11.CLIENT, max_incomplete_event_size=64 << 10)

    async def ask(self, path: str) -> None:
        """Send a GET and read the head of its answer.

        Raises:
            Silence: it is not 200.
        """
        headers = [("Host", self._host), ("User-Agent", "konnectivity"), ("Connection", "close")]
        if self._source.token:
            headers.append(("Authorization", f"Bearer {self._source.token}"))
        request = h11.Request(method="GET", target=path, headers=headers)
        await self._send(request, h11.EndOfMessage())
        answer = await self._next()
        while isinstance(answer, h11.InformationalResponse):
            answer = await self._next()
        if not isinstance(answer, h11.Response):
            raise Silence("unreadable", "it closed the connection without an answer")
        if answer.status_code != 200:
            raise _refusal(answer.status_code, path)

    @property
    def _host(self) -> str:
        if self._source.url.startswith("unix:"):
            return "localhost"
        parts = urlsplit(self._source.url)
        return join_host_port(parts.hostname or "", parts.port or ADMIN_PORT)

    async def body(self, largest: int, *, quiet: float | None = None) -> AsyncIterator[bytes]:
        """What follows, until it ends or nothing came for `quiet` seconds.

        Raises:
            Silence: it is larger than `largest` bytes, or breaks off.
        """
        size = 0
        while True:
            try:
                async with asyncio.timeout(quiet):
                    event = await self._next()
            except TimeoutError:
                return
            if not isinstance(event, h11.Data):
                return
            size += len(event.data)
            if size > largest:
                raise Silence("unreadable", f"its answer is larger than {largest >> 20} MiB")
            yield bytes(event.data)

    async def _send(self, *events: h11.Event) -> None:
        self._writer.write(b"".join(self._wire.send(event) or b"" for event in events))
        try:
            await self._writer.drain()
        except OSError as error:
            raise Silence("unreadable", f"the connection broke: {_line(error)}") from error

    async def _next(self) -> object:
        try:
            while (event := self._wire.next_event()) is h11.NEED_DATA:
                self._wire.receive_data(await self._reader.read(CHUNK))
        except h11.RemoteProtocolError as error:
            hint = "; does it want https?" if self._source.url.startswith("http:") else ""
            raise Silence("unreadable", f"this is no HTTP answer: {_line(error)}{hint}") from error
        except ssl.SSLError as error:
            raise Silence("tls", f"TLS failed: {explain(error)}") from error
        except OSError as error:
            raise Silence("unreadable", f"the connection broke: {_line(error)}") from error
        return event


def _refusal(status: int, path: str) -> Silence:
    if status == 401:
        return Silence("unauthorized", "HTTP 401: a bearer token is wanted", status=status)
    if status == 403:
        return Silence("forbidden", "HTTP 403: it refuses us", status=status)
    if status == 421:
        reason = "HTTP 421: it does not answer to this name: ask 127.0.0.1 or localhost"
        return Silence("forbidden", reason, status=status)
    if status == 404:
        return Silence("absent", f"HTTP 404: it has no {path.partition('?')[0]}", status=status)
    return Silence("unreadable", f"HTTP {status}", status=status)


def _event(data: bytes) -> Event:
    try:
        return event_from_json(data)
    except (ValueError, RecursionError) as error:
        raise Silence("unreadable", f"an event cannot be read: {_line(error)}") from error


def _cause(error: OSError) -> str:
    """The system's words, without the library's around them."""
    known = error.errno is not None and not isinstance(error, socket.gaierror)
    return os.strerror(error.errno).lower() if known and error.errno else _line(error)


def _line(error: BaseException) -> str:
    return one_line(str(error) or type(error).__name__)[:200]
