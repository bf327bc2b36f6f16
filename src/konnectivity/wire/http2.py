"""HTTP/2 for gRPC, both roles: bytes in, events out; calls in, bytes out (RFC 9113).

Narrow on purpose: no push, no priorities, no upgrade. It reads no clock (`now` is an argument) and
touches no socket. The peer's bytes never raise: a broken stream becomes `StreamReset`, a broken
connection `ConnectionEnded`, each with the frame that tells the peer already queued. After every
call, write what `data_to_send` returns.

Receiving lives in `receiving.py`, so that each file holds one direction.
"""

from __future__ import annotations

from collections import deque
from functools import cache

from hpack import Encoder

from konnectivity.errors import ConnectionFault, StreamFault
from konnectivity.wire import frames
from konnectivity.wire.events import Event, Headers
from konnectivity.wire.limits import Bucket, Http2Limits
from konnectivity.wire.receiving import Receiver
from konnectivity.wire.stream import Stream
from konnectivity.wire.windows import GrowingWindow, ReceiveWindow, WindowPool

FULL = 128 << 10
"""Backlog of one stream, in bytes, at which `send_data` asks its caller to pause."""
ROOMY = 32 << 10
"""Backlog at which that caller may go on."""
LARGEST_TUNNEL = 1 << 20
"""Bytes of the largest window of a tunnel's stream, and so what a reader that stalls can cost."""
SMALL = 2 << 10
"""Streams with no more than this to send go before all others: a keystroke does not wait."""
QUANTUM = 128 << 10
"""Bytes of one stream at most, before the next one has its turn."""


