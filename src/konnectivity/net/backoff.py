"""Waits that grow from try to try, up to a bound, with jitter so that many do not try in step."""

from __future__ import annotations

import random


class Backoff:
    """Seconds to wait before the next try.

    They begin with `first` and grow by `factor` up to `cap`; each is lengthened by a random part,
    at most `jitter` of it.
    """

    __slots__ = ("_cap", "_factor", "_first", "_jitter", "_next")

    def __init__(
        self, first: float, cap: float, *, factor: float = 2.0, jitter: float = 0.1
    ) -> None:
        self._first = first
        self._cap = cap
        self._factor = factor
        self._jitter = jitter
        self._next = first

    def next(self) -> float:
        """The wait after one more try in vain."""
        wait = self._next
        self._next = min(wait * self._factor, self._cap)
        return lengthened(wait, self._jitter)

    def reset(self) -> None:
        """Begin anew."""
        self._next = self._first


def lengthened(seconds: float, jitter: float) -> float:
    """`seconds` and up to `jitter` of it more."""
    return seconds * (1 + random.random() * jitter)  # noqa: S311 - nothing secret
