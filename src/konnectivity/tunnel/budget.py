"""Memory that slow readers hold, in bytes, bounded for each tunnel and for the process (W34).

When the process has no more to give, the tunnel that has been held up longest pays for it: a
reader that stalls must not cost one that was slow for a moment its tunnel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TunnelLimits:
    """Bounds of tunnels, in bytes unless said otherwise."""

    credit: int = 1 << 20
    """What a tunnel of our own peer may have under way before its reader has taken any."""
    queue: int = 16 << 20
    """What one tunnel may hold for a slow reader when the peer knows no credit: then it ends."""
    throttle: int = 4 << 20
    """Above this the peer that knows no credit is slowed, a moment at a time."""
    process: int = 256 << 20
    """The same for all tunnels of the process together."""
    pending_dials: int = 4096
    """Dials under way over one connection between agent and server (a count)."""
    dials: int = 0
    """Dials under way at a server, through all agents (a count); 0: any number."""
    tunnels: int = 0
    """Tunnels and dials of a server (a count); 0: any number."""
    packet: int = 64 << 10
    """Largest payload put into one DATA packet; larger writes of a frontend are split."""


class Holder(Protocol):
    """A tunnel's share of the budget."""

    def evict(self) -> None:
        """End the tunnel and release what it holds."""


class Budget:
    """The sum of what all tunnels of this process hold back."""

    __slots__ = ("_holders", "held", "limit", "overflows")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.overflows = 0
        self._holders: dict[Holder, None] = {}
        """Who holds something, the longest first."""

    def change(self, holder: Holder, held: int, before: int) -> None:
        """`holder` holds so many bytes now, and held so many before."""
        self.held += held - before
        if not before:
            self._holders[holder] = None
        elif not held:
            self._holders.pop(holder, None)

    def make_room(self, asking: Holder) -> bool:
        """Evict the longest holders until the limit is kept; False: `asking` must go itself."""
        while self.held > self.limit:
            oldest = next(iter(self._holders), asking)
            if oldest is asking:
                return False
            del self._holders[oldest]
            self.overflows += 1
            oldest.evict()
        return True
