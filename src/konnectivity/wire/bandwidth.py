"""How wide a connection's receive windows should be: from bandwidth and the shortest round trip.

A window holds what is under way. Too narrow, and a distant peer waits for credit; too wide, and a
near one piles up data in front of every small packet. So it grows only while the peer fills it
within a round trip that is not much longer than the shortest seen: then it is distance that fills
it, not a queue. Round trips are measured by PINGs sent while data flows.

Source: the idea of grpc-go's `bdpEstimator`; differs: that one looks at bandwidth alone and grows
to 16 MiB on a fast loopback, where the data then queues.
"""

from __future__ import annotations

from typing import Final

QUEUEING: Final = 2.0
"""A round trip beyond this many times the shortest one is taken to wait in a queue."""
USED: Final = 0.66
"""The part of the window that must arrive within one round trip to call it filled."""
REST: Final = 32
"""Windows that arrive between a measurement that changed nothing and the next."""


class WindowTuner:
    """Watches one connection's incoming bytes. Sizes in bytes, times in seconds."""

    __slots__ = ("_arrived", "_largest", "_probe_at", "_rest", "_shortest", "window")

    def __init__(self, window: int, *, largest: int) -> None:
        self.window = window
        self._largest = largest
        self._shortest = float("inf")
        self._arrived = 0
        self._rest = window // 4  # bytes until the next measurement
        self._probe_at: float | None = None

    def received(self, size: int, now: float) -> bool:
        """Count arriving bytes; True asks for a PING to be sent now."""
        self._arrived += size
        if self._probe_at is not None or self.window >= self._largest:
            return False
        if self._arrived < self._rest:
            return False
        self._probe_at = now
        self._arrived = 0
        return True

    def acknowledged(self, now: float) -> int:
        """The PING came back: by how much to widen the windows, 0 for not at all."""
        if self._probe_at is None:
            return 0
        trip = now - self._probe_at
        self._probe_at = None
        arrived, self._arrived = self._arrived, 0
        self._shortest = min(self._shortest, trip)
        self._rest = self.window * REST
        if arrived < self.window * USED or trip > self._shortest * QUEUEING:
            return 0
        wider = min(self.window * 2, self._largest)
        increment, self.window = wider - self.window, wider
        self._rest = 0
        return increment
