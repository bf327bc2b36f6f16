"""Takes the agents out of a cluster: only what is ours, in reverse order, until all of it is gone.

Ours is what bears the labels of these agents and was applied by us. What bears the labels and
was written by others alone is named, and stays. A namespace takes along all that is in it, so it
goes only if nobody else has written to it, and nothing in it is another's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from konnectivity.errors import ClusterError
from konnectivity.kube import heartbeat
from konnectivity.kube.client import describe, failures
from konnectivity.kube.collection import Collection, Object, status_of
from konnectivity.kube.resources import CLUSTER_SCOPED, collection_path, rule
from konnectivity.lifecycle.installing.contents import objections
from konnectivity.lifecycle.managing.election import LEASE
from konnectivity.lifecycle.managing.standing import holder, keeper, manager_lease
from konnectivity.lifecycle.reconciling.fields import Writer, owned
from konnectivity.lifecycle.reconciling.plan import WORKLOADS, Key, is_ours, others
from konnectivity.lifecycle.reconciling.prune import KINDS
from konnectivity.lifecycle.rollouts.availability import pods_of
from konnectivity.lifecycle.specification.spec import AgentSpec

if TYPE_CHECKING:
    from lightkube import AsyncClient

KEPT_LONGEST: Final = (("v1", "Secret"), ("coordination.k8s.io/v1", "Lease"))
"""What agents and managers may have made beside the objects of a specification."""
HEARTBEATS: Final = "--heartbeat-namespace"
INTERVAL: Final = 0.3
"""Seconds between two looks at what is on its way out."""
FORBIDDEN, MISSING = 403, 404


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of an install of the agents called `name`."""

    name: str
    objects: tuple[tuple[Key, Object], ...] = ()
    """What is to go, in the order in which it goes."""
    foreign: tuple[str, ...] = ()
    """What bears our labels and stays, with who wrote it."""
    unreadable: tuple[str, ...] = ()
    manager: str = ""
    """The standing manager that would put it back, in words."""

    @property
    def keys(self) -> list[Key]:
        return [key for key, _ in self.objects]


def spaces_of(workloads: Iterable[Mapping[str, Any]]) -> list[str]:
    """Namespaces of leases and heartbeats, by the agents' own flags, whoever has installed them.

    The usual ones without a workload: that is what an uninstall leaves that was cut short.
    """
    found = []
    for item in workloads:
        pod = ((item.get("spec") or {}).get("template") or {}).get("spec") or {}
        words = [word for each in pod.get("containers") or [] for word in each.get("args") or []]
        flags = dict(str(word).split("=", 1) for word in words if "=" in str(word))
        found.append(flags.get("--lease-namespace") or AgentSpec.lease_namespace)
        found += [flags[HEARTBEATS]] if flags.get(HEARTBEATS) else []
    return found or [AgentSpec.lease_namespace, AgentSpec.heartbeat_namespace]


async def find(client: AsyncClient, *, name: str, namespaces: Iterable[str]) -> Found:
    """All objects of the agents called `name`; the first of `namespaces` is theirs.

    Raises one of `client.failures()` when the API does not answer.
    """
    selector = f"app.kubernetes.io/part-of=konnectivity,k8s-app={name}"
    spaces = list(dict.fromkeys(namespaces))
    objects: list[tuple[Key, Object]] = []
    foreign: list[str] = []
    unreadable: list[str] = []
    for api_version, kind in (*KEPT_LONGEST, *KINDS):
        for namespace in spaces if kind not in CLUSTER_SCOPED else [""]:
            where = (api_version, kind, namespace)
            items = await _list(client, where, selector, unreadable)
            if kind == "Lease":
                beats = await _list(client, where, heartbeat.SELECTOR, unreadable)
                items += [each for each in beats if _is_ours(kind, each, name)]
            for item in items:
                key = Key(api_version, kind, namespace, item["metadata"]["name"])
                if kind == "Lease" or is_ours(item):
                    objects.append((key, item))
                else:
                    writers = ", ".join(map(str, others(item))) or "somebody unknown"
                    foreign.append(f"{key}, written by {writers}")
    lease = await manager_lease(client, spaces[0])
    if lease is not None and not holder(lease) and objects:
        objects.insert(0, (Key("coordination.k8s.io/v1", "Lease", spaces[0], LEASE), lease))
    workloads = [item for key, item in objects if key.kind in WORKLOADS]
    standing = await keeper(client, spaces[0], workloads)
    for space in await _spaces_of_ours(client, spaces[1:], unreadable):
        key = Key("v1", "Namespace", "", space["metadata"]["name"])
        if why := await _objections(client, space, name):
            foreign.append(f"{key}, {why}")
        else:
            # The first to go: once the agents are gone extensions of the API may be away, and
            # Kubernetes empties no namespace without them.
            objects.append((key, space))
    return Found(name, tuple(reversed(objects)), tuple(foreign), tuple(unreadable), standing)


async def remove(client: AsyncClient, found: Found) -> AsyncGenerator[str, None]:
    """Delete object after object, pods with their workload; a line for each that is gone.

    A namespace is looked into once more, for time has passed.

    Raises:
        ClusterError: an object is refused, or a namespace has something else in it by now.
    """
    for key, item in found.objects:
        collection = _collection(client, key)
        uid = str(item["metadata"].get("uid") or "")
        try:
            if key.kind == "Namespace" and (why := await _objections(client, item, found.name)):
                raise ClusterError(f"{key} is not as it was looked at: {why}")
            if await _delete(collection, key, uid):
                async for line in _leaving(client, collection, key, item):
                    yield line
        except failures() as error:
            raise ClusterError(f"{key} cannot be deleted: {_refusal(key, error)}") from error
        yield f"{key} is gone"


