"""What a peer may cost us: named limits, and the bucket that counts floods.

Every number is a bound on memory or on work that one connection can cause. The reasons stand
beside the defaults; listeners narrow or widen them (`dataclasses.replace`).
"""

from __future__ import annotations

from dataclasses import dataclass

from konnectivity.wire import frames


@dataclass(frozen=True, slots=True)
class Http2Limits:
    """Bounds of one HTTP/2 connection. Sizes in bytes, rates per second."""

    stream_window: int = 1 << 20
    """What a stream may send before `consume`; also the longest queue it can make here."""
    connection_window: int = 4 << 20
    """What all streams together may have in flight. It is no bound on memory: credit goes back on
    arrival."""
    max_frame_size: int = 1 << 18
    """Frame payload we accept. grpc-go sends 16 KiB whatever we say; our own peers use it all."""
    max_header_list: int = 64 << 10
    """Decoded header block with 32 bytes for each field (RFC 9113, 6.5.2): room for a big token."""
    max_continuations: int = 16
    """CONTINUATION frames in one block (CVE-2024-27316)."""
    max_streams: int = 1024
    """Streams open at once, announced as MAX_CONCURRENT_STREAMS by the server role."""
    max_settings: int = 32
    """Entries in one SETTINGS frame (CVE-2020-11080). There are seven in the RFC."""
    max_control_backlog: int = 512 << 10
    """Answers (heads, trailers, acks, resets, credit) that wait because the peer does not read.
    Head and trailers of `max_streams` calls fit twice."""
    resets_burst: int = 1000
    resets_per_second: float = 200.0
    """Streams ended by RST_STREAM, the peer's or ours (CVE-2023-44487, CVE-2025-8671)."""
    control_burst: int = 500
    control_per_second: float = 50.0
    """SETTINGS, PING, PRIORITY, GOAWAY and unknown frames: each is answered or parsed for nothing.
    Pings that follow content of ours are free: peers measure their bandwidth with them."""
    empty_burst: int = 1000
    empty_per_second: float = 100.0
    """DATA and HEADERS frames without content that do not end a stream."""

    def __post_init__(self) -> None:
        """Refuse what the protocol does not allow us to announce.

        Raises:
            ValueError: a bug of the caller.
        """
        for name, least, most in (
            ("stream_window", 1, frames.MAX_WINDOW),
            ("connection_window", frames.DEFAULT_WINDOW, frames.MAX_WINDOW),
            ("max_frame_size", frames.DEFAULT_FRAME_SIZE, frames.LARGEST_FRAME_SIZE),
        ):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} of {getattr(self, name)} is not in {least} to {most}")


class Bucket:
    """A token bucket: `burst` at once, then `rate` a second. The caller brings the clock."""

    __slots__ = ("_burst", "_level", "_rate", "_then")

    def __init__(self, burst: float, rate: float) -> None:
        self._burst = burst
        self._rate = rate
        self._level = burst
        self._then = 0.0

    def take(self, now: float) -> bool:
        """Whether one more is within the limit; `now` in seconds of any steady clock."""
        if now > self._then:
            self._level = min(self._burst, self._level + (now - self._then) * self._rate)
            self._then = now
        self._level -= 1
        return self._level >= 0
