"""What happens in a second, from two looks at the same servers: bytes, dials, failures. Pure.

Counters of a connection begin anew when it does, so only those that both looks have are compared;
a new one counts from its beginning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from konnectivity.diagnose.facts import Facts, ServerFacts
from konnectivity.observe.status import Peer, Tunnel


@dataclass(slots=True)
class AgentRate:
    """One agent over all servers; `up` and `down` in bytes a second, `dials` and `failed` a second.

    `servers` are those that it is connected to, `round_trip` the longest of them in seconds.
    """

    id: str
    servers: int = 0
    round_trip: float | None = None
    draining: bool = False
    tunnels: int = 0
    up: float = 0.0
    down: float = 0.0
    dials: float = 0.0
    failed: float = 0.0

    @property
    def traffic(self) -> float:
        return self.up + self.down


@dataclass(frozen=True, slots=True)
class TunnelRate:
    """One tunnel, in bytes a second, and how long it has been in its state."""

    server: str
    agent: str
    destination: str
    state: str
    seconds: float
    up: float
    down: float
    total: int


def agent_rates(before: Facts | None, now: Facts) -> list[AgentRate]:
    """All agents that a server sees."""
    seconds = _between(before, now)
    known = dict(_peers(before)) if before else {}
    found: dict[str, AgentRate] = {}
    for key, peer in _peers(now):
        rate = found.setdefault(peer.id, AgentRate(peer.id))
        rate.servers += 1
        rate.draining = rate.draining or peer.draining
        rate.tunnels += peer.tunnels.open
        if peer.round_trip is not None:
            rate.round_trip = max(rate.round_trip or 0.0, peer.round_trip)
        old = known.get(key)
        if seconds:
            rate.up += max(0, peer.traffic.up - (old.traffic.up if old else 0)) / seconds
            rate.down += max(0, peer.traffic.down - (old.traffic.down if old else 0)) / seconds
            rate.dials += max(0, peer.dials - (old.dials if old else 0)) / seconds
            rate.failed += max(0, peer.dials_failed - (old.dials_failed if old else 0)) / seconds
    return list(found.values())


def tunnel_rates(before: Facts | None, now: Facts) -> list[TunnelRate]:
    """The tunnels that servers list, the busiest first."""
    seconds = _between(before, now)
    known = dict(_tunnels(before)) if before else {}
    found = []
    for (server, number), tunnel in _tunnels(now):
        old = known.get((server, number)) if seconds else None
        up = (tunnel.traffic.up - old.traffic.up) / seconds if old else 0.0
        down = (tunnel.traffic.down - old.traffic.down) / seconds if old else 0.0
        found.append(
            TunnelRate(
                server=server,
                agent=tunnel.peer,
                destination=tunnel.destination,
                state=tunnel.state,
                seconds=max(0.0, now.taken_at - tunnel.since),
                up=max(0.0, up),
                down=max(0.0, down),
                total=tunnel.traffic.up + tunnel.traffic.down,
            )
        )
    return sorted(found, key=lambda each: (-(each.up + each.down), -each.total))


def dial_rate(before: ServerFacts | None, now: ServerFacts, seconds: float) -> tuple[float, float]:
    """Dials of a server that ended and, of these, failed, a second."""
    old, new = before.status if before else None, now.status
    if old is None or new is None or not seconds or old.server.started_at != new.server.started_at:
        return 0.0, 0.0
    failed = sum(new.dials.failed.values()) - sum(old.dials.failed.values())
    succeeded = new.dials.succeeded - old.dials.succeeded
    return max(0, failed + succeeded) / seconds, max(0, failed) / seconds


def _between(before: Facts | None, now: Facts) -> float:
    return max(0.0, now.taken_at - before.taken_at) if before else 0.0


def _peers(facts: Facts) -> Iterator[tuple[Any, Peer]]:
    for agent in facts.agents:
        for server, peers in agent.seen.items():
            for peer in peers:
                yield (server, peer.id, peer.connected_since), peer


def _tunnels(facts: Facts) -> Iterator[tuple[tuple[str, int], Tunnel]]:
    for server in facts.servers:
        for tunnel in server.status.tunnels if server.status else ():
            yield (server.name, tunnel.id), tunnel
