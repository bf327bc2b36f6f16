"""All requests to one API server on one HTTP/2 connection, watches included, as client-go does it.

With HTTP/1.1 each watch holds a connection of its own, and one that is silent must be begun anew
now and then, for it may be dead. Here pings tell that, for all of them. An API server that speaks
HTTP/1.1 alone is spoken to in HTTP/1.1.

Source: client-go's `util/net.ConfigureHTTP2Transport`, for the times of its pings.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from typing import Final

import httpx2

from konnectivity.errors import ConnectionFault, LinkError
from konnectivity.net.connect import connect_server
from konnectivity.net.h2 import H2Options, H2Protocol, H2Settings
from konnectivity.net.handshake import explain, secure
from konnectivity.wire import frames
from konnectivity.wire.events import DataReceived, Headers, HeadersReceived
from konnectivity.wire.limits import Http2Limits

H2: Final = "h2"
OPTIONS: Final = H2Options(
    limits=Http2Limits(stream_window=256 << 10, connection_window=1 << 20),
    keepalive=30.0,
)
CONNECT_LIMIT: Final = 10.0
"""Seconds for TCP and TLS together."""
HOP_BY_HOP: Final = frozenset(
    ["host", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"]
)


NO_LIMITS: Final = httpx2.Limits(max_connections=None, keepalive_expiry=5.0)
ALIVE: Final = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2),
]
"""With HTTP/1.1 the kernel finds the dead connections."""


class Http2Transport(httpx2.AsyncBaseTransport):
    """What an `httpx2.AsyncClient` sends its requests through, all to one `https` address."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._settings: H2Settings | None = None
        self._current: H2Protocol | None = None
        self._open: set[H2Protocol] = set()
        self._turn = asyncio.Lock()
        self._failed: tuple[float, str] | None = None
        """When the last attempt to connect failed, and why."""
        self._older: httpx2.AsyncHTTPTransport | None = None
        """In its place, for an API server without HTTP/2."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; the answer's content comes as it is read.

        Raises:
            httpx2.TransportError: there is no connection, or it ended.
        """
        if self._older is None:
            connection = await self._connection(request)
        if self._older is not None:
            return await self._older.handle_async_request(request)
        body = b"".join([chunk async for chunk in _stream_of(request)])
        exchange = Exchange(connection, request)
        try:
            exchange.send(body)
            head = await exchange.head
        except BaseException:
            exchange.cancel()
            raise
        status, headers = _split(head)
        return httpx2.Response(status, headers=headers, stream=exchange)

    async def aclose(self) -> None:
        """End all connections."""
        for each in list(self._open):
            each.close("the client is closed")
        if self._older is not None:
            await self._older.aclose()

    # Owner (net/h2.py)

    def call_received(self, call: object) -> None:
        """No server opens calls."""

    def connection_started(self, connection: H2Protocol) -> None:
        """TLS is up."""
        self._open.add(connection)

    def connection_ended(self, connection: H2Protocol, cause: str) -> None:
        """Its exchanges know."""
        self._open.discard(connection)

    async def _connection(self, request: httpx2.Request) -> H2Protocol:
        """The connection in use, or a new one; whoever comes meanwhile shares its fate."""
        asked = time.monotonic()  # uvloop's clock ticks in milliseconds
        async with self._turn:
            current = self._current
            if current is not None and current in self._open and not current.going_away:
                return current
            if self._failed is not None and self._failed[0] > asked:
                raise httpx2.ConnectError(self._failed[1], request=request)
            try:
                async with asyncio.timeout(CONNECT_LIMIT):
                    self._current = await self._connect(request.url)
            except TimeoutError:
                text = f"no connection within {CONNECT_LIMIT:g} s"
            except LinkError as error:
                text = str(error)
            except OSError as error:
                text = explain(error)
            else:
                return self._current
            self._failed = (time.monotonic(), text)
        raise httpx2.ConnectError(text, request=request)

    async def _connect(self, url: httpx2.URL) -> H2Protocol:
        if self._settings is None:
            self._settings = H2Settings(OPTIONS)
            self._context.set_alpn_protocols([H2, "http/1.1"])
        settings = self._settings
        port = url.port or 443
        sock = await connect_server(url.host, port, what="API server", timeout=CONNECT_LIMIT)
        transport, h2 = await secure(
            lambda: H2Protocol(self, client=True, settings=settings),
            sock,
            self._context,
            server_host=url.host,
        )
        tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
        if tls.selected_alpn_protocol() != H2:
            h2.abort()
            # The first of its kind brings in a library, which takes a while.
            self._older = await asyncio.to_thread(_http1, self._context)
            return h2
        await h2.ready
        return h2


