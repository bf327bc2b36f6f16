"""What an HTTP/2 connection reports: one small class for each thing that can happen.

`DataReceived` is made for every DATA frame, so none of these is frozen: freezing triples the
price of making one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Headers: TypeAlias = list[tuple[str, str]]


@dataclass(slots=True)
class HeadersReceived:
    """A request (server role), a response (client role), or trailers on either.

    `headers` in order of arrival, pseudo-header fields first. `first` is False for trailers.
    """

    stream_id: int
    headers: Headers
    first: bool
    end_stream: bool


@dataclass(slots=True)
class DataReceived:
    """Content of one DATA frame.

    `data` looks into the bytes given to `receive_data`: copy what you keep. `size` is what counts
    against the windows, padding included; return it with `consume` once the data is dealt with.
    """

    stream_id: int
    data: memoryview
    size: int


@dataclass(slots=True)
class StreamEnded:
    """The peer will send no more on this stream (END_STREAM); `closed`: nor will we."""

    stream_id: int
    closed: bool = False


@dataclass(slots=True)
class StreamReset:
    """The stream is gone: RST_STREAM from the peer, or from us because of a fault."""

    stream_id: int
    code: int
    by_peer: bool
    message: str = ""


@dataclass(slots=True)
class SettingsReceived:
    """The peer's SETTINGS are in force and the acknowledgement is queued."""


@dataclass(slots=True)
class PingReceived:
    """The peer asked for a sign of life; the answer is queued.

    `after_content`: we sent HEADERS or DATA since the ping before, which forgives an early ping.
    """

    after_content: bool


@dataclass(slots=True)
class PingAcknowledged:
    """The peer answered our PING with the same eight bytes."""

    opaque: bytes


@dataclass(slots=True)
class GoAwayReceived:
    """The peer will accept no streams above `last_stream_id`; the older ones go on."""

    last_stream_id: int
    code: int
    debug: bytes


@dataclass(slots=True)
class ConnectionEnded:
    """The peer broke the protocol or a limit. GOAWAY is queued: send it, then close."""

    code: int
    message: str


Event: TypeAlias = (
    HeadersReceived
    | DataReceived
    | StreamEnded
    | StreamReset
    | SettingsReceived
    | PingReceived
    | PingAcknowledged
    | GoAwayReceived
    | ConnectionEnded
)
