"""Whether every agent is at every server, by what the agents themselves say (`kube/heartbeat.py`).

Heartbeats come through the Kubernetes API, so this is known also while the tunnel is down.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from konnectivity.kube import heartbeat
from konnectivity.kube.client import describe, failures
from konnectivity.kube.collection import Collection, status_of
from konnectivity.kube.heartbeat import Heartbeat
from konnectivity.kube.resources import collection_path, rule
from konnectivity.lifecycle.reconciling.conditions import Condition
from konnectivity.net.backoff import lengthened

if TYPE_CHECKING:
    from lightkube import AsyncClient

TYPE: Final = "MeshComplete"
FORBIDDEN: Final = 403
SHOWN: Final = 3
"""Agents that are named in a message."""


def judge(leases: Iterable[Mapping[str, Any]], now: float) -> Condition:
    """The condition that heartbeats amount to, as of `now` in Unix seconds.

    Agents that have been silent for longer than their lease says are left out: whether there are
    enough agents is another condition's matter.
    """
    beats = [beat for lease in leases if (beat := _fresh(lease, now)) is not None]
    if not beats:
        message = "no agent has told of itself lately"
        return Condition(TYPE, status=None, reason="NoHeartbeats", message=message)
    missing = [
        f"{beat.node or beat.agent} is at {len(beat.servers)} of {beat.servers_wanted} servers"
        f"{_why(beat)}"
        for beat in sorted(beats, key=lambda beat: beat.agent)
        if len(beat.servers) < beat.servers_wanted
    ]
    if missing:
        more = f"; and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        message = f"{'; '.join(missing[:SHOWN])}{more}"
        return Condition(TYPE, status=False, reason="ServersMissing", message=message)
    message = f"{len(beats)} agents, each at all of its servers"
    return Condition(TYPE, status=True, reason="Complete", message=message)


async def look(client: AsyncClient, namespace: str) -> Condition:
    """Ask for the heartbeats in `namespace`, and judge."""
    version, kind = "coordination.k8s.io/v1", "Lease"
    try:
        leases, _ = await Collection(client, collection_path(version, kind, namespace)).list(
            heartbeat.SELECTOR
        )
    except failures() as error:
        status = status_of(error)
        forbidden = status is not None and status[0] == FORBIDDEN
        hint = f"; {rule(('list',), version, kind, namespace)}" if forbidden else ""
        message = f"heartbeats cannot be listed: {describe(error)}{hint}"
        return Condition(TYPE, status=None, reason="CannotAsk", message=message)
    return judge(leases, time.time())


async def keep_looking(
    client: AsyncClient,
    namespace: Callable[[], str],
    *,
    tell: Callable[[Condition], None],
    interval: float,
) -> None:
    """Look until cancelled, each `interval`; not while `namespace` is empty."""
    while True:
        if where := namespace():
            tell(await look(client, where))
        await asyncio.sleep(lengthened(interval, 0.1))


def _fresh(lease: Mapping[str, Any], now: float) -> Heartbeat | None:
    renewed = heartbeat.renewed_at(lease)
    if renewed is None or now - renewed > heartbeat.duration(lease):
        return None
    try:
        return heartbeat.read(lease)
    except ValueError:
        return None


def _why(beat: Heartbeat) -> str:
    """The last thing that went wrong on the way to a server."""
    if not beat.failures:
        return ""
    last = max(beat.failures, key=lambda failure: failure.at)
    return f" ({last.target}: {last.error})"
