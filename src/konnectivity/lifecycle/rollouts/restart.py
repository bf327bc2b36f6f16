"""Starts agents anew: all in turn, by the workload's own rollout, or the ones that are named.

The annotation of the pod template is kubectl's, so `kubectl rollout history` and others know it;
a standing manager leaves it alone, since it is not in what it applies.

Source: kubectl `polymorphichelpers/objectrestarter.go`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from konnectivity.errors import ClusterError
from konnectivity.kube.collection import STRATEGIC_PATCH, Collection, Object
from konnectivity.kube.resources import collection_path
from konnectivity.lifecycle.reconciling.plan import Key
from konnectivity.lifecycle.rollouts.availability import pods_of, trouble
from konnectivity.lifecycle.specification.stored_spec import WRITER

if TYPE_CHECKING:
    from lightkube import AsyncClient

INTERVAL: Final = 0.5
"""Seconds between two looks at pods that are on their way out."""
RESTARTED: Final = "kubectl.kubernetes.io/restartedAt"


async def restart(client: AsyncClient, key: Key) -> None:
    """Let the workload replace all of its pods, at its own pace.

    Raises one of `client.failures()`.
    """
    now = datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    patch = {"spec": {"template": {"metadata": {"annotations": {RESTARTED: now}}}}}
    path = collection_path(key.api_version, key.kind, key.namespace)
    await Collection(client, path).patch(key.name, patch, content=STRATEGIC_PATCH, manager=WRITER)


async def chosen(client: AsyncClient, item: Object, *, pod: str, node: str) -> list[Object]:
    """The agents that are called `pod`, or are on `node`.

    Raises:
        ClusterError: there is none.
        Or one of `client.failures()`.
    """
    found = [
        each
        for each in await pods_of(client, item)
        if (pod and each["metadata"]["name"] == pod)
        or (node and (each.get("spec") or {}).get("nodeName") == node)
    ]
    if not found:
        where = f"is called {pod}" if pod else f"is on node {node}"
        raise ClusterError(f"no agent {where}; kubectl get pods -o wide lists them")
    return found


async def delete(client: AsyncClient, pods: Sequence[Object]) -> None:
    """Delete agents, for which their workload makes others.

    Raises one of `client.failures()`.
    """
    for each in pods:
        meta = each["metadata"]
        there = Collection(client, collection_path("v1", "Pod", meta["namespace"]))
        await there.delete(meta["name"], uid=_uid(each))


async def replaced(
    client: AsyncClient, item: Object, pods: Sequence[Object], *, count: int
) -> AsyncGenerator[str, None]:
    """What is waited for until others are ready in the place of these, and there are `count`.

    The workload's own status may be older than that, so it is not asked.

    Raises one of `client.failures()`.
    """
    old = {_uid(each) for each in pods}
    while True:
        there = await pods_of(client, item)
        waiting = [each for each in there if _uid(each) in old or trouble(each)]
        if len(there) >= count and not waiting:
            return
        names = [f"{each['metadata']['name']} {trouble(each) or 'is there'}" for each in waiting]
        yield f"pod {'; pod '.join(names)}" if names else "a new pod is to be made"
        await asyncio.sleep(INTERVAL)


def _uid(item: Object) -> str:
    return str(item["metadata"].get("uid") or "")