class Connection:
    """One HTTP/2 connection. `client` is the role; ids and limits follow from it."""

    def __init__(self, *, client: bool, limits: Http2Limits | None = None) -> None:
        self.limits = limits or Http2Limits()
        self.client = client
        self.streams: dict[int, Stream] = {}
        self.max_streams = self.limits.max_streams
        """Streams that the peer may have open (server role); `allow_streams` changes it."""
        self.largest_tunnel = LARGEST_TUNNEL
        """Bytes up to which the window of a tunnel's stream grows; more for a distant peer."""
        self.now = 0.0
        """When the peer was last heard, on the caller's clock."""
        self.closed = False
        """A fault or the transport ended the connection; input is ignored."""
        self._detached = False
        self.peer_going_away = False
        self.send_window = frames.DEFAULT_WINDOW
        self.peer_initial_window = frames.DEFAULT_WINDOW
        self.peer_max_frame_size = frames.DEFAULT_FRAME_SIZE
        self.peer_max_streams = frames.MAX_STREAM_ID
        self.receive_window = ReceiveWindow(self.limits.connection_window)
        self.content_sent = False
        """HEADERS or DATA went out since the peer's last PING (ping policy of gRPC)."""
        self.pings_unanswered = 0
        """PINGs of ours that the peer has yet to acknowledge."""
        self.resets = Bucket(self.limits.resets_burst, self.limits.resets_per_second)
        self.going_away = False
        """We sent GOAWAY: new streams of the peer are refused."""
        self._encoder: Encoder | None = None
        self._table_size = 4096
        self._receiver = Receiver(self)
        self._last_accepted = frames.MAX_STREAM_ID
        self._next_id = 1
        self._control: list[bytes | memoryview] = [_opening(client, self.limits)]
        self.control_backlog = 0
        """Bytes of control frames queued and not yet taken by `data_to_send`."""
        self._framed = 0
        """Bytes of content that stand in frames among them."""
        self._ready: deque[Stream] = deque()
        self._urgent: deque[Stream] = deque()
        self._writable: list[int] = []

    def detach(self) -> None:
        """The transport is gone: take no more input, and be no garbage collector's business.

        kube-apiserver makes a connection for each tunnel, and each has the two halves in a cycle.
        """
        if not self._detached:
            self._detached = self.closed = True
            self._receiver.detach()
            for stream_id in list(self.streams):
                self._pop(stream_id)

    # Receiving

    def receive_data(self, data: bytes, now: float) -> list[Event]:
        """Take bytes from the peer; what happened, in order. `now` in seconds, for rate limits."""
        if self.closed:
            return []
        self.now = now
        return self._receiver.receive(data, now)

    def consume(self, stream_id: int, size: int) -> None:
        """Give a stream `size` bytes of credit back, once their content is dealt with (6.9).

        The connection's credit went back on arrival, as grpc-go does it: a stream that is paused
        must not pause the others.
        """
        stream = self.streams.get(stream_id)
        if stream is not None and not stream.remote_closed:
            window = stream.receive_window
            increment = window.consume(size)
            if increment:
                if type(window) is GrowingWindow:
                    increment += window.grow(self.now, largest=self.largest_tunnel)
                self.queue(frames.window_update_frame(stream_id, increment))

    def widen(self, increment: int) -> None:
        """Let the peer have `increment` bytes more under way, on the connection and its calls.

        Streams of tunnels have windows that grow by themselves.
        """
        self.receive_window.widen(increment)
        self.largest_tunnel = max(self.largest_tunnel, self.receive_window.size)
        self.queue(frames.window_update_frame(0, increment))
        for stream in self.streams.values():
            if type(stream.receive_window) is not GrowingWindow:
                self.widen_stream(stream, increment)

    def widen_stream(self, stream: Stream, increment: int) -> None:
        """Let the peer have `increment` bytes more under way on one stream."""
        if not stream.remote_closed:
            stream.receive_window.widen(increment)
            self.queue(frames.window_update_frame(stream.id, increment))

    def let_grow(self, stream_id: int, pool: WindowPool) -> None:
        """Give a stream, just opened, a window that grows while its reader is fast."""
        stream = self.streams[stream_id]
        window = GrowingWindow(stream.receive_window.size, pool)
        window.available = stream.receive_window.available
        stream.receive_window = window

    def allow_streams(self, most: int) -> None:
        """Let the peer have more streams open than `Http2Limits.max_streams` (server role)."""
        self.max_streams = most
        self.queue(frames.settings_frame({frames.MAX_CONCURRENT_STREAMS: most}))

    # Sending

    def open_stream(self, headers: Headers | bytes, *, end_stream: bool = False) -> int:
        """Start a request (client role) and return its stream id; bytes are for `send_block`.

        Raises:
            ConnectionFault: the peer is going away or allows no more streams, or ids ran out.
        """
        if self.closed or self.peer_going_away:
            raise ConnectionFault(frames.REFUSED_STREAM, "the connection takes no new streams")
        if len(self.streams) >= self.peer_max_streams:
            raise ConnectionFault(
                frames.REFUSED_STREAM, f"the peer allows {self.peer_max_streams} streams at once"
            )
        if self._next_id > frames.MAX_STREAM_ID:
            raise ConnectionFault(frames.NO_ERROR, "the connection has used up its stream ids")
        stream_id, self._next_id = self._next_id, self._next_id + 2
        self.add_stream(stream_id)
        if isinstance(headers, bytes):
            self.send_block(stream_id, headers)
        else:
            self.send_headers(stream_id, headers, end_stream=end_stream)
        return stream_id

    def add_stream(self, stream_id: int) -> Stream:
        """Enter a new stream into the table, with the windows of this moment."""
        stream = Stream(
            stream_id,
            send_window=self.peer_initial_window,
            receive_window=self.limits.stream_window,
        )
        if not self._receiver.settings_acknowledged:
            stream.receive_window.allow(frames.DEFAULT_WINDOW)
        self.streams[stream_id] = stream
        return stream

    def forget_stream(self, stream_id: int) -> bool:
        """Take a reset stream out, with all that it had waiting; whether it was there."""
        stream = self._pop(stream_id)
        if stream is None:
            return False
        self._unqueue(stream)
        return True

    def _pop(self, stream_id: int) -> Stream | None:
        stream = self.streams.pop(stream_id, None)
        if stream is not None and type(stream.receive_window) is GrowingWindow:
            stream.receive_window.close()
        return stream

    def _unqueue(self, stream: Stream) -> None:
        if stream.queued:
            stream.queued = False
            (self._urgent if stream in self._urgent else self._ready).remove(stream)

    def send_block(self, stream_id: int, block: bytes) -> None:
        """As `send_headers`, for a block that is encoded already and leaves HPACK's table alone.

        Raises:
            StreamFault: the stream is closed.
        """
        self._open_half(stream_id)
        self.content_sent = True
        if self._table_size < 4096:
            # The first block behind the peer's SETTINGS must say so (RFC 7541, 4.2).
            block = self._hpack.encode([]) + block
        self.queue(
            frames.headers_frames(
                stream_id, block, end_stream=False, max_size=self.peer_max_frame_size
            )
        )

    def send_headers(self, stream_id: int, headers: Headers, *, end_stream: bool = False) -> None:
        """Send a request or response head, at once: heads do not wait for credit.

        Raises:
            StreamFault: the stream is closed.
        """
        stream = self._open_half(stream_id)
        self.queue(self._headers(stream, headers, end_stream=end_stream))

    def _headers(self, stream: Stream, headers: Headers, *, end_stream: bool) -> bytes:
        # Encoded at the moment of queueing: HPACK wants encoding order = sending order.
        block = self._hpack.encode(headers)
        self.content_sent = True
        head = frames.headers_frames(
            stream.id, block, end_stream=end_stream, max_size=self.peer_max_frame_size
        )
        if end_stream:
            self._close_local(stream)
            if not self.client and not stream.remote_closed:
                # The answer is whole; what is left of the request is not wanted (8.1).
                stream.remote_closed = True
                self._pop(stream.id)
                head += frames.reset_frame(stream.id, frames.NO_ERROR)
        return head

    def send_data(self, stream_id: int, data: bytes | memoryview) -> bool:
        """Queue content, not empty; it leaves with `data_to_send` as credit allows.

        Returns False when the stream's backlog is `FULL`: pause the source until the id comes out
        of `take_writable`.

        Raises:
            StreamFault: the stream is closed in this direction.
        """
        stream = self._open_half(stream_id)
        stream.push(data)
        self.make_ready(stream)
        if stream.backlog < FULL:
            return True
        stream.reported_full = True
        return False

    def send_chunk(self, stream_id: int, data: bytes | memoryview) -> bool:
        """As `send_data`, for content in large chunks or few of them: each gets its own frame.

        Where nothing waits it is copied once, straight into its frame. A view is copied in any
        case, so that its buffer may be used again.
        """
        stream = self.streams.get(stream_id)
        if stream is None or stream.local_closed or stream.ending:
            raise _closed(stream_id)
        size = len(data)
        framed = self._framed + size
        if (
            framed <= QUANTUM
            and size <= stream.send_window
            and size <= self.send_window
            and size <= self.peer_max_frame_size
            and not (self._ready or self._urgent or stream.backlog)
        ):
            self._framed = framed
            stream.send_window -= size
            self.send_window -= size
            self.content_sent = True
            head = frames.HEADER.pack(size >> 8, size & 0xFF, frames.DATA, 0, stream_id)
            self._control.append(b"".join((head, data)))
            return True
        return self.send_data(stream_id, bytes(data) if type(data) is memoryview else data)

    def end_stream(self, stream_id: int, trailers: Headers | None = None) -> bool:
        """End our half behind all queued data, with trailers if given; whether it is queued now.

        If not, the id comes out of `take_writable` when it is.

        Raises:
            StreamFault: the stream is closed in this direction.
        """
        stream = self._open_half(stream_id)
        stream.ending = True
        stream.trailers = trailers
        if stream.backlog:
            return False
        self.queue(self._end_local(stream))
        return True

    def leave_stream(self, stream_id: int, code: int) -> bool:
        """Reset a stream behind its queued data; the answer is as that of `end_stream`."""
        stream = self.streams.get(stream_id)
        if stream is None:
            return True
        if stream.backlog:
            stream.ending = True
            stream.reset_code = code
            return False
        self.reset_stream(stream_id, code)
        return True

    def reset_stream(self, stream_id: int, code: int) -> None:
        """Abort a stream in both directions; a stream that is gone is left alone."""
        if self.forget_stream(stream_id):
            self.queue(frames.reset_frame(stream_id, code))

    def ping(self, opaque: bytes) -> None:
        """Ask the peer for a sign of life; `opaque` (eight bytes) comes back in the answer."""
        self.pings_unanswered += 1
        self.queue(frames.ping_frame(opaque))

    def go_away(self, code: int, debug: bytes = b"") -> None:
        """Announce the end: new streams of the peer are refused, the older ones go on.

        With an error code, nothing follows: close the transport once this is written.
        """
        self.going_away = True
        # A later GOAWAY may not take back what an earlier one said (6.8).
        self._last_accepted = min(self._last_accepted, self._receiver.highest_id)
        self.queue(frames.goaway_frame(self._last_accepted, code, debug))
        if code != frames.NO_ERROR:
            self.closed = True

    def queue(self, frame: bytes) -> None:
        """Queue a control frame ahead of all data."""
        self._control.append(frame)
        self.control_backlog += len(frame)

    def data_to_send(self, limit: int = 1 << 30) -> bytes:
        """The bytes to write now: control frames first, then streams in turn, a frame each.

        About `limit` bytes at most; the rest stays queued. Empty when nothing may be sent.
        """
        out: list[bytes | memoryview] = list(self._control)
        self._control.clear()
        room = limit - self._framed
        self.control_backlog = self._framed = 0
        if self.closed:
            self._ready.clear()  # nothing follows the GOAWAY
            self._urgent.clear()
        largest = min(self.peer_max_frame_size, QUANTUM)
        while room > 0 and self.send_window > 0 and (self._urgent or self._ready):
            stream = self._urgent.popleft() if self._urgent else self._ready.popleft()
            stream.queued = False
            size = min(stream.backlog, stream.send_window, self.send_window, largest)
            if size > 0:
                self._frame_data(stream, size, out)
                room -= size
            if stream.backlog:
                self.make_ready(stream)
            elif stream.ending:
                out.append(self._end_local(stream))
                self._writable.append(stream.id)
        return b"".join(out)

    def _frame_data(self, stream: Stream, size: int, out: list[bytes | memoryview]) -> None:
        last = (
            stream.ending
            and size == stream.backlog
            and stream.trailers is None
            and stream.reset_code is None
        )
        flags = frames.END_STREAM if last else 0
        out.append(frames.frame_header(frames.DATA, flags, stream.id, size))
        out += stream.pull(size)
        stream.send_window -= size
        self.send_window -= size
        self.content_sent = True
        if last:
            self._close_local(stream)
            self._writable.append(stream.id)
        if stream.reported_full and stream.backlog <= ROOMY:
            stream.reported_full = False
            self._writable.append(stream.id)

    def _end_local(self, stream: Stream) -> bytes:
        if stream.trailers is not None:
            return self._headers(stream, stream.trailers, end_stream=True)
        if stream.reset_code is not None:
            self._pop(stream.id)
            return frames.reset_frame(stream.id, stream.reset_code)
        self._close_local(stream)
        return frames.frame_header(frames.DATA, frames.END_STREAM, stream.id, 0)

    def take_writable(self) -> list[int]:
        """The streams that were full and have room again since the last call."""
        if not self._writable:
            return []
        writable, self._writable = self._writable, []
        return writable

    @property
    def wants_to_send(self) -> bool:
        """Whether `data_to_send` may return something."""
        waiting = bool(self._ready or self._urgent)
        return bool(self._control) or (waiting and self.send_window > 0)

    # State shared with the receiver

    def ever_opened(self, stream_id: int) -> bool:
        """Whether the id was in use once: frames may still arrive for it (5.1, closed)."""
        opened = self._next_id - 1 if self.client else self._receiver.highest_id
        return stream_id % 2 == 1 and stream_id <= opened

    def apply_initial_window(self, size: int) -> None:
        """Adjust every stream to the peer's new SETTINGS_INITIAL_WINDOW_SIZE (6.9.2)."""
        delta, self.peer_initial_window = size - self.peer_initial_window, size
        if not delta:
            return
        for stream in self.streams.values():
            stream.send_window += delta
            if stream.send_window > frames.MAX_WINDOW:
                raise ConnectionFault(
                    frames.FLOW_CONTROL_ERROR, "SETTINGS made a window larger than 2^31-1"
                )
            self.make_ready(stream)

    def apply_header_table_size(self, size: int) -> None:
        """Obey the peer's limit on our HPACK table; only ever shrink it.

        hpack would forget to announce a size that is set twice, and collect without bound what a
        peer that changes its mind makes it announce.
        """
        if size < self._table_size:
            self._table_size = size
            if self._encoder is not None:
                self._encoder.header_table_size = size

    @property
    def _hpack(self) -> Encoder:
        """The encoder, made when a block is needed that is no constant."""
        if self._encoder is None:
            self._encoder = Encoder()
            if self._table_size < self._encoder.header_table_size:
                self._encoder.header_table_size = self._table_size
        return self._encoder

    def make_ready(self, stream: Stream) -> None:
        """Let a stream's waiting data go, where it has credit."""
        if stream.backlog and stream.send_window > 0 and not stream.queued:
            stream.queued = True
            (self._urgent if stream.backlog <= SMALL else self._ready).append(stream)

    def _open_half(self, stream_id: int) -> Stream:
        stream = self.streams.get(stream_id)
        if stream is None or stream.local_closed or stream.ending:
            raise _closed(stream_id)
        return stream

    def _close_local(self, stream: Stream) -> None:
        stream.local_closed = True
        stream.ending = False
        self._unqueue(stream)  # with nothing to send: what waited was dropped
        if stream.remote_closed:
            self._pop(stream.id)


def _closed(stream_id: int) -> StreamFault:
    return StreamFault(stream_id, frames.STREAM_CLOSED, f"stream {stream_id} is closed")


@cache
def _opening(client: bool, limits: Http2Limits) -> bytes:
    """What a connection sends first: SETTINGS, and credit for all streams together (3.4)."""
    settings = {
        frames.INITIAL_WINDOW_SIZE: limits.stream_window,
        frames.MAX_FRAME_SIZE: limits.max_frame_size,
        frames.MAX_HEADER_LIST_SIZE: limits.max_header_list,
    }
    settings.update(
        {frames.ENABLE_PUSH: 0} if client else {frames.MAX_CONCURRENT_STREAMS: limits.max_streams}
    )
    opening = (frames.PREFACE if client else b"") + frames.settings_frame(settings)
    surplus = limits.connection_window - frames.DEFAULT_WINDOW
    return opening + (frames.window_update_frame(0, surplus) if surplus else b"")
