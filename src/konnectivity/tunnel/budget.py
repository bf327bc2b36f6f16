"""Memory that slow readers hold, in bytes, bounded for each tunnel and for the process (W34)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TunnelLimits:
    """Bounds of tunnels, in bytes unless said otherwise."""

    credit: int = 1 << 20
    """What a tunnel of our own peer may have under way before its reader has taken any."""
    queue: int = 16 << 20
    """What one tunnel may hold for a slow reader when the peer knows no credit: then it ends."""
    process: int = 256 << 20
    """The same for all tunnels of the process together."""
    pending_dials: int = 4096
    """Dials under way over one connection between agent and server (a count)."""
    packet: int = 64 << 10
    """Largest payload put into one DATA packet; larger writes of a frontend are split."""


class Budget:
    """The sum of what all tunnels of this process hold back."""

    __slots__ = ("held", "limit", "overflows")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.overflows = 0

    def change(self, delta: int) -> None:
        """A tunnel holds `delta` bytes more, or fewer."""
        self.held += delta

    @property
    def spent(self) -> bool:
        """Whether nothing more may be held."""
        return self.held > self.limit
