"""The receiving side of one tunnel: hands bytes to a socket that may be slow, never waits.

While the sink keeps up, credit goes back to the peer at once. While it does not, credit is
withheld: a peer of our own stops, and its endpoint's or frontend's socket with it. A stock peer
knows no credit; what it sends is held, and the peer is slowed a little (`Throttling`), up to the
limits, then this one tunnel ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from konnectivity.tunnel.budget import Budget, TunnelLimits

STREAM_GRANT: Final = 8 << 10
"""Bytes from which on a stream hears what its reader took; a first window is eight times that."""
WORTH_A_VIEW: Final = 16 << 10
"""Bytes from which on a view is passed on as it is: it keeps all that was read together with it,
up to 256 KiB, for as long as the sink keeps the view."""


class Sink(Protocol):
    """Where a tunnel's bytes go: a frontend or an endpoint, as the shell offers it."""

    @property
    def slow(self) -> bool:
        """Whether written bytes pile up; `Intake.caught_up` is called when that is over."""

    @property
    def unsent(self) -> int:
        """Bytes written and not yet taken by the other side's socket."""

    def write(self, data: bytes | memoryview) -> None:
        """Take `data`, which does not change any more. Never blocks."""


class Throttling(Protocol):
    """Who slows a peer that knows no credit, as the shell offers it."""

    def hold(self, intake: Intake) -> None:
        """`intake` is behind, and more came for it."""

    def drop(self, intake: Intake) -> None:
        """It no longer is."""


class Overflowing(Protocol):
    """The tunnel of an intake."""

    def overflow(self) -> None:
        """End, because the sink is too slow."""


class Intake:
    """Counts what one sink has taken, on behalf of its tunnel."""

    __slots__ = (
        "_budget",
        "_grant",
        "_grant_from",
        "_held",
        "_limits",
        "_most",
        "_owed",
        "_throttle",
        "_tunnel",
        "bytes",
        "sink",
    )

    def __init__(
        self,
        sink: Sink,
        *,
        limits: TunnelLimits,
        budget: Budget,
        grant: Callable[[int], None] | None,
        tunnel: Overflowing,
        throttle: Throttling | None = None,
        streamed: bool = False,
    ) -> None:
        """With `streamed`, `grant` itself saves up what is granted, and no peer can overdraw."""
        self.sink = sink
        self._throttle = throttle
        self._tunnel: Overflowing | None = tunnel
        self.bytes = 0
        """Passed on so far."""
        self._limits = limits
        self._budget = budget
        self._grant = grant
        self._grant_from = STREAM_GRANT if streamed else (limits.credit + 3) // 4
        # A peer that honours credit cannot pass `credit` plus one chunk; a cheat can.
        self._most = limits.queue if grant is None or streamed else limits.credit * 2
        self._owed = 0
        self._held = 0

    def take(self, data: bytes | memoryview) -> bool:
        """Pass `data` on; False when the tunnel must end because too much is held.

        Other tunnels may end, too, to make room for this one.
        """
        sink, size = self.sink, len(data)
        self.bytes += size
        if size < WORTH_A_VIEW:
            data = bytes(data)
        sink.write(data)
        if sink.slow:
            self._owed += size
            return self._hold()
        if self._grant is not None:
            self._owed += size
            if self._owed >= self._grant_from:
                owed, self._owed = self._owed, 0
                self._grant(owed)
        return True

    @property
    def unsent(self) -> int:
        """Bytes that the sink has not taken."""
        return self.sink.unsent

    def _hold(self) -> bool:
        unsent = self.sink.unsent
        self._hold_now(unsent)
        if self._throttle is not None and unsent > self._limits.throttle:
            self._throttle.hold(self)
        budget = self._budget
        if unsent <= self._most and (budget.held <= budget.limit or budget.make_room(self)):
            return True
        budget.overflows += 1
        return False

    def _hold_now(self, size: int) -> None:
        before = self._held
        if size != before:
            self._held = size
            self._budget.change(self, size, before)

    def evict(self) -> None:
        """The process needs what this tunnel holds."""
        if self._tunnel is not None:
            self._tunnel.overflow()
        self.release()

    def caught_up(self) -> None:
        """The sink has room again: let the peer go on."""
        self._hold_now(0)
        if self._throttle is not None:
            self._throttle.drop(self)
        owed, self._owed = self._owed, 0
        if owed and self._grant is not None:
            self._grant(owed)

    def release(self) -> None:
        """The tunnel is over: nothing is held on its behalf any more."""
        self._hold_now(0)
        if self._throttle is not None:
            self._throttle.drop(self)
            self._throttle = None
        self._grant = None
        self._tunnel = None
