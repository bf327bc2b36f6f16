"""Health and metrics over HTTP/1.1: exact paths, answers that are at hand at once.

A few requests per minute from probes and scrapers, on h11. Nothing here may cost the data path
memory or time: connections, heads, bodies and waits are all bounded. Plain HTTP without
authentication, as upstream.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self, cast
from urllib.parse import unquote

import h11

log = logging.getLogger(__name__)

TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class AdminLimits:
    """What one admin listener spends on its peers. Differs: upstream has few such limits."""

    connections: int = 64  # at once; one more ends the one that was silent for longest
    head: int = 16 << 10  # bytes; upstream 1 MiB
    body: int = 64 << 10  # bytes of a request's body, which is read and dropped
    request_timeout: float = 10.0  # seconds from a request's first byte to its last; upstream 60
    idle_timeout: float = 90.0  # seconds between requests; scrapers come each 15 to 60
    write_timeout: float = 10.0  # seconds for a peer that does not read
    linger: float = 1.0  # seconds for the peer to read the last answer and close


@dataclass(frozen=True, slots=True)
class Request:
    """A request's head. `path` is percent-decoded, `query` as sent."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]  # names in lower case; of repeated ones the last

    @property
    def host(self) -> str:
        """The `Host` header, with its port if it has one."""
        return self.headers.get("host", "")

    def asks(self, name: str) -> bool:
        """Whether the query has a parameter `name`, with a value or without."""
        return any(part.partition("=")[0] == name for part in self.query.split("&"))


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; `location` makes it a redirect."""

    body: bytes
    status: int = 200
    content_type: str = TEXT
    location: str = ""


Route = Callable[[Request], Response]

NOT_FOUND = Response(b"404 page not found\n", status=404)
BROKEN = Response(b"internal error; the log says more", status=500)


class AdminServer:
    """Serves `routes`, by exact path and for all methods, on a listening socket.

    A route is called on the event loop and must not wait. The socket is closed at the end.
    """

    def __init__(
        self,
        sock: socket.socket,
        routes: Mapping[str, Route],
        *,
        limits: AdminLimits | None = None,
    ) -> None:
        self.limits = limits or AdminLimits()
        self._sock = sock
        self._routes = routes
        self._server: asyncio.Server | None = None
        # In the order of their last sign of life.
        self._connections: dict[_Connection, None] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), sock=self._sock)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop listening and end all connections. Safe to repeat."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.abort()
        await self._empty.wait()

    def answer(self, request: Request) -> Response:
        """The answer of the request's route, never an exception."""
        route = self._routes.get(request.path)
        # A CONNECT that is granted would turn the connection into a tunnel.
        if route is None or request.method == "CONNECT":
            return NOT_FOUND
        try:
            return route(request)
        except Exception:
            log.exception("Request failed path=%s", request.path)
            return BROKEN

    def enter(self, connection: _Connection) -> None:
        """Take `connection` in, or note that it is alive."""
        self._connections.pop(connection, None)
        if len(self._connections) >= self.limits.connections:
            next(iter(self._connections)).abort()
        self._connections[connection] = None
        self._empty.clear()

    def leave(self, connection: _Connection) -> None:
        """Forget a connection that is closed."""
        self._connections.pop(connection, None)
        if not self._connections:
            self._empty.set()


class _Connection(asyncio.Protocol):
    """One peer's requests, one after the other."""

    def __init__(self, server: AdminServer) -> None:
        self._server = server
        self._limits = server.limits
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head)
        self._request: Request | None = None
        self._body = 0  # bytes of the current request's body so far
        self._between = True  # no byte of the next request is here yet
        self._full = False  # the peer does not read
        self._ending = False  # the last answer is given, what comes now is dropped
        self._timer: asyncio.TimerHandle | None = None

    def abort(self) -> None:
        """Close without regard for what is not yet sent."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.enter(self)
        self._expect(self._limits.request_timeout)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._server.leave(self)

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return
        if self._between:
            self._between = False
            self._server.enter(self)
            self._expect(self._limits.request_timeout)
        self._http.receive_data(data)
        self._advance()

    def eof_received(self) -> None:
        if not self._ending:
            self._http.receive_data(b"")
            self._advance()

    def pause_writing(self) -> None:
        self._full = True
        self._transport.pause_reading()
        self._expect(self._limits.write_timeout)

    def resume_writing(self) -> None:
        self._full = False
        self._transport.resume_reading()
        self._expect(self._limits.linger if self._ending else self._limits.request_timeout)
        self._advance()

    def _advance(self) -> None:
        """Answer the requests that are complete; pipelined ones wait while the peer is slow."""
        try:
            while not (self._full or self._ending):
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
                self._answer(self._server.answer(self._request))
            case h11.ConnectionClosed():
                self._end()
            case _:  # NEED_DATA, or PAUSED, which the end of an answer undoes
                if self._http.they_are_waiting_for_100_continue:
                    self._refuse(417, "no request here needs a body")
                return False
        return True

    def _answer(self, response: Response) -> None:
        self._send(response)
        if self._http.our_state is not h11.DONE:
            self._end()
            return
        self._http.start_next_cycle()
        self._request = None
        # A pipelined request that is here in part has come with the one before.
        self._between = not self._http.trailing_data[0]
        patience = self._limits.idle_timeout if self._between else self._limits.request_timeout
        if not self._full:
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
            ("Date", time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())),
        ]
        if response.location:
            headers.append(("Location", response.location))
        if last:
            headers.append(("Connection", "close"))
        head = h11.Response(
            status_code=response.status,
            reason=HTTPStatus(response.status).phrase,
            headers=headers,
        )
        parts = [self._http.send(head)]
        if self._request is None or self._request.method != "HEAD":
            parts.append(self._http.send(h11.Data(data=response.body)))
        parts.append(self._http.send(h11.EndOfMessage()))
        self._transport.write(b"".join(part for part in parts if part))

    def _end(self) -> None:
        """Close once the peer has had the time to read; closing at once could cost it the answer.

        Source: RFC 9112, 9.6.
        """
        self._ending = True
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
        if not self._full:
            self._expect(self._limits.linger)

    def _expect(self, within: float) -> None:
        """Arm the one timer: the peer's next sign of life is due."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(within, self._expire)

    def _expire(self) -> None:
        if self._ending or self._full or self._between:
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
