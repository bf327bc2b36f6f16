"""One peer of the admin endpoints: its requests, one after the other, and the time it may take."""

from __future__ import annotations

import asyncio
import logging
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

import h11

from konnectivity.observe.route import Request, Response, Stream

if TYPE_CHECKING:
    from konnectivity.observe.admin import AdminLimits, AdminServer

log = logging.getLogger(__name__)


class AdminConnection(asyncio.Protocol):
    """One connection. While an answer is awaited or streamed, its task reads no further request."""

    def __init__(self, server: AdminServer, limits: AdminLimits) -> None:
        self._server = server
        self._limits = limits
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head)
        self._request: Request | None = None
        self._body = 0  # bytes of the current request's body so far
        self._between = True  # no byte of the next request is here yet
        self._room = asyncio.Event()  # not set while the peer does not read
        self._room.set()
        self._ending = False  # the last answer is given, what comes now is dropped
        self._task: asyncio.Task[None] | None = None  # the answer that takes time
        self._streaming = False
        self._timer: asyncio.TimerHandle | None = None

    def abort(self) -> None:
        """Close without regard for what is not yet sent."""
        self._transport.abort()

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request, not for long."""
        self._transport = cast(asyncio.Transport, transport)
        self._server.enter(self)
        self._expect(self._limits.request_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone: nobody waits for the answer."""
        self._rest()
        if self._task is not None:
            self._task.cancel()
            self._task.add_done_callback(lambda _: self._server.leave(self))
        else:
            self._server.leave(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request, or of the one behind it."""
        if self._ending:
            return
        if self._task is not None:
            self._transport.pause_reading()  # one read more is kept, then the kernel pushes back
        elif self._between:
            self._between = False
            self._server.enter(self)
            self._expect(self._limits.request_timeout)
        self._http.receive_data(data)
        self._advance()

    def eof_received(self) -> bool:
        """The peer says no more, or it is gone: an answer that is near is still given."""
        if self._ending:
            return False
        self._http.receive_data(b"")
        self._advance()
        if self._task is None or self._streaming or not self._transport.can_write_eof():
            return False
        self._expect(self._limits.linger)
        return True

    def pause_writing(self) -> None:
        """The peer does not read: it is not read from either."""
        self._room.clear()
        self._transport.pause_reading()
        self._expect(self._limits.write_timeout)

    def resume_writing(self) -> None:
        """The peer has read what waited."""
        self._room.set()
        if self._task is not None:
            self._rest()
            return
        self._transport.resume_reading()
        self._expect(self._limits.linger if self._ending else self._limits.request_timeout)
        self._advance()

    # Requests

    def _advance(self) -> None:
        """Answer the requests that are complete; pipelined ones wait for the one before."""
        try:
            while self._room.is_set() and not self._ending and self._task is None:
                if not self._step():
                    return
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint, str(error))

    def _step(self) -> bool:
        """Go on by one event; False when the next one is not here yet."""
        match self._http.next_event():
            case h11.Request(http_version=version) if not version.startswith(b"1."):
                self._refuse(505, "HTTP/1.1 is spoken here")
            case h11.Request() as head:
                self._request = _request(head)
                self._body = 0
            case h11.Data(data=data):
                self._body += len(data)
                if self._body > self._limits.body:
                    self._refuse(413, "the body is too large")
            case h11.EndOfMessage() if self._request is not None:
                self._serve(self._request)
            case h11.ConnectionClosed():
                self._end()
            case _:  # NEED_DATA, or PAUSED, which the end of an answer undoes
                if self._http.they_are_waiting_for_100_continue:
                    self._refuse(417, "no request here needs a body")
                return False
        return True

    def _serve(self, request: Request) -> None:
        answer = self._server.answer(request)
        if answer is not None:
            self._answer(answer)
        else:
            self._rest()
            self._task = asyncio.get_running_loop().create_task(self._serve_later(request))

    async def _serve_later(self, request: Request) -> None:
        try:
            await self._await_answer(request)
        except Exception:
            log.exception("Answer failed path=%s", request.path)
            self.abort()  # the missing end tells the peer that it is not whole

    async def _await_answer(self, request: Request) -> None:
        """Give an answer that takes time, then go on with the next request."""
        answer = await self._server.later(request)
        if isinstance(answer, Stream):
            await self._stream(answer, request)
        self._task = None
        if self._transport.is_closing():
            return
        if isinstance(answer, Response):
            self._answer(answer)
        else:
            self._done()
        if self._room.is_set() and not self._transport.is_closing():
            self._transport.resume_reading()
        self._advance()

    # Answers

    async def _stream(self, stream: Stream, request: Request) -> None:
        """Write chunks as they come, each when the peer has taken the one before."""
        self._streaming = True
        self._write(self._head(200, [("Content-Type", stream.content_type)]))
        try:
            if request.method != "HEAD":
                async for chunk in stream.chunks:
                    self._write(h11.Data(data=chunk))
                    self._server.enter(self)
                    await self._room.wait()
            self._write(h11.EndOfMessage())
        finally:
            self._streaming = False
            await stream.chunks.aclose()

    def _answer(self, response: Response) -> None:
        self._send(response)
        self._done()

    def _done(self) -> None:
        """An answer is out: wait for the next request, if there is to be one."""
        if self._http.our_state is not h11.DONE:
            self._end()
            return
        self._http.start_next_cycle()
        self._request = None
        # A pipelined request that is here in part has come with the one before.
        self._between = not self._http.trailing_data[0]
        patience = self._limits.idle_timeout if self._between else self._limits.request_timeout
        if self._room.is_set():
            self._expect(patience)

    def _refuse(self, status: int, cause: str) -> None:
        """Answer a request that cannot be served and end the connection."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._send(Response(cause.encode(), status=status), last=True)
        self._end()

    def _send(self, response: Response, *, last: bool = False) -> None:
        headers = [
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            *response.headers,
        ]
        if response.location:
            headers.append(("Location", response.location))
        if last:
            headers.append(("Connection", "close"))
        parts: list[h11.Event] = [self._head(response.status, headers)]
        if self._request is None or self._request.method != "HEAD":
            parts.append(h11.Data(data=response.body))
        self._write(*parts, h11.EndOfMessage())

    def _head(self, status: int, headers: list[tuple[str, str]]) -> h11.Response:
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
        reason = HTTPStatus(status).phrase
        return h11.Response(status_code=status, reason=reason, headers=[*headers, ("Date", date)])

    def _write(self, *parts: h11.Event) -> None:
        written = (self._http.send(part) for part in parts)
        self._transport.write(b"".join(part for part in written if part))

    # The end, and the one timer

    def _end(self) -> None:
        """Close once the peer has had the time to read; closing at once could cost it the answer.

        Source: RFC 9112, 9.6. TLS has no half-close here: what was written is flushed first.
        """
        self._ending = True
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()
        if self._room.is_set():
            self._expect(self._limits.linger)

    def _expect(self, within: float) -> None:
        """Arm the timer: the peer's next sign of life is due."""
        self._rest()
        self._timer = asyncio.get_running_loop().call_later(within, self._expire)

    def _rest(self) -> None:
        """Nothing is due from the peer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        if self._ending or self._between or self._task is not None or not self._room.is_set():
            self.abort()
        else:
            self._refuse(408, "the request did not come in time")


def _request(head: h11.Request) -> Request:
    target = head.target.decode("latin-1")
    if target.startswith("http://"):  # the absolute form, which RFC 9112 (3.2.2) has servers take
        target = "/" + target[7:].partition("/")[2]
    path, _, query = target.partition("?")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
    return Request(head.method.decode("latin-1"), unquote(path), query, headers)
