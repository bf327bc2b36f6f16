"""What the server counts. Plain integers: the metrics read them when they are scraped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from konnectivity.observe.histogram import Histogram


@dataclass(slots=True)
class ServerCounters:
    """Counts of one server process."""

    dial_failures: Counter[str] = field(default_factory=Counter)
    """By reason (`Failure`)."""
    dial_seconds: Histogram = field(
        default_factory=lambda: Histogram((1e-6, 1e-5, 1e-4, 0.005, 0.025, 0.1, 0.5, 2.5, 12.5))
    )
    tunnels_ended: Counter[str] = field(default_factory=Counter)
    """By `Reason`."""
    open_calls: Counter[str] = field(default_factory=Counter)
    """`Proxy` and `Connect` calls under way."""
    http_connections: int = 0
    pending_dials: int = 0
    established: int = 0
