"""What a namespace holds, of every kind that the cluster knows: whether it may go with all of it.

Source: Kubernetes' namespace controller, which deletes what can be listed and deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from konnectivity.kube.client import describe, failures
from konnectivity.kube.collection import Collection, Object, status_of

if TYPE_CHECKING:
    from lightkube import AsyncClient

AT_ONCE: Final = 8
SHOWN: Final = 5
"""Objects that are named."""
GIVEN: Final = frozenset([("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")])
"""What Kubernetes puts into each namespace; until 1.24 a Secret with a token, too."""
GONE: Final = frozenset([404, 405])


class _Resource(NamedTuple):
    version: str
    name: str
    kind: str


async def objections(
    client: AsyncClient, namespace: str, *, is_ours: Callable[[str, Object], bool]
) -> str:
    """Why a namespace must not be deleted; empty: all in it is ours, or Kubernetes' own.

    `is_ours` gets the kind of an object, and the object. What cannot be looked at may be
    anything. One that is deleted while an extension of the API is away would not go, either.
    """
    try:
        resources = await _resources(client)
        gate = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            lists = [tasks.create_task(_list(client, each, namespace, gate)) for each in resources]
    except failures() as error:
        return f"what is in it cannot be told: {describe(error)}"
    except BaseExceptionGroup as group:
        known, _ = group.split(failures())
        if known is None:
            raise
        return f"what is in it cannot be told: {describe(known.exceptions[0])}"
    found = {
        f"{resource.kind} {item['metadata']['name']}"
        for resource, items in zip(resources, lists, strict=True)
        for item in items.result()
        if not _is_given(resource.kind, item) and not is_ours(resource.kind, item)
    }
    names = sorted(found)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"in it is {', '.join(names[:SHOWN])}{more}" if names else ""


async def _resources(client: AsyncClient) -> list[_Resource]:
    """All kinds of a namespace's objects, each in the version that its group prefers."""
    groups = (await Collection(client, "apis").get("")).get("groups") or []
    versions = ["v1", *(each["preferredVersion"]["groupVersion"] for each in groups)]
    found = []
    for version in versions:
        root = "apis" if "/" in version else "api"
        listed = await Collection(client, root).get(version)
        found += [
            _Resource(f"{root}/{version}", each["name"], each["kind"])
            for each in listed.get("resources") or []
            if each.get("namespaced") and _is_kept(each)
        ]
    return found


def _is_kept(resource: dict[str, Any]) -> bool:
    """Whether it has objects that stay until they are deleted; Events go of themselves."""
    kept = {"list", "delete"} <= set(resource.get("verbs") or [])
    return kept and "/" not in resource["name"] and resource["kind"] != "Event"


async def _list(
    client: AsyncClient, resource: _Resource, namespace: str, gate: asyncio.Semaphore
) -> list[Object]:
    path = f"{resource.version}/namespaces/{namespace}/{resource.name}"
    async with gate:
        try:
            items, _ = await Collection(client, path).list()
        except failures() as error:
            if (status := status_of(error)) and status[0] in GONE:
                return []
            raise
    return items


def _is_given(kind: str, item: Object) -> bool:
    name = str(item["metadata"]["name"])
    if kind == "Secret" and name.startswith("default-token-"):
        return item.get("type") == "kubernetes.io/service-account-token"
    return (kind, name) in GIVEN
