"""HTTPS inside a tunnel: TLS and HTTP/1.1 over whatever reader and writer a dial returned.

TLS ends at the kubelet, not at the tunnel's ends. The engine is fed by hand, so any transport
below will do.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import h11

from konnectivity.errors import KonnectivityError

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
T = TypeVar("T")

READ_SIZE: Final = 1 << 18
CLOSE_TIMEOUT: Final = 1.0
"""Seconds for the tunnel's other end to answer a close; later is nobody's loss."""


class HttpsError(KonnectivityError):
    """The kubelet's answer is not what was asked for."""


class HttpsConnection:
    """A client's connection: `open`, `request`, then read the body or the upgraded stream."""

    def __init__(self, stream: Stream, context: ssl.SSLContext, host: str) -> None:
        self._reader, self._writer = stream
        self._host = host
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._http = h11.Connection(h11.CLIENT)
        self._surplus = bytearray()

    @classmethod
    async def open(cls, stream: Stream, context: ssl.SSLContext, host: str) -> HttpsConnection:
        """Shake hands; the certificate must be the context's CA's, for `host`.

        Raises:
            OSError: also ssl.SSLError; the stream is closed then.
        """
        connection = cls(stream, context, host)
        try:
            await connection._step(connection._tls.do_handshake)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def request(
        self,
        method: str,
        target: str,
        *,
        fields: Iterable[tuple[str, str]] = (),
        body: Iterable[bytes] = (),
    ) -> h11.Response | h11.InformationalResponse:
        """Send a request and return the head of its answer: 200, or 101 for an upgrade.

        Raises:
            HttpsError: any other status.
        """
        head = h11.Request(method=method, target=target, headers=[("Host", self._host), *fields])
        await self._send(head)
        for data in body:
            await self._send(h11.Data(data=data))
        await self._send(h11.EndOfMessage())
        answer = await self._next_event()
        if isinstance(answer, h11.Response | h11.InformationalResponse):
            if answer.status_code == 101:
                self._surplus += self._http.trailing_data[0]
            if answer.status_code in (200, 101):
                return answer
            raise HttpsError(f"{method} {target}: status {answer.status_code}")
        raise HttpsError(f"{method} {target}: no answer")

    async def read(self) -> bytes:
        """The next piece of the body or, after an upgrade, of the stream; empty at the end."""
        if self._surplus:
            data = bytes(self._surplus)
            self._surplus.clear()
            return data
        if self._http.their_state is h11.SWITCHED_PROTOCOL:
            return await self._read_tls()
        event = await self._next_event()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def read_all(self) -> bytes:
        """The rest of the answer's body."""
        whole = bytearray()
        while data := await self.read():
            whole += data
        return bytes(whole)

    async def read_line(self) -> bytes:
        """The next line of the body or of the upgraded stream, with its end.

        Raises:
            HttpsError: the end came first.
        """
        line = bytearray()
        while b"\n" not in line:
            data = await self.read()
            if not data:
                raise HttpsError("the stream ended where a line was due")
            line += data
        end = line.index(b"\n") + 1
        self._surplus += line[end:]
        return bytes(line[:end])

    async def write(self, data: bytes) -> None:
        """Send bytes; after an upgrade they are the stream's own."""
        await self._step(lambda: self._tls.write(data))

    async def close(self) -> None:
        """Close the tunnel, whatever is under way in it."""
        self._writer.close()
        with contextlib.suppress(OSError):  # TimeoutError is one
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._writer.wait_closed()

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            await self.write(data)

    async def _next_event(self) -> h11.Event:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise HttpsError(f"the answer is not HTTP/1.1, or cut short: {error}") from error
            if isinstance(event, h11.Event):
                return event
            if event is h11.PAUSED:
                raise HttpsError("the answer is over")
            self._http.receive_data(await self._read_tls())

    async def _read_tls(self) -> bytes:
        """What the TLS engine has, at least one byte; empty at the end.

        A stream that is cut reads as ended where the context has `OP_IGNORE_UNEXPECTED_EOF`,
        which early releases of Python 3.11 set: that a part is missing is for HTTP to say.
        """
        data = bytearray(await self._step(lambda: self._tls.read(READ_SIZE)))
        with contextlib.suppress(ssl.SSLWantReadError):
            # One call gives one record, 16 KiB at most, and after the end an empty one each time.
            while len(data) < READ_SIZE and (record := self._tls.read(READ_SIZE)):
                data += record
        return bytes(data)

    async def _step(self, call: Callable[[], T]) -> T:
        """Make one call of the TLS engine succeed, moving its bytes through the tunnel."""
        while True:
            try:
                result = call()
            except ssl.SSLWantReadError:
                await self._flush()
                data = await self._reader.read(READ_SIZE)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        if self._outgoing.pending:
            self._writer.write(self._outgoing.read())
            await self._writer.drain()
