"""HTTP/2 on a transport: moves bytes between asyncio and `wire.http2`, keeps the timers.

One protocol object is one connection. It dispatches what the sans-IO core reports to its `Call`s
and writes what the core wants sent, once for each turn of the event loop, so that packets of many
tunnels share a system call and a TLS record.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import Final, Protocol, cast

from konnectivity.errors import ConnectionFault, LinkError
from konnectivity.net.channel import Channel
from konnectivity.net.deadlines import Deadline, Deadlines
from konnectivity.net.grpc import Call, CallHandler
from konnectivity.net.handshake import explain
from konnectivity.net.tcp import peer_name
from konnectivity.wire import events, frames, tunnel_stream
from konnectivity.wire.bandwidth import WindowTuner
from konnectivity.wire.events import Headers
from konnectivity.wire.http2 import Connection
from konnectivity.wire.keepalive import Keepalive, PingJudge, PingPolicy, Verdict
from konnectivity.wire.limits import Http2Limits
from konnectivity.wire.windows import WindowPool

log = logging.getLogger(__name__)

WRITE_CHUNK: Final = 64 << 10
"""Bytes asked from the core at a time."""
WRITE_HIGH: Final = 128 << 10
"""Bytes in the transport's buffer above which we stop asking: what waits longer stays sorted."""
TCP_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
UNSENT_IN_KERNEL: Final = 128 << 10
"""Unsent bytes the kernel may hold: a keystroke behind them waits for no more than these."""
CLOSE_LIMIT: Final = 2.0
"""Seconds a closing connection may take to write its last bytes."""
PING: Final = b"konnect\0"
PROBE: Final = b"konnect\1"
"""What our two kinds of PING carry: the one asks for life, the other measures a round trip."""
MEASURE_AGAIN: Final = 60.0
"""Seconds between pings for the status alone; servers allow one each 30 s (`wire/keepalive.py`)."""
FLUSH_LIMIT: Final = 256 << 10
"""Bytes written in one go; then the other sockets of the process have their turn."""


@dataclass(frozen=True, slots=True)
class H2Options:
    """Times (seconds) and limits of one listener's or one program's HTTP/2 connections."""

    limits: Http2Limits = field(default_factory=Http2Limits)
    keepalive: float = 3600.0
    """Silence after which the peer is pinged."""
    handshake: float = 10.0
    """Until the peer's SETTINGS must have come."""
    policy: PingPolicy | None = None
    """Which pings of the peer are tolerated (server role)."""
    largest_window: int = 0
    """Bytes up to which receive windows grow for a distant peer; 0: they stay as they are."""
    pooled_windows: int = 256 << 20
    """Bytes that windows of tunnels may have grown by, in all connections together."""


class StreamHandler(Protocol):
    """Who one stream belongs to: a `Call`, a `Channel`, or what speaks something else."""

    def headers_received(self, event: events.HeadersReceived) -> None:
        """The head of the answer, or trailers."""

    def data_received(self, event: events.DataReceived) -> None:
        """Content; give its credit back with `core.consume`."""

    def half_closed(self) -> None:
        """The peer sends no more."""

    def writable(self) -> None:
        """The connection took what was queued."""

    def was_reset(self, code: int, text: str) -> None:
        """The stream was reset, by either side."""

    def lost(self, cause: str) -> None:
        """The connection is gone."""


class H2Settings:
    """What the connections of one listener or program share: options, and the clocks for them."""

    def __init__(self, options: H2Options | None = None) -> None:
        self.options = options or H2Options()
        self.handshakes = Deadlines(self.options.handshake)
        self.silences = Deadlines(self.options.keepalive)
        self.window_pool = WindowPool(self.options.pooled_windows)


class Owner(Protocol):
    """Who the connection belongs to; it hears of new calls and of the end."""

    def call_received(self, call: Call) -> None:
        """A peer opened a call (server role): set `call.handler`, answer now or later."""

    def connection_started(self, connection: H2Protocol) -> None:
        """The transport is up, TLS included."""

    def connection_ended(self, connection: H2Protocol, cause: str) -> None:
        """The connection is gone; all its calls were told before."""


