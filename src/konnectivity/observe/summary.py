"""Repeated messages told as one: the first at once, those after it as a count.

A fault that comes with each dial would otherwise write a line for each dial. Nothing is written
here: who asks tells of the first one, and is called when the repeats are due. For the event
loop's thread only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # the command line's help does without
    from asyncio import AbstractEventLoop, TimerHandle

MAX_KEYS: Final = 256
"""Keys that are remembered at once; the names of agents may be among them."""

Tell = Callable[[int, float], object]
"""Called with the number of repeats and the seconds in which they came."""


class Summary:
    """Which messages are repeats, and how many there were."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._running: dict[Hashable, Series] = {}

    def first(self, key: Hashable, default: Hashable, every: float) -> Series | None:
        """The series that this occurrence of `key` begins; None: it is a repeat, and counted.

        The caller tells of the first one and sets the series' `tell`. `default` is a key from a
        small set that takes the place of `key` when too many are remembered.
        """
        if key not in self._running and len(self._running) >= MAX_KEYS:
            key = default
        series = self._running.get(key)
        if series is not None:
            if series.takes_one_more():
                return None
            series.end()
        series = Series(every, self._now, lambda: self._running.pop(key, None))
        self._running[key] = series
        return series

    def flush(self) -> None:
        """Tell what was counted so far, and forget it."""
        running, self._running = self._running, {}
        for series in running.values():
            series.end()


class Series:
    """The repeats of one key.

    `tell` hears of them after `every` seconds, and again for as long as there are some. An
    interval without any is the end. Outside of an event loop there is no timer, and `tell` is
    called by the first occurrence after the interval.
    """

    __slots__ = ("_count", "_ended", "_every", "_loop", "_now", "_since", "_timer", "tell")

    def __init__(self, every: float, now: Callable[[], float], ended: Callable[[], object]) -> None:
        self.tell: Tell = lambda _count, _seconds: None
        self._every = every
        self._now = now
        self._ended = ended
        self._count = 0
        self._since = now()
        self._timer: TimerHandle | None = None
        self._loop = _running_loop()
        self._arm()

    def takes_one_more(self) -> bool:
        """Count a repeat; False: it comes too late, the series is over."""
        if self._loop is None:
            current = self._now() - self._since < self._every
        else:
            current = not self._loop.is_closed()  # else its timer never fires
        self._count += current
        return current

    def end(self) -> None:
        """Tell what is counted; there is no further interval."""
        if self._timer is not None and self._loop is not None and not self._loop.is_closed():
            self._timer.cancel()
        self._report()

    def _arm(self) -> None:
        if self._loop is not None:
            self._timer = self._loop.call_later(self._every, self._expire)

    def _expire(self) -> None:
        if not self._count:
            self._ended()
            return
        self._report()
        self._arm()

    def _report(self) -> None:
        count, seconds = self._count, self._now() - self._since
        self._count, self._since = 0, self._now()
        if count:
            self.tell(count, seconds)


def _running_loop() -> AbstractEventLoop | None:
    from asyncio import get_running_loop  # who runs a loop has loaded it

    try:
        return get_running_loop()
    except RuntimeError:
        return None
