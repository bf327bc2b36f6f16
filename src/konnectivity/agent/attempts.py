"""What became of attempts to reach servers; the last failure at each target, for the heartbeat."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

MOST_TARGETS: Final = 16


class Outcome(Enum):
    """What an attempt has come to: one more link, a server that needs none, or nowhere."""

    MADE = auto()
    MET_AGAIN = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """The last failure at a target; `times` counts all since one succeeded. `at` is Unix time."""

    target: str
    stage: str
    error: str
    at: float
    times: int


class Attempts:
    """The targets where attempts fail. Bounded: the one that was tried longest ago makes room."""

    def __init__(self) -> None:
        self.met_again = 0
        """Attempts that led to a server that was connected already."""
        self._failed: OrderedDict[str, FailedAttempt] = OrderedDict()

    @property
    def failed(self) -> list[FailedAttempt]:
        """The last failures, newest first."""
        return list(reversed(self._failed.values()))

    def fail(self, target: str, stage: str, error: str) -> bool:
        """Remember a failure; whether it is news: of another stage than before, or the first."""
        before = self._failed.pop(target, None)
        times = before.times + 1 if before else 1
        self._failed[target] = FailedAttempt(target, stage, error, time.time(), times)
        while len(self._failed) > MOST_TARGETS:
            self._failed.popitem(last=False)
        return before is None or before.stage != stage

    def succeed(self, target: str) -> None:
        """An attempt has led to one more server."""
        self._failed.pop(target, None)
