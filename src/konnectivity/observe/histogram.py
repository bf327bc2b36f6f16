"""A histogram of durations, for the metrics."""

from __future__ import annotations

from bisect import bisect_left


class Histogram:
    """Counts durations (seconds) by upper bound; cheap to feed, cumulative when read."""

    __slots__ = ("_counts", "bounds", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.sum += seconds
        self._counts[bisect_left(self.bounds, seconds)] += 1

    @property
    def total(self) -> int:
        """How many were counted."""
        return sum(self._counts)

    def buckets(self) -> list[tuple[float, int]]:
        """For each bound, how many lasted no longer; the last bound is infinity."""
        running = 0
        out = []
        for bound, count in zip((*self.bounds, float("inf")), self._counts, strict=True):
            running += count
            out.append((bound, running))
        return out
