"""What the health port says of a fleet: the state of each cluster, and whether all are known."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from konnectivity.lifecycle.managing.fleet import Fleet
from konnectivity.lifecycle.managing.keeper import Keeper
from konnectivity.lifecycle.managing.metrics import ClusterFigures
from konnectivity.lifecycle.reconciling.conditions import Condition
from konnectivity.observe.histogram import RequestCounts
from konnectivity.observe.route import JSON, Request, Response

AT_ONCE: Final = 20
"""Clusters that are looked at before other work has its turn."""


async def conditions(
    fleet: Fleet, request: Request, *, single: bool, head: dict[str, object]
) -> Response:
    """All of one cluster, or of many the status of each condition.

    `head` are the members in front. `?cluster=NAME` asks for one of many.
    """
    name = request.value("cluster")
    if not single and not name:
        clusters = {
            each.name: {one.type: one.word for one in _conditions(each)}
            async for each in _in_turn(sorted(fleet.keepers.values(), key=_name))
        }
        return _page({**head, "clusters": clusters})
    keeper = fleet.keepers.get("" if single else name)
    if keeper is None:
        return Response(b"no such cluster\n", status=404)
    return _page({**head, **_details(keeper)})


def unready(fleet: Fleet, *, single: bool) -> str:
    """Why not all is known that can be; empty if it is.

    Of one cluster all objects must be known. Of many each must have answered, or be in trouble:
    one that is broken does not make the manager so.
    """
    if single:
        unknown = [each for cluster in fleet.clusters() for each in cluster.unknown]
        if not any(fleet.clusters()):
            unknown = ["the cluster"]
        return f"not yet listed: {', '.join(unknown)}" if unknown else ""
    new = sum(not _is_known(each) for each in fleet.keepers.values())
    return f"not yet asked: {new} of {len(fleet.keepers)} clusters" if new else ""


async def figures(fleet: Fleet) -> dict[str, ClusterFigures]:
    """What the metrics tell of each cluster, by name."""
    keepers = list(fleet.keepers.values())
    return {each.name: _figures(each) async for each in _in_turn(keepers)}


async def _in_turn(keepers: Sequence[Keeper]) -> AsyncIterator[Keeper]:
    """All of them, with room for other work in between: there may be thousands."""
    for number, each in enumerate(keepers, 1):
        yield each
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)


def _name(keeper: Keeper) -> str:
    return keeper.name


def _is_known(keeper: Keeper) -> bool:
    cluster = keeper.cluster
    return bool(keeper.trouble) or (cluster is not None and cluster.acquainted)


def _conditions(keeper: Keeper) -> list[Condition]:
    found = list(keeper.cluster.conditions.current.values()) if keeper.cluster else []
    return [_registered(keeper), *found] if keeper.name else found


def _registered(keeper: Keeper) -> Condition:
    if keeper.trouble:
        return Condition("Registered", status=False, reason="Malformed", message=keeper.trouble)
    if keeper.cluster is None:
        return Condition("Registered", status=None, reason="Waiting", message="not yet its turn")
    return Condition("Registered", status=True, reason="Read")


def _figures(keeper: Keeper) -> ClusterFigures:
    conditions = tuple(_conditions(keeper))
    if keeper.cluster is None:
        none = RequestCounts(())
        return ClusterFigures({}, none, none, failing=0, dropped=0, conditions=conditions)
    return keeper.cluster.figures(conditions)


def _details(keeper: Keeper) -> dict[str, Any]:
    cluster = keeper.cluster
    since = cluster.conditions.since if cluster else {}
    return {
        "conditions": [_detail(each, since.get(each.type)) for each in _conditions(keeper)],
        "problems": cluster.problems if cluster else {},
    }


def _detail(condition: Condition, since: float | None) -> dict[str, str]:
    found = {
        "type": condition.type,
        "status": condition.word,
        "reason": condition.reason,
        "message": condition.message,
    }
    return found if since is None else {**found, "lastTransitionTime": _time(since)}


def _page(content: dict[str, object]) -> Response:
    return Response(json.dumps(content, indent=2).encode() + b"\n", content_type=JSON)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
