"""When one object may be written again: after failures, and when somebody keeps undoing it.

An object that is damaged within a second of being mended, several times running, is contested: a
program does that, not a person. Mending it at once each time would make both run as fast as they
can. Pure; the time is an argument.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from konnectivity.net.backoff import Backoff


@dataclass(frozen=True, slots=True)
class PaceLimits:
    """Times in seconds."""

    first_wait: float = 0.2
    longest_wait: float = 60.0
    """After failures."""
    quick: float = 1.0
    """Damage that comes sooner than this after the mending counts as somebody's answer to it."""
    patience: int = 5
    """So often running it is mended at once all the same."""
    longest_truce: float = 300.0
    """Between mendings of an object that is contested."""
    memory: float = 600.0
    many: int = 10
    """Mendings within `memory` that are worth a word, however slow."""


LIMITS: Final = PaceLimits()


class Pace:
    """The waits of one object."""

    def __init__(self, limits: PaceLimits = LIMITS) -> None:
        self.due = 0.0
        """Not before this time."""
        self.noticed = 0.0
        """When the damage was noticed that is not yet mended; 0: there is none."""
        self._limits = limits
        self._failures = Backoff(limits.first_wait, limits.longest_wait, jitter=0.5)
        self._mended: deque[float] = deque(maxlen=limits.many)
        self._quick = 0
        self._many_told = float("-inf")

    def damaged(self, now: float) -> str:
        """Note that the object must be written; say so if it is contested, else nothing."""
        if self.noticed:
            return ""
        self.noticed = now
        if not self._mended:
            return ""
        limits = self._limits
        lived = now - self._mended[-1]
        self._quick = self._quick + 1 if lived < limits.quick else 0
        if self._quick > limits.patience:
            truce = min(2.0 ** (self._quick - limits.patience - 1), limits.longest_truce)
            self.due = now + truce
            return f"{self._quick} times running within {limits.quick:g} s; waiting {truce:g} s"
        return self._often(now)

    def _often(self, now: float) -> str:
        limits, oldest = self._limits, self._mended[0]
        often = len(self._mended) == limits.many and now - oldest < limits.memory
        if not often or now - self._many_told < limits.memory:
            return ""
        self._many_told = now
        return f"{limits.many} times within {now - oldest:.0f} s"

    def mended(self, now: float) -> None:
        """The object is written, and that changed it."""
        self._mended.append(now)
        self.settled()

    def settled(self) -> None:
        """There is nothing to do any more."""
        self.noticed = self.due = 0.0
        self._failures.reset()

    def failed(self, now: float) -> float:
        """Return the seconds to wait after one more failure."""
        wait = self._failures.next()
        self.due = now + wait
        return wait
