"""HTTP/2 for gRPC, both roles: bytes in, events out; calls in, bytes out (RFC 9113).

Narrow on purpose: no push, no priorities, no upgrade. It reads no clock (`now` is an argument) and
touches no socket. The peer's bytes never raise: a broken stream becomes `StreamReset`, a broken
connection `ConnectionEnded`, each with the frame that tells the peer already queued. After every
call, write what `data_to_send` returns.

Receiving lives in `receiving.py`, sending in `sending.py`, so that each file holds one direction.
"""

from __future__ import annotations

from functools import cache

from konnectivity.errors import ConnectionFault
from konnectivity.wire import frames
from konnectivity.wire.events import Event, Headers
from konnectivity.wire.limits import Bucket, Http2Limits
from konnectivity.wire.receiving import Receiver
from konnectivity.wire.sending import Sender
from konnectivity.wire.stream import Stream
from konnectivity.wire.windows import GrowingWindow, ReceiveWindow, WindowPool

LARGEST_TUNNEL = 1 << 20
"""Bytes of the largest window of a tunnel's stream, and so what a reader that stalls can cost."""


class Connection(Sender):
    """One HTTP/2 connection. `client` is the role; ids and limits follow from it."""

    def __init__(self, *, client: bool, limits: Http2Limits | None = None) -> None:
        limits = limits or Http2Limits()
        super().__init__(client=client, limits=limits, opening=_opening(client, limits))
        self.max_streams = limits.max_streams
        """Streams that the peer may have open (server role); `allow_streams` changes it."""
        self.largest_tunnel = LARGEST_TUNNEL
        """Bytes up to which the window of a tunnel's stream grows; more for a distant peer."""
        self.now = 0.0
        """When the peer was last heard, on the caller's clock."""
        self.peer_going_away = False
        self.peer_initial_window = frames.DEFAULT_WINDOW
        self.peer_max_streams = frames.MAX_STREAM_ID
        self.receive_window = ReceiveWindow(limits.connection_window)
        self.pings_unanswered = 0
        """PINGs of ours that the peer has yet to acknowledge."""
        self.resets = Bucket(limits.resets_burst, limits.resets_per_second)
        self.going_away = False
        """We sent GOAWAY: new streams of the peer are refused."""
        self._detached = False
        self._receiver = Receiver(self)
        self._last_accepted = frames.MAX_STREAM_ID
        self._next_id = 1

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

    # Opening, and the whole connection

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
