"""Credit of one direction of HTTP/2 flow control (RFC 9113, 5.2 and 6.9).

`ReceiveWindow` is what we granted to the peer: it shrinks with each DATA frame and is topped up
once half of it has been consumed, so that WINDOW_UPDATE frames stay few. `GrowingWindow` is that of
a tunnel: what it may grow to comes from a pool for the whole process.
"""

from __future__ import annotations

from typing import Final

FAST: Final = 1.0
"""Seconds within which half a window is consumed to call its reader fast: longer than any round
trip, and so short that a window holds no more than two seconds of what it is for."""


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


class WindowPool:
    """What all tunnels of a process may have beyond their first windows, in bytes."""

    __slots__ = ("free",)

    def __init__(self, free: int) -> None:
        self.free = free


class GrowingWindow(ReceiveWindow):
    """One tunnel's window: it doubles while its reader is fast; a stalled one stays small."""

    __slots__ = ("_grown", "_half_at", "_pool")

    def __init__(self, size: int, pool: WindowPool) -> None:
        super().__init__(size)
        self._pool = pool
        self._grown = 0
        self._half_at = float("-inf")

    def grow(self, now: float, *, largest: int) -> int:
        """Half of it was consumed: by how much it grew, to be announced; 0: not at all."""
        before, self._half_at = self._half_at, now
        increment = min(self.size, largest - self.size)
        if now - before > FAST or increment <= 0 or increment > self._pool.free:
            return 0
        self._pool.free -= increment
        self._grown += increment
        self.widen(increment)
        return increment

    def close(self) -> None:
        """Give back what it took from the pool."""
        self._pool.free += self._grown
        self._grown = 0