class Exchange(httpx2.AsyncByteStream):
    """One request and its answer, whose content it is: an asynchronous iterator of bytes."""

    def __init__(self, connection: H2Protocol, request: httpx2.Request) -> None:
        self.head: asyncio.Future[Headers] = asyncio.get_running_loop().create_future()
        self.headers = _head_of(request)
        self._h2 = connection
        self._request = request
        self._id = 0
        self._chunks: list[tuple[bytes, int]] = []
        self._news = asyncio.Event()
        self._ended = False
        self._error: httpx2.TransportError | None = None

    def send(self, body: bytes) -> None:
        """Send all of the request.

        Raises:
            httpx2.ConnectError: the connection takes no more requests.
        """
        core = self._h2.core
        try:
            self._id = core.open_stream(self.headers, end_stream=not body)
        except ConnectionFault as fault:
            raise httpx2.ConnectError(str(fault), request=self._request) from fault
        self._h2.calls[self._id] = self
        if body:
            core.send_data(self._id, body)
            core.end_stream(self._id)
        self._h2.schedule_flush()

    def cancel(self) -> None:
        """Nobody wants the rest."""
        if self._id and not self._ended:
            self._h2.core.reset_stream(self._id, frames.CANCEL)
            self._h2.schedule_flush()
        self._over()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while self._chunks:
                data, credit = self._chunks.pop(0)
                self._h2.core.consume(self._id, credit)
                self._h2.schedule_flush()
                yield data
            if self._error is not None:
                raise self._error
            if self._ended:
                return
            self._news.clear()
            await self._news.wait()

    async def aclose(self) -> None:
        self.cancel()

    # From the connection

    def headers_received(self, event: HeadersReceived) -> None:
        """The head of the answer, or trailers, which say nothing here."""
        if not self.head.done():
            self.head.set_result(event.headers)
        if event.end_stream:
            self._over()

    def data_received(self, event: DataReceived) -> None:
        """Content; its credit goes back when it is read."""
        self._chunks.append((bytes(event.data), event.size))
        self._news.set()

    def half_closed(self) -> None:
        """The answer is whole."""
        self._over()

    def writable(self) -> None:
        """Requests are sent whole; nobody waits for that."""

    def was_reset(self, code: int, text: str) -> None:
        """The stream was reset by either side."""
        self.lost(text)

    def lost(self, cause: str) -> None:
        """The connection is gone."""
        if not self._ended:
            self._error = httpx2.RemoteProtocolError(cause, request=self._request)
        self._over()

    def _over(self) -> None:
        self._ended = True
        self._h2.calls.pop(self._id, None)
        if not self.head.done():
            nothing = httpx2.RemoteProtocolError("the answer has no head", request=self._request)
            self.head.set_exception(self._error or nothing)
            self.head.exception()  # whoever waits gets it; if nobody does, that is no fault
        self._news.set()
        self._h2.close_if_idle()


def _http1(context: ssl.SSLContext) -> httpx2.AsyncHTTPTransport:
    return httpx2.AsyncHTTPTransport(verify=context, limits=NO_LIMITS, socket_options=ALIVE)


def _head_of(request: httpx2.Request) -> Headers:
    url = request.url
    fields = [(name.lower(), value) for name, value in request.headers.items()]
    return [
        (":method", request.method),
        (":scheme", url.scheme),
        (":authority", url.netloc.decode()),
        (":path", url.raw_path.decode()),
        *(field for field in fields if field[0] not in HOP_BY_HOP),
    ]


def _split(head: Headers) -> tuple[int, Headers]:
    status = next(value for name, value in head if name == ":status")
    return int(status), [field for field in head if not field[0].startswith(":")]


def _stream_of(request: httpx2.Request) -> httpx2.AsyncByteStream:
    stream = request.stream
    assert isinstance(stream, httpx2.AsyncByteStream)  # noqa: S101 - an AsyncClient's request
    return stream
