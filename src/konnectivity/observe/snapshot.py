"""Peers and tunnels of a process for its status, from the journal and the live carriers.

Taken in slices, so that a thousand agents cost no tunnel more than a few milliseconds' wait. What
changes meanwhile is seen before or after; nothing is seen twice.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol, cast

from konnectivity.observe.journal import Journal, PeerRecord
from konnectivity.observe.process import open_descriptors
from konnectivity.observe.status import Limit, Peer, Time, Traffic, Tunnel, TunnelCounts
from konnectivity.observe.status_json import SLICE
from konnectivity.tunnel.agent import AgentTunnel
from konnectivity.tunnel.server import ServerTunnel

AnyTunnel = AgentTunnel | ServerTunnel


class Carrier(Protocol):
    """What carries the tunnels of one peer, on either side."""

    @property
    def pending(self) -> Mapping[int, AnyTunnel]:
        """Dials under way."""

    @property
    def tunnels(self) -> Mapping[int, AnyTunnel]:
        """Those that were opened."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What only one side knows of its peer."""

    draining: bool = False
    identifiers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class Snapshot:
    """All peers, and at most so many tunnels as were asked for, oldest first."""

    peers: list[Peer] = field(default_factory=list)
    tunnels: list[Tunnel] = field(default_factory=list)
    counts: TunnelCounts = field(default_factory=TunnelCounts)


async def take(
    journal: Journal, *, most: int, traits: Callable[[object], Traits], loop_time: float
) -> Snapshot:
    """Look at every peer, in a stable order; `loop_time` is now on the clock of the tunnels."""
    offset = time.time() - loop_time
    snapshot = Snapshot()
    found: list[tuple[AnyTunnel, PeerRecord]] = []
    seen = 0
    for key, record in sorted(journal.peers.items(), key=lambda each: (each[1].id, each[1].since)):
        carrier = cast(Carrier, key)
        counts, traffic = _sum(carrier)
        snapshot.peers.append(_peer(record, traits(key), counts, traffic))
        snapshot.counts = _added(snapshot.counts, counts)
        if most:
            oldest = chain(carrier.tunnels.values(), carrier.pending.values())
            found += [(tunnel, record) for tunnel, _ in zip(oldest, range(most), strict=False)]
        seen += 1 + len(carrier.tunnels) // SLICE
        if seen >= SLICE:
            seen = 0
            await asyncio.sleep(0)
    found.sort(key=lambda each: each[0].number)
    for start in range(0, min(most, len(found)), SLICE):
        listed = found[start : min(start + SLICE, most)]
        snapshot.tunnels += [_tunnel(tunnel, record, offset) for tunnel, record in listed]
        await asyncio.sleep(0)
    return snapshot


def descriptors() -> Limit:
    """File descriptors, of which each tunnel takes one."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = most == resource.RLIM_INFINITY
    return Limit("descriptors", open_descriptors() or 0, None if unlimited else most)


def _sum(carrier: Carrier) -> tuple[TunnelCounts, Traffic]:
    """Tunnels of one peer by state, and the bytes of those that are open."""
    open_ = up = down = 0
    for tunnel in carrier.tunnels.values():
        if tunnel.state.value == "open":
            open_ += 1
            sent, received = tunnel.traffic
            up += sent
            down += received
    closing = len(carrier.tunnels) - open_
    return TunnelCounts(len(carrier.pending), open_, closing), Traffic(up, down)


def _added(one: TunnelCounts, other: TunnelCounts) -> TunnelCounts:
    return TunnelCounts(
        one.dialing + other.dialing, one.open + other.open, one.closing + other.closing
    )


def _peer(record: PeerRecord, traits: Traits, counts: TunnelCounts, traffic: Traffic) -> Peer:
    round_trip = record.measure()
    return Peer(
        id=record.id,
        software=record.software,
        version=record.version,
        address=record.address,
        connected_since=Time(record.since),
        identifiers=traits.identifiers,
        certificate=record.certificate,
        round_trip=None if round_trip is None else round(round_trip, 6),
        draining=traits.draining,
        credit=record.credit,
        streams=record.streams,
        tunnels=counts,
        traffic=Traffic(record.up + traffic.up, record.down + traffic.down),
        dials=record.dials,
        dials_failed=record.failed,
    )


def _tunnel(tunnel: AnyTunnel, record: PeerRecord, offset: float) -> Tunnel:
    frontend = tunnel.frontend if isinstance(tunnel, ServerTunnel) else None
    state = tunnel.state.value
    up, down = tunnel.traffic
    return Tunnel(
        id=tunnel.number,
        peer=record.id,
        destination=tunnel.address,
        mode=getattr(frontend, "mode", ""),
        frontend=getattr(frontend, "peer", ""),
        # Closed on this side, and kept until the other one knows.
        state="closing" if state == "closed" else state,
        since=Time(tunnel.since + offset),
        traffic=Traffic(up, down),
    )
