"""Frontend mode `http-connect`: one HTTP/1.1 CONNECT, then raw bytes.

The client's socket is watched from the first byte to the last, also while the dial is pending, so
a client that leaves is noticed at once (W19). One object writes to the socket, the 200 first (W3).
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final, cast

from konnectivity.errors import Http1Error
from konnectivity.net import tcp
from konnectivity.net.deadlines import Deadline, Deadlines
from konnectivity.observe import logs
from konnectivity.server.certificates import CertificateGate
from konnectivity.server.departures import Departures, has_closed
from konnectivity.server.exchange import Exchange
from konnectivity.server.first_bytes import FirstBytes
from konnectivity.tunnel.reason import Failure, Reason, Refusal
from konnectivity.tunnel.server import ServerTunnel
from konnectivity.tunnel.server_packets import BUSY
from konnectivity.wire import http1

log = logs.get(__name__)

HEAD_LIMIT: Final = 60.0
"""Seconds for a request head, as upstream."""
WRITE_HIGH: Final = 256 << 10
EARLY_LIMIT: Final = 64 << 10
"""Bytes a client may send behind its request before the dial is through."""

_TEXT: Final = ("Content-Type", "text/plain; charset=utf-8")
_REFUSE_METHOD: Final = "this proxy only supports CONNECT passthrough\n"


class ConnectFrontend(asyncio.Protocol):
    """One client connection. It is the tunnel's `Frontend`."""

    mode = "http-connect"

    def __init__(
        self,
        exchange: Exchange,
        connections: set[ConnectFrontend],
        heads: Deadlines,
        departures: Departures,
        gate: CertificateGate,
    ) -> None:
        self.slow = False
        self._departures = departures
        self._has_departed = False
        self._exchange = exchange
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._request: http1.Request | None = None
        self._skip = 0
        self._tunnel: ServerTunnel | None = None
        self._transport: asyncio.Transport | None = None
        self._heads = heads
        self._gate = gate
        self._timer: Deadline | None = None
        self._first: FirstBytes | None = None
        self._waiting = 0.0

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request head, not for long."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH)
        self._connections.add(self)
        self._timer = self._heads.start(self._head_expired)

    def data_received(self, data: bytes) -> None:
        """Bytes of the head, or of the tunnel."""
        if self._first is not None and self._tunnel is not None:
            if not self._first.open:
                self._first.let_pass()
            self._tunnel.send(data)
            return
        self._buffer += data
        if self._request is None:
            self._read_request()
        elif len(self._buffer) > EARLY_LIMIT:
            self.pause_reading()

    def eof_received(self) -> bool:
        """The client ended its side, or is gone; where these look alike, the tunnel ends."""
        tunnel = self._tunnel
        if tunnel is None or not self._only_shut() or not tunnel.end_sending():
            return False
        if self._tunnel is not None:
            self._departures.watch_half(self)
        return True

    def pause_writing(self) -> None:
        """The client reads slowly."""
        self.slow = True
        self._waiting = self._exchange.counters.waits.begin()

    def resume_writing(self) -> None:
        """The client took what waited."""
        self.slow = False
        self._wait_over()
        if self._tunnel is not None:
            self._tunnel.caught_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: give up its dial or close its tunnel."""
        self._stop_timer()
        self._departures.forget(self)
        self._connections.discard(self)
        if self._request is not None:
            self._exchange.counters.http_connections -= 1
        self._wait_over()
        if self._first is not None:
            self._first.drop()
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            tunnel.leave()

    def _only_shut(self) -> bool:
        """Whether the client has shut its write side and not closed; over TCP none can tell."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        return sock is not None and sock.family == socket.AF_UNIX and not has_closed(sock.fileno())

    def _wait_over(self) -> None:
        if self._waiting:
            self._exchange.counters.waits.end(self._waiting)
            self._waiting = 0.0

    # The request

    def _read_request(self) -> None:
        try:
            while self._request is None and self._buffer:
                if self._skip:
                    skipped = min(self._skip, len(self._buffer))
                    self._skip -= skipped
                    self._buffer = self._buffer[skipped:]
                    continue
                request = http1.parse_request(self._buffer)
                if request is None:
                    return
                self._buffer = request.rest
                self._take_request(request)
        except Http1Error as error:
            log.summarised(
                "bad request", "Bad CONNECT request", status=error.status, error=str(error)
            )
            self._answer(error.status, _reason(error.status), f"{error}\n")
            self._close()

    def _take_request(self, request: http1.Request) -> None:
        if request.method != "CONNECT":
            fields = ("X-Content-Type-Options", "nosniff")
            self._answer(405, "Method Not Allowed", _REFUSE_METHOD, fields)
            self._skip = request.body_size
            if not request.keeps_alive:
                self._close()
            return
        self._request = request
        self._exchange.counters.http_connections += 1
        self._stop_timer()
        if refusal := self._gate.refusal(self._transport):
            log.summarised(
                ("refused", refusal), "Frontend refused", address=self.peer, cause=refusal
            )
            self._answer(403, "Forbidden", f"{refusal}\n")
            self._close()
            return
        self._tunnel = self._exchange.dial(self, address=request.destination)

    def _answer(self, status: int, reason: str, body: str, *extra: tuple[str, str]) -> None:
        length = ("Content-Length", str(len(body.encode())))
        self._write(http1.response(status, reason, body, fields=(_TEXT, *extra, length)))

    def _head_expired(self) -> None:
        log.summarised("late", "No complete CONNECT request in time", seconds=HEAD_LIMIT)
        self._answer(408, "Request Timeout", "no complete request in time\n")
        self._close()

    # Caller (exchange.py), Frontend (tunnel/server.py)

    @property
    def peer(self) -> str:
        """The client's address."""
        return tcp.peer_name(self._transport) if self._transport is not None else ""

    @property
    def unsent(self) -> int:
        """Bytes the client has not taken."""
        held = self._first.held if self._first is not None else 0
        return held + (self._transport.get_write_buffer_size() if self._transport else 0)

    def opened(self, connect_id: int) -> None:
        """200 and nothing else; then what the client sent ahead."""
        self._write(http1.ESTABLISHED)
        self._first = FirstBytes(self._release, transport=self._transport)
        early, self._buffer = self._buffer, b""
        self.resume_reading()
        if early:
            # `exchange.dial` has not returned yet only if the agent answered within the call.
            self._loop.call_soon(self._send_early, early)

    def _send_early(self, early: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.send(early)

    def write(self, data: bytes | memoryview) -> None:
        """Bytes of the endpoint."""
        first = self._first
        if first is None or first.open:
            self._write(data)
        else:
            self.slow = True  # what is held back here must not earn the agent new credit
            first.hold(data)

    def _release(self, held: bytes) -> None:
        self.slow = False
        self._write(held)
        if not self.slow and self._tunnel is not None:
            self._tunnel.caught_up()

    def refused(self, refusal: Refusal) -> None:
        """The HTTP answer upstream gives, byte for byte (`pkg/server/tunnel.go`)."""
        self._tunnel = None
        if not refusal.by_packet:
            self._write(refusal_response(refusal))
        self._close()

    def closed(self, reason: Reason, error: str) -> None:
        """Close behind what was written, unless the client does not read it."""
        self._tunnel = None
        if reason is Reason.OVERFLOW:
            self.shut_down()
        elif self._first is not None:
            self._first.finish(self._close)

    def end_writing(self) -> bool:
        """Shut the write side behind what was written; TLS has no such thing."""
        transport, first = self._transport, self._first
        if transport is None or first is None or transport.is_closing():
            return False
        if not transport.can_write_eof():
            return False
        first.finish(transport.write_eof)
        return True

    def pause_reading(self) -> None:
        """Let the client's socket fill."""
        if self._transport is None or self._transport.is_closing() or self._has_departed:
            return
        self._transport.pause_reading()
        self._departures.watch(self)

    def resume_reading(self) -> None:
        """Read on."""
        self._departures.paused.discard(self)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # Client (server/departures.py)

    def descriptor(self) -> int:
        """The socket's number."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        return sock.fileno() if sock is not None else -1

    def departed(self) -> None:
        """Nothing more comes but what the kernel holds: read it, pausing no more, to the end."""
        if self._tunnel is not None and self._tunnel.half_closed is Reason.FRONTEND_CLOSE:
            self.shut_down()
            return
        self._has_departed = True
        self.resume_reading()

    @property
    def ending(self) -> bool:
        """Whether it closes by itself, behind what was written."""
        over = self._tunnel is None and self._first is not None
        return over or self._transport is None or self._transport.is_closing()

    def shut_down(self) -> None:
        """Close now, with a reset."""
        if self._transport is not None:
            tcp.reset(self._transport)

    def _write(self, data: bytes | memoryview) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _close(self) -> None:
        self._stop_timer()
        if self._transport is not None:
            self._transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def refusal_response(refusal: Refusal) -> bytes:
    """What a client gets when its dial failed (upstream `pkg/server/tunnel.go`)."""
    text = refusal.text
    match refusal.failure:
        case Failure.NO_AGENT:
            body = f"currently no tunnels available: {text}"
            fields: tuple[tuple[str, str], ...] = (("Content-Type", "text/plain"),)
            return http1.response(500, "Internal Server Error", body, fields=fields)
        case Failure.TIMEOUT:
            body = f"Backend dial timeout: {text}\r\n"
            return http1.response(504, "Gateway Timeout", body, fields=(_TEXT,))
        case Failure.BACKEND_CLOSE:
            body = f"Backend context error: {text}\r\n"
            return http1.response(502, "Bad Gateway", body, fields=(_TEXT,))
        case Failure.LIMIT | Failure.DUPLICATE | Failure.SHUTDOWN:
            fields = (("Connection", "close"), _TEXT)
            return http1.response(503, "Service Unavailable", text, fields=fields)
    status = dial_status(text)
    return http1.response(status, _reason(status), text, fields=(("Connection", "close"), _TEXT))


def dial_status(text: str) -> int:
    """The HTTP status for an agent's error text (upstream `pkg/server/server.go`)."""
    lower = text.lower()
    if "timeout" in lower or "deadline exceeded" in lower:
        return 504
    return 503 if any(text in lower for text in BUSY) else 502


def _reason(status: int) -> str:
    return {
        400: "Bad Request",
        431: "Request Header Fields Too Large",
        502: "Bad Gateway",
        503: "Service Unavailable",
        504: "Gateway Timeout",
        505: "HTTP Version Not Supported",
    }.get(status, "Error")
