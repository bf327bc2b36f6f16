"""What the agent counts. Plain integers: the metrics read them when they are scraped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from konnectivity.observe.histogram import Histogram


@dataclass(slots=True)
class AgentCounters:
    """Counts of one agent process."""

    dial_failures: Counter[str] = field(default_factory=Counter)
    """By reason (`DialError.reason`)."""
    dial_seconds: Histogram = field(
        default_factory=lambda: Histogram((0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 30.0))
    )
    link_failures: Counter[str] = field(default_factory=Counter)
    """Failed connection attempts by stage (`LinkError.stage`)."""
    packets_sent: Counter[int] = field(default_factory=Counter)
    packets_received: Counter[int] = field(default_factory=Counter)
    """Of links that are gone; those of live links stand in their carriers."""
    known_servers: int = 0
