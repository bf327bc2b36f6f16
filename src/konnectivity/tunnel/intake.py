"""The receiving side of one tunnel: hands bytes to a socket that may be slow, never waits.

While the sink keeps up, credit goes back to the peer at once. While it does not, credit is
withheld: a peer of our own stops, and its endpoint's or frontend's socket with it. A stock peer
knows no credit; what it sends is held up to the limits, then this one tunnel ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from konnectivity.tunnel.budget import Budget, TunnelLimits


class Sink(Protocol):
    """Where a tunnel's bytes go: a frontend or an endpoint, as the shell offers it."""

    @property
    def slow(self) -> bool:
        """Whether written bytes pile up; `Intake.caught_up` is called when that is over."""

    @property
    def unsent(self) -> int:
        """Bytes written and not yet taken by the other side's socket."""

    def write(self, data: bytes) -> None:
        """Take `data`. Never blocks."""


class Intake:
    """Counts what one sink has taken, on behalf of its tunnel."""

    __slots__ = ("_budget", "_grant", "_held", "_limits", "_owed", "sink")

    def __init__(
        self,
        sink: Sink,
        *,
        limits: TunnelLimits,
        budget: Budget,
        grant: Callable[[int], None] | None,
    ) -> None:
        self.sink = sink
        self._limits = limits
        self._budget = budget
        self._grant = grant
        self._owed = 0
        self._held = 0

    def take(self, data: bytes) -> bool:
        """Pass `data` on; False when the tunnel must end because too much is held."""
        sink = self.sink
        sink.write(data)
        if sink.slow:
            self._owed += len(data)
            return self._hold()
        if self._grant is not None:
            self._owed += len(data)
            if self._owed * 4 >= self._limits.credit:
                owed, self._owed = self._owed, 0
                self._grant(owed)
        return True

    def _hold(self) -> bool:
        unsent = self.sink.unsent
        self._budget.change(unsent - self._held)
        self._held = unsent
        # A peer that honours credit cannot pass `credit` plus one chunk; a cheat can.
        limit = self._limits.queue if self._grant is None else self._limits.credit * 2
        if unsent <= limit and not self._budget.spent:
            return True
        self._budget.overflows += 1
        return False

    def caught_up(self) -> None:
        """The sink has room again: let the peer go on."""
        self._budget.change(-self._held)
        self._held = 0
        owed, self._owed = self._owed, 0
        if owed and self._grant is not None:
            self._grant(owed)

    def release(self) -> None:
        """The tunnel is over: nothing is held on its behalf any more."""
        self._budget.change(-self._held)
        self._held = 0
        self._grant = None
