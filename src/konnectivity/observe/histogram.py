"""Histograms of durations, for the metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Final, Self

TUNNEL_BOUNDS: Final = (1, 5, 15, 30, 60, 300, 900, 1800, 3600, 14400, 43200, 86400)
"""Upper bounds for how long tunnels last, seconds; upstream's."""


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

    def with_zeros(self, count: int) -> Self:
        """A copy to which `count` durations of no time at all were added."""
        copy = type(self)(self.bounds)
        copy.sum = self.sum
        copy._counts = [self._counts[0] + count, *self._counts[1:]]
        return copy

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


class RequestCounts:
    """Counts requests to an API by the status of their answers, and how long these took."""

    __slots__ = ("_bounds", "seconds", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.total: Counter[tuple[str, str]] = Counter()
        """By HTTP status and the API's reason, which is empty for success."""
        self.seconds: dict[str, Histogram] = {}
        """By HTTP status."""
        self._bounds = bounds

    def observe(self, seconds: float, *, status: int = 200, reason: str = "") -> None:
        """Count one answer. What had no answer at all has no status, and is not counted."""
        self.total[str(status), reason] += 1
        self.seconds.setdefault(str(status), Histogram(self._bounds)).observe(seconds)
