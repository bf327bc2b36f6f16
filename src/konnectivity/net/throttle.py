"""Slows a peer that knows no credit for a reader that is slow but reads, a moment at a time.

A stock peer cannot be asked to hold one tunnel back, only all of them, by not reading its call.
That is done here when a tunnel has fallen behind, until it has caught up a little, and never
longer than `LONGEST`: enough for a `kubectl cp` over a slow line to arrive whole, and too short for
a keystroke in another tunnel to be missed (W6). A reader that takes nothing in that time has
stalled; nobody waits for it again, and its tunnel ends when too much is held for it.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from konnectivity.tunnel.intake import Intake

LOOK: Final = 0.01
"""Seconds between looks at those that are behind."""
LONGEST: Final = 0.25
"""Seconds that a call is not read at most, at a stretch."""
CATCH_UP: Final = 512 << 10
"""Bytes that one that is behind is to take, about what comes in as soon as the call is read."""


class Pausable(Protocol):
    """A call, as `net/grpc.py` has it."""

    def pause_reading(self) -> None:
        """Give no more credit for what comes in."""

    def resume_reading(self) -> None:
        """Give the credit that was withheld."""


class Throttle:
    """Holds one call back for the tunnels on it. `close` it with the call."""

    def __init__(self, call: Pausable) -> None:
        self.times = 0
        """How often the call was held back."""
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._behind: dict[Intake, int] = {}
        """Who is waited for, and what was held for it at first."""
        self._stalled: set[Intake] = set()
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def hold(self, intake: Intake) -> None:
        """Something more came in for a tunnel that is behind."""
        if intake in self._stalled or intake in self._behind:
            return
        self._behind[intake] = intake.unsent
        if self._timer is None:
            self.times += 1
            self._since = self._loop.time()
            self._call.pause_reading()
            self._timer = self._loop.call_later(LOOK, self._look)

    def drop(self, intake: Intake) -> None:
        """It has caught up, or is over."""
        self._behind.pop(intake, None)
        self._stalled.discard(intake)

    def _look(self) -> None:
        late = self._loop.time() - self._since >= LONGEST
        for intake, before in list(self._behind.items()):
            taken = before - intake.unsent
            if taken >= CATCH_UP or late:
                del self._behind[intake]
                if taken <= 0:
                    self._stalled.add(intake)
        if self._behind:
            self._timer = self._loop.call_later(LOOK, self._look)
        else:
            self._timer = None
            self._call.resume_reading()

    def close(self) -> None:
        """The call is over."""
        self._behind.clear()
        self._stalled.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
