"""Whether a standing manager keeps a cluster: what is done by hand against it, it undoes.

A manager leaves a mark at the workload that says where to see whether it runs: in the lease by
which managers choose one of them, or, for one of many clusters, not in this cluster at all.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from konnectivity.kube.client import failures
from konnectivity.kube.collection import LEASES, MERGE_PATCH, Collection, Object, status_of
from konnectivity.kube.leases import parse_time
from konnectivity.kube.resources import collection_path
from konnectivity.lifecycle.managing.election import LEASE
from konnectivity.lifecycle.reconciling.compare import written_by_us
from konnectivity.lifecycle.reconciling.plan import KEPT_BY, WORKLOADS, Key
from konnectivity.lifecycle.specification.stored_spec import WRITER

if TYPE_CHECKING:
    from lightkube import AsyncClient

_LEASE: Final = "lease "


def mark(*, lease_namespace: str = "", cluster: str = "") -> str:
    """What a manager leaves: the namespace of its lease, or the name that a cluster has for it."""
    if cluster:
        return f"a manager of many clusters, as {cluster}"
    return f"{_LEASE}{lease_namespace}/{LEASE}" if lease_namespace else "a manager without a lease"


def marked(items: Iterable[Object], text: str) -> list[Object]:
    """The same objects, the workload with the mark of a manager."""
    return [_annotated(item, text) if item["kind"] in WORKLOADS else item for item in items]


def _annotated(item: Object, text: str) -> Object:
    meta = item["metadata"]
    annotations = {**(meta.get("annotations") or {}), KEPT_BY: text}
    return {**item, "metadata": {**meta, "annotations": annotations}}


async def keeper(client: AsyncClient, namespace: str, workloads: Iterable[Object]) -> str:
    """Who keeps the agents in `namespace`, for people; empty: nobody, as far as can be told.

    A manager whose lease is elsewhere, or that has none, is told of by its mark alone: it may be
    gone. Raises one of `client.failures()` when the API does not answer.
    """
    spaces, unseen = [namespace], ""
    for item in workloads:
        text = str((item["metadata"].get("annotations") or {}).get(KEPT_BY) or "")
        if text.startswith(_LEASE):
            spaces.append(text.removeprefix(_LEASE).partition("/")[0])
        elif text:
            unseen = f"{text} (whether it runs is not seen here; {_last_write(item)})"
    for space in dict.fromkeys(spaces):
        if found := holder(await manager_lease(client, space)):
            return f"the manager {found}"
    return unseen


async def dismiss(client: AsyncClient, key: Key) -> None:
    """Take the mark away, for somebody who knows better.

    Raises one of `client.failures()`.
    """
    path = collection_path(key.api_version, key.kind, key.namespace)
    patch = {"metadata": {"annotations": {KEPT_BY: None}}}
    await Collection(client, path).patch(key.name, patch, content=MERGE_PATCH, manager=WRITER)


async def manager_lease(client: AsyncClient, namespace: str) -> Object | None:
    """The lease by which managers choose one of them; None: there is none, or we may not look.

    Raises one of `client.failures()` when the API does not answer.
    """
    try:
        return await Collection(client, LEASES.format(namespace=namespace)).get(LEASE)
    except failures() as error:
        if status_of(error) is None:
            raise
        return None


def holder(lease: Object | None) -> str:
    """The manager that holds a lease now, or empty. Clocks are taken to be alike."""
    spec = (lease or {}).get("spec") or {}
    renewed, duration = parse_time(spec.get("renewTime")), spec.get("leaseDurationSeconds")
    if renewed is None or not isinstance(duration, int) or time.time() > renewed + duration:
        return ""
    return str(spec.get("holderIdentity") or "")


def _last_write(item: Mapping[str, Any]) -> str:
    writer = written_by_us(item)
    return f"it wrote last at {writer.time if writer and writer.time else 'an unknown time'}"