class ChannelAcceptor(Protocol):
    """Who was promised streams of tunnels on one connection."""

    def channel_opened(self, channel: Channel, path: str) -> None:
        """The peer opened one: set its handler, or abort it."""


class H2Protocol(asyncio.Protocol):
    """One HTTP/2 connection on the event loop."""

    def __init__(self, owner: Owner, *, client: bool, settings: H2Settings) -> None:
        self.options = settings.options
        self.core = Connection(client=client, limits=self.options.limits)
        self.calls: dict[int, StreamHandler] = {}
        """Streams that are not over, by id."""
        self.acceptor: ChannelAcceptor | None = None
        """Who takes the peer's tunnels (server role)."""
        self.peer = "?"
        self.going_away = False
        """The peer sent GOAWAY: no new calls, the old ones go on."""
        self.paused = False
        """The transport is full: nothing more is taken from the core."""
        self.transport: asyncio.Transport | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done with the peer's first SETTINGS; raises `LinkError` if the connection ends before."""
        self.round_trip: float | None = None
        """Seconds of the last ping that was answered."""
        self._last_ping = (b"", float("-inf"))
        """Our last ping and when it was sent."""
        self.window_pool = settings.window_pool
        self._settings = settings
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self.flush_due = False
        """`flush` comes at the end of this turn."""
        self._cause = ""
        self._judge = PingJudge(self.options.policy) if self.options.policy else None
        self._keepalive: Keepalive | None = None
        self._tuner: WindowTuner | None = None
        if self.options.largest_window:
            self._tuner = WindowTuner(
                self.options.limits.connection_window, largest=self.options.largest_window
            )
        self._timer: asyncio.TimerHandle | Deadline | None = None
        self._closing: asyncio.TimerHandle | None = None

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send our preface and SETTINGS, start the clock for the peer's."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH, low=WRITE_HIGH // 4)
        self.peer = peer_name(self.transport)
        _keep_kernel_short(self.transport)
        self._timer = self._settings.handshakes.start(self._handshake_expired)
        self._owner.connection_started(self)
        self.flush()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the peer."""
        now = self._loop.time()
        if self._keepalive is not None:
            self._keepalive.heard(now)
        if self._tuner is not None and self._tuner.received(len(data), now):
            self._ping(PROBE)
        # Whatever the events cause leaves in one write, and after tasks that they start.
        due, self.flush_due = self.flush_due, True
        for event in self.core.receive_data(data, now):
            if type(event) is events.DataReceived:
                call = self.calls.get(event.stream_id)
                if call is None:
                    self.core.consume(event.stream_id, event.size)
                else:
                    call.data_received(event)
            else:
                self._take(event, now)
        if not due:
            self._loop.call_soon(self.flush)

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self.paused = True

    def resume_writing(self) -> None:
        """The transport's buffer has room."""
        self.paused = False
        self.flush()

    def eof_received(self) -> bool:
        """The peer half-closed the transport, which HTTP/2 has no use for: close."""
        self._cause = self._cause or "the peer closed the connection"
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End every call, then tell the owner."""
        cause = self._cause or (explain(exc) if exc else "the connection was closed")
        self.core.detach()
        for timer in (self._timer, self._closing):
            if timer is not None:
                timer.cancel()
        if not self.ready.done():
            # In TLS 1.3 a client hears what the server says to its certificate only now.
            stage = "tls" if isinstance(exc, ssl.SSLError) else "http2"
            self.ready.set_exception(LinkError(stage, f"{self.peer}: {cause}"))
            self.ready.exception()  # whoever waits gets it; whoever does not is not warned
        calls, self.calls = self.calls, {}
        for call in calls.values():
            call.lost(cause)
        self._owner.connection_ended(self, cause)

    # Events of the core

    def _take(self, event: events.Event, now: float) -> None:
        match event:
            case events.HeadersReceived():
                self._headers(event)
            case events.StreamEnded(stream_id, closed):
                call = self.calls.get(stream_id)
                if call is not None:
                    if closed and isinstance(call, Channel):
                        del self.calls[stream_id]
                    call.half_closed()
            case events.StreamReset(stream_id, code, by_peer, message):
                self._reset(stream_id, code, by_peer=by_peer, message=message)
            case events.SettingsReceived():
                self._settings_received(now)
            case events.PingAcknowledged(opaque):
                self._ping_answered(opaque, now)
            case events.PingReceived(after_content):
                self._pinged(now, after_content=after_content)
            case events.GoAwayReceived(_, code, debug):
                self._going_away(code, debug)
            case events.ConnectionEnded(code, message):
                log.warning("HTTP/2 fault peer=%s cause=%s", self.peer, message)
                self._close(f"{frames.error_name(code)}: {message}")
            case _:
                pass  # answers to our pings count as signs of life, like all bytes

    def _headers(self, event: events.HeadersReceived) -> None:
        call = self.calls.get(event.stream_id)
        if call is not None:
            call.headers_received(event)
        elif event.first and not self.core.client:
            if self.acceptor is not None:
                path = dict(event.headers)[":path"]
                if path.startswith(tunnel_stream.PATH):
                    self._open_by_peer(event.stream_id, path, self.acceptor)
                    return
            call = Call(self, event.stream_id, event.headers)
            self.calls[event.stream_id] = call
            self._owner.call_received(call)

    def _open_by_peer(self, stream_id: int, path: str, acceptor: ChannelAcceptor) -> None:
        window = self.core.peer_initial_window
        if window < tunnel_stream.LEAST_WINDOW:
            least = tunnel_stream.LEAST_WINDOW
            self.give_up(f"tunnels with a window of {window} bytes, at least {least} are needed")
            return
        channel = Channel(self, stream_id)
        self.calls[stream_id] = channel
        acceptor.channel_opened(channel, path)

    def _reset(self, stream_id: int, code: int, *, by_peer: bool, message: str) -> None:
        call = self.calls.pop(stream_id, None)
        if call is None:
            return
        side = "the peer" if by_peer else "we"
        call.was_reset(code, message or f"{side} reset the stream: {frames.error_name(code)}")
        self.close_if_idle()

    def _settings_received(self, now: float) -> None:
        if self.ready.done():
            return
        self.ready.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
        self._keepalive = Keepalive(interval=self.options.keepalive, now=now)
        self._timer = self._settings.silences.start(self._check_keepalive)

    def _pinged(self, now: float, *, after_content: bool) -> None:
        if self._judge is not None and not self._judge.tolerates(
            now, after_content=after_content, streams=len(self.core.streams)
        ):
            log.warning("peer pings too often peer=%s", self.peer)
            self.core.go_away(frames.ENHANCE_YOUR_CALM, b"too_many_pings")
            self._close("too many pings")

    def _ping(self, opaque: bytes) -> None:
        self._last_ping = (opaque, time.monotonic())  # uvloop's clock ticks in milliseconds
        self.core.ping(opaque)

    def _ping_answered(self, opaque: bytes, now: float) -> None:
        sent, at = self._last_ping
        if opaque == sent:
            self.round_trip = time.monotonic() - at
        if opaque == PROBE and self._tuner is not None:
            wider = self._tuner.acknowledged(now)
            if wider:
                self.core.widen(wider)

    def measure(self) -> float | None:
        """The round trip of the last ping that was answered; pings if that was long ago."""
        usable = self._keepalive is not None and not self.core.closed
        if usable and time.monotonic() - self._last_ping[1] >= MEASURE_AGAIN:
            self._ping(PING)
            self.schedule_flush()
        return self.round_trip

    def _going_away(self, code: int, debug: bytes) -> None:
        self.going_away = True
        if code != frames.NO_ERROR:
            text = debug.decode("utf-8", "replace")
            self._cause = f"the peer ended the connection: {frames.error_name(code)} {text}".strip()
        if not self.calls:
            self._close(self._cause or "the peer is going away")

    def _check_keepalive(self) -> None:
        if self._keepalive is None:
            return
        now = self._loop.time()
        verdict, again = self._keepalive.check(now)
        if verdict is Verdict.DEAD:
            self._cause = "the peer does not answer pings"
            self.abort()
            return
        if verdict is Verdict.PING:
            self._ping(PING)
            self.schedule_flush()
        self._timer = self._loop.call_at(again, self._check_keepalive)

    def _handshake_expired(self) -> None:
        self._cause = f"no HTTP/2 SETTINGS within {self.options.handshake:g} s"
        log.warning("HTTP/2 fault peer=%s cause=%s", self.peer, self._cause)
        self.abort()

    @property
    def silence(self) -> float | None:
        """Seconds since a ping that nothing has followed yet; None: there is none such."""
        keepalive = self._keepalive
        if keepalive is None or keepalive.pinged is None:
            return None
        return self._loop.time() - keepalive.pinged

    def probe(self) -> None:
        """Ping the peer before keepalive would, unless an answer is awaited."""
        keepalive = self._keepalive
        if keepalive is None or keepalive.pinged is not None or self.transport is None:
            return
        if self.transport.is_closing():
            return
        if self._timer is not None:
            self._timer.cancel()
        again = keepalive.asked(self._loop.time())
        self._timer = self._loop.call_at(again, self._check_keepalive)
        self._ping(PING)
        self.schedule_flush()

    # To the transport

    def schedule_flush(self) -> None:
        """Write in the next turn of the loop, together with what else comes up in this one."""
        if not self.flush_due:
            self.flush_due = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what may be written; then let calls that were full go on."""
        self.flush_due = False
        transport, core = self.transport, self.core
        if transport is None or transport.is_closing():
            return
        written = 0
        while not self.paused:
            data = core.data_to_send(WRITE_CHUNK)
            if not data:
                return
            transport.write(data)
            for stream_id in core.take_writable():
                call = self.calls.get(stream_id)
                if call is not None:
                    call.writable()
            written += len(data)
            if written >= FLUSH_LIMIT:
                self.schedule_flush()
                return

    @property
    def unsent(self) -> int:
        """Bytes in the transport's buffer."""
        return self.transport.get_write_buffer_size() if self.transport is not None else 0

    # Ending

    def go_away(self) -> None:
        """Take no new calls; the transport closes when the last call has ended."""
        self.core.go_away(frames.NO_ERROR)
        self.going_away = True
        self.schedule_flush()
        self.close_if_idle()

    def close_if_idle(self) -> None:
        """Close a connection that takes no new calls and has no old ones."""
        if self.going_away and not self.calls:
            self._close(self._cause or "no calls are left")

    def close(self, cause: str) -> None:
        """Say goodbye, write what is queued within `CLOSE_LIMIT`, and close."""
        if not self.core.closed:
            self.core.go_away(frames.NO_ERROR)
        self._close(cause)

    def _close(self, cause: str) -> None:
        self._cause = self._cause or cause
        self.paused = False
        self.flush()
        if self.transport is not None and self._closing is None:
            self.transport.close()
            self._closing = self._loop.call_later(CLOSE_LIMIT, self.abort)

    def give_up(self, cause: str) -> None:
        """Drop a connection whose peer misbehaves."""
        if self.transport is None or self.transport.is_closing():
            return  # of all that it did wrong, the first is told
        log.warning("HTTP/2 fault peer=%s cause=%s", self.peer, cause)
        self._cause = self._cause or cause
        self.abort()

    def open_call(self, headers: Headers, handler: CallHandler) -> Call:
        """Start a call (client role).

        Raises:
            ConnectionFault: the connection takes no new streams.
        """
        call = Call(self, self.core.open_stream(headers), headers)
        call.handler = handler
        self.calls[call.id] = call
        self.schedule_flush()
        return call

    def open_channel(self, block: bytes) -> Channel:
        """Start a tunnel's stream (client role) with an encoded header block.

        Raises:
            ConnectionFault: the connection takes no new streams.
        """
        if self.core.peer_initial_window < tunnel_stream.LEAST_WINDOW:
            raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "the peer's windows are too small")
        channel = Channel(self, self.core.open_stream(block))
        self.calls[channel.id] = channel
        self.core.let_grow(channel.id, self.window_pool)
        self.schedule_flush()
        return channel

    def abort(self) -> None:
        """Close now."""
        if self.transport is not None:
            self.transport.abort()


def _keep_kernel_short(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_IN_KERNEL)
