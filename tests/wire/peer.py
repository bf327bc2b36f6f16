"""The other end of a connection under test: it speaks and hears raw frames."""

from __future__ import annotations

from typing import NamedTuple

from hpack import Decoder, Encoder

from konnectivity.wire import frames
from konnectivity.wire.events import ConnectionEnded, DataReceived, Event, Headers, StreamReset
from konnectivity.wire.http2 import Connection
from konnectivity.wire.limits import Http2Limits

REQUEST: Headers = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/ProxyService/Proxy"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]
RESPONSE: Headers = [(":status", "200"), ("content-type", "application/grpc")]
TRAILERS: Headers = [("grpc-status", "0")]
WIDE = {frames.INITIAL_WINDOW_SIZE: 2**31 - 1}
"""Settings that never make us wait for a stream's credit."""


class Frame(NamedTuple):
    """One frame, cut from bytes without the code under test."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes

    @property
    def number(self) -> int:
        """The payload of RST_STREAM and WINDOW_UPDATE, the code of GOAWAY."""
        return int.from_bytes(self.payload[4:8] if self.kind == 7 else self.payload, "big")


def cut(data: bytes) -> list[Frame]:
    """All frames of `data`, behind the preface if it has one."""
    data = data.removeprefix(frames.PREFACE)
    out = []
    while data:
        size = int.from_bytes(data[:3], "big")
        stream_id = int.from_bytes(data[5:9], "big")
        assert len(data) >= 9 + size, "the last frame is incomplete"
        out.append(Frame(data[3], data[4], stream_id, data[9 : 9 + size]))
        data = data[9 + size :]
    return out


def headers_frame(
    block: bytes, *, stream_id: int = 1, end_stream: bool = False, end_headers: bool = True
) -> bytes:
    """HEADERS with any block, good or bad."""
    flags = (frames.END_STREAM if end_stream else 0) | (frames.END_HEADERS if end_headers else 0)
    return frames.frame(frames.HEADERS, flags, stream_id, block)


def data_frame(data: bytes, *, stream_id: int = 1, end_stream: bool = False) -> bytes:
    """DATA without padding."""
    return frames.frame(frames.DATA, frames.END_STREAM if end_stream else 0, stream_id, data)


def padded(kind: int, flags: int, stream_id: int, payload: bytes, padding: int) -> bytes:
    """A frame with `padding` bytes behind its payload."""
    body = bytes([padding]) + payload + bytes(padding)
    return frames.frame(kind, flags | frames.PADDED, stream_id, body)


class Peer:
    """Talks to `connection`, which is in the role `client` says. The handshake is done."""

    def __init__(
        self,
        *,
        client: bool = False,
        limits: Http2Limits | None = None,
        settings: dict[int, int] | None = None,
    ) -> None:
        self.connection = Connection(client=client, limits=limits)
        self.now = 1000.0
        self._encoder = Encoder()
        self._decoder = Decoder()
        self.hello = cut(self.connection.data_to_send())
        preface = b"" if client else frames.PREFACE
        self.say(preface, frames.settings_frame(settings or {}), frames.settings_ack_frame())
        assert not self.connection.closed
        self.hear()

    def say(self, *raw: bytes) -> list[Event]:
        """What our side reports of these bytes."""
        return self.connection.receive_data(b"".join(raw), self.now)

    def hear(self, limit: int = 1 << 30) -> list[Frame]:
        """What our side has to send."""
        return cut(self.connection.data_to_send(limit))

    def block(self, headers: Headers) -> bytes:
        """A header block; blocks must be said in the order in which they were made."""
        return self._encoder.encode(headers)

    def fields(self, frame: Frame) -> Headers:
        """The fields of a HEADERS frame, which must be decoded in order."""
        return [
            (str(name), str(value))
            for name, value in self._decoder.decode(frame.payload, raw=False)
        ]

    def head(
        self, stream_id: int = 1, headers: Headers | None = None, *, end_stream: bool = False
    ) -> bytes:
        """HEADERS of a request, or of a response where our side is the client."""
        fields = headers or (RESPONSE if self.connection.client else REQUEST)
        return headers_frame(self.block(fields), stream_id=stream_id, end_stream=end_stream)

    def opened(self, stream_id: int = 1) -> Peer:
        """The same peer with an open stream, whoever opens it, and nothing left to hear."""
        if self.connection.client:
            while self.connection.open_stream(REQUEST) < stream_id:
                pass
        self.say(self.head(stream_id))
        for frame in self.hear():
            if frame.kind == frames.HEADERS:
                self.fields(frame)
        return self


def wide(client: bool = False, stream_id: int = 1) -> Peer:
    """A peer with an open stream that grants more credit than any test uses."""
    peer = Peer(client=client, settings=WIDE).opened(stream_id)
    peer.say(frames.window_update_frame(0, 2**31 - 1 - 65_535))
    return peer


def content(heard: list[Frame]) -> bytes:
    """All that DATA frames carry, of whatever stream."""
    return b"".join(frame.payload for frame in heard if frame.kind == frames.DATA)


def ended(events: list[Event]) -> ConnectionEnded:
    """The fault that ended the connection, which is the last event."""
    assert isinstance(events[-1], ConnectionEnded), events
    return events[-1]


def reset(events: list[Event]) -> StreamReset:
    """The fault that ended the stream, which is the last event."""
    assert isinstance(events[-1], StreamReset), events
    return events[-1]


def merged(events: list[Event]) -> list[Event]:
    """Events with content in one piece that came in several, one after the other."""
    out: list[Event] = []
    for event in frozen(events):
        last = out[-1] if out else None
        if (
            isinstance(event, DataReceived)
            and isinstance(last, DataReceived)
            and last.stream_id == event.stream_id
        ):
            data = memoryview(bytes(last.data) + bytes(event.data))
            out[-1] = DataReceived(event.stream_id, data, last.size + event.size)
        else:
            out.append(event)
    return out


def frozen(events: list[Event]) -> list[Event]:
    """Events that can be compared after the buffers they look into are gone."""
    return [
        DataReceived(event.stream_id, memoryview(bytes(event.data)), event.size)
        if isinstance(event, DataReceived)
        else event
        for event in events
    ]
