"""How far the agents of a workload have come, and on which pods, on which nodes, it waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from konnectivity.kube.client import describe, failures
from konnectivity.kube.collection import Collection, Object, status_of
from konnectivity.kube.resources import collection_path
from konnectivity.lifecycle.reconciling.plan import WORKLOADS, Key
from konnectivity.lifecycle.rollouts.progress import Progress, progress
from konnectivity.lifecycle.specification.stored_spec import kept

if TYPE_CHECKING:
    from lightkube import AsyncClient

INTERVAL: Final = 0.5
"""Seconds between two looks."""
MISSING: Final = 404
SERVER_ERRORS: Final = 500
UNKNOWN: Final = Progress(seen=False, wanted=0, updated=0, available=0)
MOST_WAITING: Final = 5
"""Pods that are named."""


@dataclass(frozen=True, slots=True)
class Availability:
    """One look at a workload. `waiting` has a text for each pod that is not as it should be."""

    progress: Progress
    waiting: tuple[str, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        found = self.progress
        text = f"{found.available} of {found.wanted} agents are available"
        if found.updated < found.wanted:
            text += f", {found.updated} of them new"
        if found.left:
            text += f", {found.left} old ones are left"
        shown = self.waiting[:MOST_WAITING]
        more = len(self.waiting) - len(shown)
        reasons = [*([self.note] if self.note else []), *shown, *([f"{more} more"] if more else [])]
        return f"{text}; {'; '.join(reasons)}" if reasons else text


def judge(workload: Mapping[str, Any], pods: Iterable[Mapping[str, Any]]) -> Availability:
    """What workload and pods tell, as the API shows them."""
    found = progress(workload)
    if not found.seen:
        note = f"the {workload['kind']} controller of the cluster has not looked at it yet"
        return Availability(found, note=note)
    waiting = () if found.done else tuple(_waiting(pods))
    return Availability(found, waiting, _note(workload.get("status") or {}, found.wanted))


async def follow(
    client: AsyncClient, key: Key, *, interval: float = INTERVAL
) -> AsyncIterator[Availability]:
    """Looks at a workload until it is complete: that look is the last.

    An API server that is away is waited for. Raises one of `client.failures()` when it refuses.
    """
    workloads = Collection(client, collection_path(key.api_version, key.kind, key.namespace))
    while True:
        found = Availability(UNKNOWN)
        try:
            item = {"kind": key.kind, **await workloads.get(key.name)}
            found = judge(item, ())
            if not found.progress.done:
                found = judge(item, await pods_of(client, item))
        except failures() as error:
            status = status_of(error)
            if status is not None and status[0] < SERVER_ERRORS:
                raise
            found = replace(found, note=describe(error))
        yield found
        if found.progress.done:
            return
        await asyncio.sleep(interval)


async def workloads_of(
    client: AsyncClient, *, name: str, namespace: str
) -> list[tuple[Key, Object]]:
    """The DaemonSet and the Deployment of this name, as far as they are there.

    Where both are, the one that is wanted is first: while one takes the other's place it keeps
    the other's specification as the former one, or was made later.

    Raises one of `client.failures()`.
    """
    found = []
    for kind in sorted(WORKLOADS):
        key = Key("apps/v1", kind, namespace, name)
        path = collection_path(key.api_version, kind, namespace)
        try:
            item = await Collection(client, path).get(name)
        except failures() as error:
            if (status := status_of(error)) is None or status[0] != MISSING:
                raise
        else:
            found.append((key, {**item, "apiVersion": key.api_version, "kind": kind}))
    texts = {kept(item) for _, item in found} - {None}
    return sorted(found, key=lambda each: _age(each[1], texts), reverse=True)


def _age(workload: Mapping[str, Any], texts: Set[str | None]) -> tuple[bool, str]:
    """How young it is: whether it follows one of the specifications `texts`, when it was made."""
    follows = kept(workload, former=True) in texts and kept(workload) is not None
    return follows, str(workload["metadata"].get("creationTimestamp") or "")


async def pods_of(client: AsyncClient, workload: Mapping[str, Any]) -> Sequence[Object]:
    """The pods that a workload's selector finds."""
    namespace = workload["metadata"].get("namespace") or ""
    items, _ = await Collection(client, collection_path("v1", "Pod", namespace)).list(
        selector_of(workload)
    )
    return items


def selector_of(workload: Mapping[str, Any]) -> str:
    """A workload's selector as text; expressions, which nobody here writes, are left out."""
    labels = (workload["spec"].get("selector") or {}).get("matchLabels") or {}
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _waiting(pods: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for pod in pods:
        if why := trouble(pod):
            node = (pod.get("spec") or {}).get("nodeName")
            where = f" on node {node}" if node else ""
            yield f"pod {pod['metadata']['name']}{where}: {why}"


def trouble(pod: Mapping[str, Any]) -> str:
    """Why a pod is not ready, in the cluster's own words; empty if it is."""
    status = pod.get("status") or {}
    conditions = {each.get("type"): each for each in status.get("conditions") or []}
    if pod["metadata"].get("deletionTimestamp"):
        return "is leaving, once its tunnels have ended"
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("status") == "False":
        return f"is not scheduled: {_words(scheduled)}"
    for container in status.get("containerStatuses") or []:
        state, last = container.get("state") or {}, container.get("lastState") or {}
        if waiting := state.get("waiting"):
            ended = last.get("terminated") or {}
            code = f" (exit status {ended['exitCode']})" if "exitCode" in ended else ""
            return f"{_words(waiting)}{code}"
        if ended := state.get("terminated"):
            return f"has ended: {_words(ended)} (exit status {ended.get('exitCode')})"
    if status.get("reason"):  # such as Evicted
        return _words(status)
    if (conditions.get("Ready") or {}).get("status") == "True":
        return ""
    if status.get("phase") == "Running":
        return "runs, and is not ready: it has no server yet"
    return f"is {status.get('phase') or 'new'}"


def _note(status: Mapping[str, Any], wanted: int) -> str:
    """What the workload's controller says against it."""
    for each in status.get("conditions") or []:
        stuck = each.get("reason") == "ProgressDeadlineExceeded"
        if stuck or (each.get("type") == "ReplicaFailure" and each.get("status") == "True"):
            return _words(each)
    return "" if wanted else "no node may have one"


def _words(found: Mapping[str, Any]) -> str:
    reason, message = found.get("reason"), found.get("message")
    text = ": ".join(str(each) for each in (reason, message) if each)
    return " ".join(text.split()) or "no reason is given"
