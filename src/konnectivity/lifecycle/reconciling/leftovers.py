"""What an earlier specification has left in a cluster: found by our label, once, at the start.

Only in the namespaces of what is wanted now and in that of heartbeats, and only with the name of
these agents: other agents in the same cluster are another manager's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from konnectivity.kube import heartbeat
from konnectivity.kube.client import describe, failures
from konnectivity.kube.collection import Collection, Object, status_of
from konnectivity.kube.resources import CLUSTER_SCOPED, collection_path, rule
from konnectivity.lifecycle.reconciling.plan import WORKLOADS, Key
from konnectivity.lifecycle.reconciling.prune import KINDS, may_go
from konnectivity.net.backoff import Backoff
from konnectivity.observe import logs

if TYPE_CHECKING:
    from lightkube import AsyncClient

log = logs.get(__name__)

LABELS: Final = ("app.kubernetes.io/part-of", "k8s-app")
OF_HEARTBEATS: Final = frozenset(["Role", "RoleBinding"])
FORBIDDEN, MISSING = 403, 404


async def search(
    client: AsyncClient, wanted: Mapping[Key, Object], *, ready: Callable[[], Awaitable[None]]
) -> set[Key]:
    """`leftovers`, as soon as `ready()` is over and the API answers."""
    backoff = Backoff(1.0, 60.0, factor=2.0, jitter=0.5)
    while True:
        await ready()
        try:
            return await leftovers(client, wanted)
        except failures() as error:
            log.v(2, "Cannot look for leftovers", error=describe(error))
        await asyncio.sleep(backoff.next())


async def leftovers(client: AsyncClient, wanted: Mapping[Key, Object]) -> set[Key]:
    """Objects that are ours, of these agents, and not in `wanted`.

    Kinds that we may not list are said and left out; so are those that the cluster does not know.

    Raises one of `client.failures()` when the API does not answer.
    """
    selector = _selector(wanted)
    if not selector:
        return set()
    namespaces = {key.namespace for key in wanted if key.namespace}
    found: set[Key] = set()
    for api_version, kind in KINDS:
        # Heartbeats may have been wanted before, and no longer are.
        spaces = namespaces | {heartbeat.NAMESPACE} if kind in OF_HEARTBEATS else namespaces
        for namespace in sorted(spaces) if kind not in CLUSTER_SCOPED else [""]:
            for item in await _ours(client, api_version, kind, namespace, selector):
                key = Key(api_version, kind, namespace, item["metadata"]["name"])
                if key not in wanted and may_go(key, item):
                    found.add(key)
        await asyncio.sleep(0)
    return found


def _selector(wanted: Mapping[Key, Object]) -> str:
    """By the labels of the workload; none without it, or if it lacks them."""
    workloads: Iterable[Object] = (item for key, item in wanted.items() if key.kind in WORKLOADS)
    labels = next((item["metadata"].get("labels") or {} for item in workloads), {})
    if not all(labels.get(name) for name in LABELS):
        return ""
    return ",".join(f"{name}={labels[name]}" for name in LABELS)


async def _ours(
    client: AsyncClient, api_version: str, kind: str, namespace: str, selector: str
) -> list[Object]:
    collection = Collection(client, collection_path(api_version, kind, namespace))
    try:
        items, _ = await collection.list(selector, version="0")
    except failures() as error:
        status = status_of(error)
        if status is None or status[0] not in (FORBIDDEN, MISSING):
            raise
        if status[0] == FORBIDDEN:
            remedy = rule(("list",), api_version, kind, namespace)
            log.info("Cannot look for leftovers", error=describe(error), remedy=remedy)
        return []
    return items
