"""The status of all workers as that of one server.

An agent that is at several workers is one agent; `connections` says at how many it is.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from operator import attrgetter

from konnectivity.observe.status import (
    Dial,
    Dials,
    Limit,
    Peer,
    Program,
    ServerStatus,
    Time,
    Traffic,
    TunnelCounts,
)

SHARED = frozenset(["eventReaders"])
"""Limits that are not the sum of the workers': the front has its own readers."""


def merge(
    statuses: Mapping[int, ServerStatus], *, program: Program, last_event: str, most: int
) -> ServerStatus:
    """One status of those of the workers, by number, which may be none.

    `program` says what the server is; what it does the workers say. With at most `most` tunnels.
    """
    parts = list(statuses.values())
    programs = [each.server for each in parts]
    tunnels = [
        replace(tunnel, id=tunnel.id * program.workers + number)
        for number, status in statuses.items()
        for tunnel in status.tunnels
    ]
    return ServerStatus(
        generated_at=min((each.generated_at for each in parts), default=Time(time.time())),
        last_event=last_event,
        server=_program(program, programs) if programs else program,
        agents=tuple(_agents(chain.from_iterable(each.agents for each in parts))),
        dials=_dials([each.dials for each in parts]),
        tunnel_counts=_counts(each.tunnel_counts for each in parts),
        tunnels_ended=_added(each.tunnels_ended for each in parts),
        tunnels=tuple(sorted(tunnels, key=attrgetter("since"))[:most]),
    )


def _program(server: Program, workers: Sequence[Program]) -> Program:
    """Ready if one of the workers is; stopping once all are."""
    unready = min((each.unready for each in workers), key=bool)
    running = [each.state for each in workers if each.state == "running"]
    return replace(
        server,
        state=next(iter(running), workers[0].state),
        ready=not unready,
        unready=unready,
        limits=tuple(_limits(each.limits for each in workers)),
        certificates=workers[0].certificates,
    )


def _agents(peers: Iterable[Peer]) -> list[Peer]:
    found: dict[str, Peer] = {}
    for peer in peers:
        have = found.get(peer.id)
        found[peer.id] = peer if have is None else _joined(have, peer)
    return [found[key] for key in sorted(found)]


def _joined(one: Peer, other: Peer) -> Peer:
    trips = [each.round_trip for each in (one, other) if each.round_trip is not None]
    return replace(
        one,
        connected_since=min(one.connected_since, other.connected_since),
        round_trip=max(trips, default=None),
        draining=one.draining or other.draining,
        tunnels=_counts([one.tunnels, other.tunnels]),
        traffic=Traffic(one.traffic.up + other.traffic.up, one.traffic.down + other.traffic.down),
        dials=one.dials + other.dials,
        dials_failed=one.dials_failed + other.dials_failed,
        connections=one.connections + other.connections,
    )


def _limits(workers: Iterable[Sequence[Limit]]) -> list[Limit]:
    found: dict[str, Limit] = {}
    for limit in chain.from_iterable(workers):
        have = found.get(limit.name)
        if have is None:
            found[limit.name] = limit
        elif limit.name not in SHARED:
            most = have.limit + limit.limit if have.limit and limit.limit else None
            found[limit.name] = replace(have, used=have.used + limit.used, limit=most)
    return list(found.values())


def _dials(parts: Sequence[Dials]) -> Dials:
    return Dials(
        pending=sum(each.pending for each in parts),
        succeeded=sum(each.succeeded for each in parts),
        failed=_added(each.failed for each in parts),
        recent=_newest([each.recent for each in parts]),
        recent_failures=_newest([each.recent_failures for each in parts]),
    )


def _newest(parts: Sequence[tuple[Dial, ...]]) -> tuple[Dial, ...]:
    """As many as one worker keeps."""
    most = max(map(len, parts), default=0)
    return tuple(sorted(chain(*parts), key=attrgetter("time"), reverse=True)[:most])


def _counts(parts: Iterable[TunnelCounts]) -> TunnelCounts:
    parts = list(parts)
    return TunnelCounts(
        dialing=sum(each.dialing for each in parts),
        open=sum(each.open for each in parts),
        closing=sum(each.closing for each in parts),
    )


def _added(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(sorted(total.items()))
