"""Credit of one direction of HTTP/2 flow control (RFC 9113, 5.2 and 6.9).

`ReceiveWindow` is what we granted to the peer: it shrinks with each DATA frame and is topped up
once half of it has been consumed, so that WINDOW_UPDATE frames stay few.
"""

from __future__ import annotations


class ReceiveWindow:
    """What the peer may still send, for one stream or for the connection. All sizes in bytes."""

    __slots__ = ("_owed", "available", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._owed = 0
        self.available = size

    def allow(self, size: int) -> None:
        """Bear with `size` bytes from a peer that has not read our SETTINGS yet (6.9.3)."""
        self.available = max(self.available, size)

    def widen(self, increment: int) -> None:
        """Grant `increment` bytes more, for good; the caller announces them."""
        self.size += increment
        self.available += increment

    def take(self, size: int) -> bool:
        """Count `size` received bytes, padding included; False when the peer overdrew."""
        self.available -= size
        return self.available >= 0

    def consume(self, size: int) -> int:
        """Give back `size` consumed bytes; the increment to announce now, or 0."""
        self._owed += size
        if self._owed * 2 < self.size:
            return 0
        increment, self._owed = self._owed, 0
        self.available += increment
        return increment