async def remaining(client: AsyncClient, found: Found) -> list[str]:
    """What was there and is there again, each with the one who wrote it."""
    back = []
    for key, _ in found.objects:
        item = await _get(_collection(client, key), key.name)
        if item is not None:
            back.append(f"{key}, written by {', '.join(_all_writers(item))}")
    return back


async def _leaving(
    client: AsyncClient, collection: Collection, key: Key, item: Object
) -> AsyncGenerator[str, None]:
    """Wait until an object, and the pods of a workload, are gone; a line when what is left changes.

    The rights of agents go after the agents, so the last tunnels end in good order.
    """
    said = ""
    while True:
        there = await _get(collection, key.name)
        if there is not None and there["metadata"].get("uid") != item["metadata"].get("uid"):
            return  # another one, which `remaining` tells of
        left = [*_finalizers(key, there), *_hindrances(key, there)]
        if key.kind in WORKLOADS:
            pods = await pods_of(client, item)
            names = [str(pod["metadata"]["name"]) for pod in pods]
            left += [f"pods still there: {', '.join(names[:5])} ({len(names)})"] if names else []
        if there is None and not left:
            return
        if left and (line := "; ".join(left)) != said:
            said = line
            yield line
        await asyncio.sleep(INTERVAL)


async def _list(
    client: AsyncClient, where: tuple[str, str, str], selector: str, unreadable: list[str]
) -> list[Object]:
    try:
        items, _ = await Collection(client, collection_path(*where)).list(selector)
    except failures() as error:
        status = status_of(error)
        if status is None or status[0] not in (FORBIDDEN, MISSING):
            raise
        if status[0] == FORBIDDEN:
            unreadable.append(f"{describe(error)}; {rule(('list', 'delete'), *where)}")
        return []
    return items


async def _delete(collection: Collection, key: Key, uid: str) -> bool:
    """Whether there was something to delete."""
    try:
        await collection.delete(key.name, uid=uid)
    except failures() as error:
        if (status := status_of(error)) and status[0] == MISSING:
            return False
        raise
    return True


async def _get(collection: Collection, name: str) -> Object | None:
    try:
        return await collection.get(name)
    except failures() as error:
        if (status := status_of(error)) and status[0] == MISSING:
            return None
        raise


def _collection(client: AsyncClient, key: Key) -> Collection:
    return Collection(client, collection_path(key.api_version, key.kind, key.namespace))


def _finalizers(key: Key, item: Mapping[str, Any] | None) -> list[str]:
    names = (item or {}).get("metadata", {}).get("finalizers") or []
    return [f"{key} waits for its finalizers: {', '.join(names)}"] if names else []


def _hindrances(key: Key, item: Mapping[str, Any] | None) -> Iterator[str]:
    """Why Kubernetes has not emptied a namespace yet, in its own words."""
    if key.kind == "Namespace" and item is not None:
        found = item.get("status", {}).get("conditions") or []
        told = [str(each.get("message")) for each in found if each.get("status") == "True"]
        yield f"{key} is being emptied{': ' if told else ''}{', '.join(told)}"


async def _spaces_of_ours(
    client: AsyncClient, names: Iterable[str], unreadable: list[str]
) -> list[Object]:
    """Namespaces that we have applied."""
    found = []
    for name in names:
        try:
            space = await _get(Collection(client, collection_path("v1", "Namespace")), name)
        except failures() as error:
            if (status := status_of(error)) is None or status[0] != FORBIDDEN:
                raise
            unreadable.append(f"{describe(error)}; {rule(('get', 'delete'), 'v1', 'Namespace')}")
        else:
            found += [space] if space is not None and is_ours(space) else []
    return found


async def _objections(client: AsyncClient, space: Object, name: str) -> str:
    """Why a namespace that we have applied stays; empty: it may go."""
    if found := [each for each in others(space) if _has_values(each)]:
        return f"written by {', '.join(map(str, found))}"
    return await objections(
        client,
        str(space["metadata"]["name"]),
        is_ours=lambda kind, item: _is_ours(kind, item, name),
    )


def _has_values(writer: Writer) -> bool:
    """Whether a writer owns more than the bare maps of labels and annotations."""
    return any(len(path) > 2 or path[0] != "f:metadata" for path in owned(writer.fields))


def _is_ours(kind: str, item: Object, name: str) -> bool:
    """Whether something in a namespace is of the agents called `name`, heartbeats among it."""
    labels = item["metadata"].get("labels") or {}
    if kind == "Lease" and labels.get(heartbeat.LABEL):
        return str(item["metadata"]["name"]).startswith(f"{name}-")
    return labels.get("k8s-app") == name and (kind == "Lease" or is_ours(item))


def _all_writers(item: Object) -> Iterator[str]:
    found = [str(each) for each in others(item)]
    yield from [*(["konnectivity-manager"] if is_ours(item) else []), *found]


def _refusal(key: Key, error: Exception) -> str:
    status = status_of(error)
    text = describe(error)
    if status is None or status[0] != FORBIDDEN:
        return text
    return f"{text}; {rule(('delete',), key.api_version, key.kind, key.namespace)}"
