"""The receiving half of an HTTP/2 connection: frames in, checks, events out (RFC 9113).

Every rule that a peer can break is enforced here, and every flood is counted here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from konnectivity.errors import ConnectionFault, StreamFault
from konnectivity.wire import frames
from konnectivity.wire.blocks import BlockDecoder
from konnectivity.wire.events import (
    ConnectionEnded,
    DataReceived,
    Event,
    GoAwayReceived,
    HeadersReceived,
    PingAcknowledged,
    PingReceived,
    SettingsReceived,
    StreamEnded,
    StreamReset,
)
from konnectivity.wire.fields import check_fields
from konnectivity.wire.framing import FrameReader
from konnectivity.wire.limits import Bucket
from konnectivity.wire.stream import Stream
from konnectivity.wire.tunnel_stream import plain_fields

if TYPE_CHECKING:
    from konnectivity.wire.http2 import Connection


class Receiver(FrameReader):
    """Reads the peer's frames on behalf of one `Connection`, whose state it changes."""

    __deletable__ = ("_connection",)  # for mypyc: what `detach` deletes

    def __init__(self, connection: Connection) -> None:
        limits = connection.limits
        preface = b"" if connection.client else frames.PREFACE
        super().__init__(preface=preface, max_frame_size=limits.max_frame_size)
        self.highest_id = 0
        """The highest stream id the peer has used (server role) or 0."""
        self.settings_acknowledged = False
        """The peer has read our SETTINGS, windows included."""
        self._connection = connection
        self._limits = limits
        self._blocks = BlockDecoder(max_list=limits.max_header_list)
        self._block = bytearray()
        self._block_stream = 0
        self._block_ends_stream = False
        self._continuations = 0
        self._control = Bucket(limits.control_burst, limits.control_per_second)
        self._empty = Bucket(limits.empty_burst, limits.empty_per_second)
        self._events: list[Event] = []
        self._now = 0.0

    def detach(self) -> None:
        """Let go of the connection; nothing more will be received."""
        del self._connection

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Parse what arrived; faults become events and queued frames."""
        self._now = now
        try:
            self._parse(data)
            self._check_backlog()
        except ConnectionFault as fault:
            self._connection.go_away(fault.code, str(fault).encode()[:256])
            self._events.append(ConnectionEnded(fault.code, str(fault)))
        events, self._events = self._events, []
        return events

    def _read_frame(self, kind: int, flags: int, stream_id: int, payload: memoryview) -> None:
        if self._block_stream and (kind != frames.CONTINUATION or stream_id != self._block_stream):
            raise ConnectionFault(frames.PROTOCOL_ERROR, "a header block was interrupted (6.10)")
        try:
            if kind == frames.DATA:
                self._read_data(flags, stream_id, payload)
            else:
                reader = _READERS.get(kind)
                if reader is None:
                    self._count_control(f"frames of unknown type {kind}")
                else:
                    reader(self, flags, stream_id, payload)
        except StreamFault as fault:
            self._fail_stream(fault)

    def _fail_stream(self, fault: StreamFault) -> None:
        self._count_reset()
        known = self._connection.streams.get(fault.stream_id)
        if known is None:
            self._connection.queue(frames.reset_frame(fault.stream_id, fault.code))
            return
        self._connection.reset_stream(fault.stream_id, fault.code)
        self._events.append(
            StreamReset(fault.stream_id, fault.code, by_peer=False, message=str(fault))
        )

    # Floods

    def _count_control(self, what: str) -> None:
        if not self._control.take(self._now):
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, f"too many {what}")

    def _count_empty(self) -> None:
        if not self._empty.take(self._now):
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "too many empty frames")

    def _count_reset(self) -> None:
        if not self._connection.resets.take(self._now):
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "too many streams were reset")

    def _check_backlog(self) -> None:
        if self._connection.control_backlog > self._limits.max_control_backlog:
            raise ConnectionFault(
                frames.ENHANCE_YOUR_CALM, "the peer does not read the answers it causes"
            )

    # Content

    def _read_data(self, flags: int, stream_id: int, payload: memoryview) -> None:
        connection = self._connection
        size = len(payload)
        window = connection.receive_window
        if not window.take(size):
            raise ConnectionFault(
                frames.FLOW_CONTROL_ERROR, "the peer overdrew the connection's window"
            )
        if window.available * 2 <= window.size:
            increment = window.consume(window.size - window.available)
            connection.queue(frames.window_update_frame(0, increment))
        stream = connection.streams.get(stream_id)
        if stream is None:
            self._refuse_idle(stream_id, "DATA")  # else: in flight when the stream was reset
            if not size:
                self._count_empty()
            return
        if stream.remote_closed:
            raise StreamFault(stream_id, frames.STREAM_CLOSED, "DATA after END_STREAM (5.1)")
        if not stream.headers_received:
            raise StreamFault(stream_id, frames.PROTOCOL_ERROR, "DATA before HEADERS (8.1)")
        if not stream.receive_window.take(size):
            raise StreamFault(
                stream_id, frames.FLOW_CONTROL_ERROR, "the peer overdrew the stream's window"
            )
        if flags & frames.PADDED:
            payload = _strip_padding(payload)
        if payload:
            self._events.append(DataReceived(stream_id, payload, size))
        else:
            if size:
                connection.consume(stream_id, size)
            if not flags & frames.END_STREAM:
                self._count_empty()
        if flags & frames.END_STREAM:
            self._end_remote(stream)

    def _end_remote(self, stream: Stream) -> None:
        stream.remote_closed = True
        if stream.local_closed:
            self._connection.forget_stream(stream.id)
        self._events.append(StreamEnded(stream.id, stream.local_closed))

    def _refuse_idle(self, stream_id: int, what: str) -> None:
        """Frames on a stream nobody opened end the connection (5.1, idle)."""
        if not self._connection.ever_opened(stream_id):
            raise ConnectionFault(
                frames.PROTOCOL_ERROR, f"{what} on stream {stream_id}, which is idle"
            )

    # Header blocks

    def _read_headers(self, flags: int, stream_id: int, payload: memoryview) -> None:
        if stream_id == 0:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "HEADERS on stream 0")
        if flags & frames.PADDED:
            payload = _strip_padding(payload)
        if flags & frames.PRIORITY_FLAG:
            if len(payload) < 5:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, "HEADERS too short for its flags")
            payload = payload[5:]
        self._block_ends_stream = bool(flags & frames.END_STREAM)
        if flags & frames.END_HEADERS and len(payload) <= self._limits.max_header_list:
            self._end_block(stream_id, bytes(payload))
            return
        self._block_stream = stream_id
        self._continuations = 0
        self._add_to_block(flags, payload)

    def _read_continuation(self, flags: int, stream_id: int, payload: memoryview) -> None:
        if not self._block_stream:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self._continuations += 1
        if self._continuations > self._limits.max_continuations:
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "too many CONTINUATION frames")
        self._add_to_block(flags, payload)

    def _add_to_block(self, flags: int, payload: memoryview) -> None:
        self._block += payload
        # A compressed block is never longer than the list it stands for plus small change.
        if len(self._block) > self._limits.max_header_list:
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "a header block is too long")
        if flags & frames.END_HEADERS:
            stream_id, self._block_stream = self._block_stream, 0
            block, self._block = bytes(self._block), bytearray()
            self._end_block(stream_id, block)

    def _end_block(self, stream_id: int, block: bytes) -> None:
        connection = self._connection
        plain = plain_fields(block)
        headers = self._blocks.decode(block) if plain is None else plain
        ends = self._block_ends_stream
        stream = connection.streams.get(stream_id)
        if stream is None:
            if connection.client or stream_id <= self.highest_id:
                self._refuse_idle(stream_id, "HEADERS")
                if not connection.client:  # a client that cancels gets heads that were under way
                    self._count_control("HEADERS frames on closed streams")
                return
            stream = self._open_by_peer(stream_id)
        if stream.remote_closed:
            raise StreamFault(stream_id, frames.STREAM_CLOSED, "HEADERS after END_STREAM")
        first = not stream.headers_received
        if plain is None or not first or (len(plain) == 1) is not connection.client:
            check_fields(stream_id, headers, request=not connection.client, first=first)
        if not first and not ends:
            raise StreamFault(stream_id, frames.PROTOCOL_ERROR, "trailers without END_STREAM")
        if first and connection.client and headers[0][1].startswith("1"):
            if ends:
                raise StreamFault(stream_id, frames.PROTOCOL_ERROR, "only an interim response")
            self._count_empty()  # the response itself is still to come
            return
        stream.headers_received = True
        self._events.append(HeadersReceived(stream_id, headers, first, ends))
        if ends:
            self._end_remote(stream)

    def _open_by_peer(self, stream_id: int) -> Stream:
        if stream_id % 2 == 0:
            raise ConnectionFault(frames.PROTOCOL_ERROR, f"a client opened stream {stream_id}")
        self.highest_id = stream_id
        if self._connection.going_away:
            raise StreamFault(stream_id, frames.REFUSED_STREAM, "the connection is going away")
        most = self._connection.max_streams
        if len(self._connection.streams) >= most:
            raise StreamFault(stream_id, frames.REFUSED_STREAM, f"more than {most} streams at once")
        return self._connection.add_stream(stream_id)

    # Control frames

    def _read_reset(self, flags: int, stream_id: int, payload: memoryview) -> None:
        _expect_size(payload, 4, "RST_STREAM")
        stream = self._connection.streams.get(stream_id)
        if stream is None:
            self._refuse_idle(stream_id, "RST_STREAM")
            return
        self._connection.forget_stream(stream_id)
        # What was asked for, a client's request or a tunnel's stream, was no work for nothing.
        if not self._connection.client and not stream.expected:
            self._count_reset()
        code = int.from_bytes(payload, "big")
        self._events.append(StreamReset(stream_id, code, by_peer=True))

    def _read_settings(self, flags: int, stream_id: int, payload: memoryview) -> None:
        if stream_id:
            raise ConnectionFault(frames.PROTOCOL_ERROR, f"SETTINGS on stream {stream_id}")
        if flags & frames.ACK:
            _expect_size(payload, 0, "SETTINGS acknowledgement")
            self._count_control("SETTINGS frames")
            self.settings_acknowledged = True
            return
        if len(payload) % 6:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "SETTINGS of a broken length")
        self._count_control("SETTINGS frames")
        if len(payload) > 6 * self._limits.max_settings:
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "too many settings in one frame")
        window = self._connection.peer_initial_window
        for key, value in frames.SETTING.iter_unpack(payload):
            if key == frames.INITIAL_WINDOW_SIZE:
                window = value  # applied once, for it costs a visit to every stream
            self._apply_setting(key, value)
        self._connection.apply_initial_window(window)
        self._connection.queue(frames.settings_ack_frame())
        self._events.append(SettingsReceived())

    def _apply_setting(self, key: int, value: int) -> None:
        connection = self._connection
        if key == frames.INITIAL_WINDOW_SIZE and value > frames.MAX_WINDOW:
            raise ConnectionFault(frames.FLOW_CONTROL_ERROR, f"initial window of {value}")
        if key == frames.MAX_FRAME_SIZE:
            if not frames.DEFAULT_FRAME_SIZE <= value <= frames.LARGEST_FRAME_SIZE:
                raise ConnectionFault(frames.PROTOCOL_ERROR, f"maximum frame size of {value}")
            connection.peer_max_frame_size = value
        elif key == frames.MAX_CONCURRENT_STREAMS:
            connection.peer_max_streams = value
        elif key == frames.HEADER_TABLE_SIZE:
            connection.apply_header_table_size(value)
        elif key == frames.ENABLE_PUSH and value > (0 if connection.client else 1):
            raise ConnectionFault(frames.PROTOCOL_ERROR, f"ENABLE_PUSH of {value}")

    def _read_ping(self, flags: int, stream_id: int, payload: memoryview) -> None:
        _expect_size(payload, 8, "PING")
        if stream_id:
            raise ConnectionFault(frames.PROTOCOL_ERROR, f"PING on stream {stream_id}")
        if flags & frames.ACK:
            if self._connection.pings_unanswered:
                self._connection.pings_unanswered -= 1
            else:
                self._count_control("PING acknowledgements")
            self._events.append(PingAcknowledged(bytes(payload)))
            return
        after_content = self._connection.content_sent
        self._connection.content_sent = False
        if not after_content:
            # Peers measure their bandwidth by pings while data flows; those are no flood.
            self._count_control("PING frames")
        self._connection.queue(frames.ping_frame(bytes(payload), ack=True))
        self._events.append(PingReceived(after_content))

    def _read_goaway(self, flags: int, stream_id: int, payload: memoryview) -> None:
        if len(payload) < 8:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "GOAWAY is too short")
        if stream_id:
            raise ConnectionFault(frames.PROTOCOL_ERROR, f"GOAWAY on stream {stream_id}")
        self._count_control("GOAWAY frames")
        connection = self._connection
        connection.peer_going_away = True
        last = int.from_bytes(payload[:4], "big") & frames.MAX_STREAM_ID
        code = int.from_bytes(payload[4:8], "big")
        if connection.client:
            for refused in [known for known in connection.streams if known > last]:
                connection.forget_stream(refused)
                self._events.append(StreamReset(refused, frames.REFUSED_STREAM, by_peer=True))
        self._events.append(GoAwayReceived(last, code, bytes(payload[8:264])))

    def _read_window_update(self, flags: int, stream_id: int, payload: memoryview) -> None:
        _expect_size(payload, 4, "WINDOW_UPDATE")
        connection = self._connection
        increment = int.from_bytes(payload, "big") & frames.MAX_WINDOW
        if stream_id == 0:
            if increment == 0:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            connection.send_window += increment
            if connection.send_window > frames.MAX_WINDOW:
                raise ConnectionFault(
                    frames.FLOW_CONTROL_ERROR, "the connection's window exceeds 2^31-1"
                )
            return
        stream = connection.streams.get(stream_id)
        if stream is None:
            self._refuse_idle(stream_id, "WINDOW_UPDATE")
            return
        if increment == 0:
            raise StreamFault(stream_id, frames.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        stream.send_window += increment
        if stream.send_window > frames.MAX_WINDOW:
            raise StreamFault(
                stream_id, frames.FLOW_CONTROL_ERROR, "the stream's window exceeds 2^31-1"
            )
        connection.make_ready(stream)

    def _read_priority(self, flags: int, stream_id: int, payload: memoryview) -> None:
        _expect_size(payload, 5, "PRIORITY")
        if not stream_id:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "PRIORITY on stream 0")
        self._count_control("PRIORITY frames")

    def _read_push_promise(self, flags: int, stream_id: int, payload: memoryview) -> None:
        raise ConnectionFault(frames.PROTOCOL_ERROR, "PUSH_PROMISE, which was never enabled")


_READERS: Final = {
    frames.HEADERS: Receiver._read_headers,
    frames.PRIORITY: Receiver._read_priority,
    frames.RST_STREAM: Receiver._read_reset,
    frames.SETTINGS: Receiver._read_settings,
    frames.PUSH_PROMISE: Receiver._read_push_promise,
    frames.PING: Receiver._read_ping,
    frames.GOAWAY: Receiver._read_goaway,
    frames.WINDOW_UPDATE: Receiver._read_window_update,
    frames.CONTINUATION: Receiver._read_continuation,
}


def _strip_padding(payload: memoryview) -> memoryview:
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(frames.PROTOCOL_ERROR, "padding is longer than its frame (6.1)")
    return payload[1 : len(payload) - payload[0]]


def _expect_size(payload: memoryview, size: int, what: str) -> None:
    if len(payload) != size:
        raise ConnectionFault(
            frames.FRAME_SIZE_ERROR, f"{what} of {len(payload)} bytes instead of {size}"
        )
