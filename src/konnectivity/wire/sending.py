"""The sending half of an HTTP/2 connection: heads, content in turn, ends (RFC 9113).

Control frames go first, then streams with little to say, then the others in turn, each within the
windows that the peer grants. Nothing is written here: `data_to_send` gives the bytes.
"""

from __future__ import annotations

from collections import deque

from hpack import Encoder

from konnectivity.errors import StreamFault
from konnectivity.wire import frames
from konnectivity.wire.events import Headers
from konnectivity.wire.limits import Http2Limits
from konnectivity.wire.stream import Stream
from konnectivity.wire.windows import GrowingWindow

FULL = 128 << 10
"""Backlog of one stream, in bytes, at which `send_data` asks its caller to pause."""
ROOMY = 32 << 10
"""Backlog at which that caller may go on."""
SMALL = 2 << 10
"""Streams with no more than this to send go before all others: a keystroke does not wait."""
QUANTUM = 128 << 10
"""Bytes of one stream at most, before the next one has its turn."""


class Sender:
    """Sends on behalf of one `Connection`, which is built on it. `opening` is said first."""

    def __init__(self, *, client: bool, limits: Http2Limits, opening: bytes) -> None:
        self.limits = limits
        self.client = client
        self.streams: dict[int, Stream] = {}
        self.closed = False
        """A fault or the transport ended the connection; input is ignored."""
        self.send_window = frames.DEFAULT_WINDOW
        self.peer_max_frame_size = frames.DEFAULT_FRAME_SIZE
        self.content_sent = False
        """HEADERS or DATA went out since the peer's last PING (ping policy of gRPC)."""
        self.control_backlog = 0
        """Bytes of control frames queued and not yet taken by `data_to_send`."""
        self._control: list[bytes | memoryview] = [opening]
        self._framed = 0
        """Bytes of content that stand in frames among them."""
        self._ready: deque[Stream] = deque()
        self._urgent: deque[Stream] = deque()
        self._writable: list[int] = []
        self._encoder: Encoder | None = None
        self._table_size = 4096

    # Heads

    def send_headers(self, stream_id: int, headers: Headers, *, end_stream: bool = False) -> None:
        """Send a request or response head, at once: heads do not wait for credit.

        Raises:
            StreamFault: the stream is closed.
        """
        stream = self._open_half(stream_id)
        self.queue(self._headers(stream, headers, end_stream=end_stream))

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

    @property
    def _hpack(self) -> Encoder:
        """The encoder, made when a block is needed that is no constant."""
        if self._encoder is None:
            self._encoder = Encoder()
            if self._table_size < self._encoder.header_table_size:
                self._encoder.header_table_size = self._table_size
        return self._encoder

    def apply_header_table_size(self, size: int) -> None:
        """Obey the peer's limit on our HPACK table; only ever shrink it.

        hpack would forget to announce a size that is set twice, and collect without bound what a
        peer that changes its mind makes it announce.
        """
        if size < self._table_size:
            self._table_size = size
            if self._encoder is not None:
                self._encoder.header_table_size = size

    # Content

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

    def make_ready(self, stream: Stream) -> None:
        """Let a stream's waiting data go, where it has credit."""
        if stream.backlog and stream.send_window > 0 and not stream.queued:
            stream.queued = True
            (self._urgent if stream.backlog <= SMALL else self._ready).append(stream)

    # Ends

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

    def forget_stream(self, stream_id: int) -> bool:
        """Take a reset stream out, with all that it had waiting; whether it was there."""
        stream = self._pop(stream_id)
        if stream is None:
            return False
        self._unqueue(stream)
        return True

    def _open_half(self, stream_id: int) -> Stream:
        stream = self.streams.get(stream_id)
        if stream is None or stream.local_closed or stream.ending:
            raise _closed(stream_id)
        return stream

    def _end_local(self, stream: Stream) -> bytes:
        if stream.trailers is not None:
            return self._headers(stream, stream.trailers, end_stream=True)
        if stream.reset_code is not None:
            self._pop(stream.id)
            return frames.reset_frame(stream.id, stream.reset_code)
        self._close_local(stream)
        return frames.frame_header(frames.DATA, frames.END_STREAM, stream.id, 0)

    def _close_local(self, stream: Stream) -> None:
        stream.local_closed = True
        stream.ending = False
        self._unqueue(stream)  # with nothing to send: what waited was dropped
        if stream.remote_closed:
            self._pop(stream.id)

    def _pop(self, stream_id: int) -> Stream | None:
        stream = self.streams.pop(stream_id, None)
        if stream is not None and type(stream.receive_window) is GrowingWindow:
            stream.receive_window.close()
        return stream

    def _unqueue(self, stream: Stream) -> None:
        if stream.queued:
            stream.queued = False
            (self._urgent if stream in self._urgent else self._ready).remove(stream)

    # What leaves

    def queue(self, frame: bytes) -> None:
        """Queue a control frame ahead of all data."""
        self._control.append(frame)
        self.control_backlog += len(frame)

    def data_to_send(self, limit: int = 1 << 30) -> bytes:
        """The bytes to write now: control frames first, then streams in turn, a frame each.

        About `limit` bytes at most; the rest stays queued. Empty when nothing may be sent.
        """
        if not (self._control or self._ready or self._urgent):
            return b""
        out, self._control = self._control, []
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


def _closed(stream_id: int) -> StreamFault:
    return StreamFault(stream_id, frames.STREAM_CLOSED, f"stream {stream_id} is closed")
