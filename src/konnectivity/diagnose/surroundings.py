"""What is around the agents in a cluster: objects that are not theirs and that they depend on.

Read by list alone, each kind on its own: what cannot be read is said, with the right that is
missing, and the rest is judged all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from konnectivity.kube.client import describe, failures
from konnectivity.kube.collection import Collection, status_of
from konnectivity.kube.resources import collection_path, rule

if TYPE_CHECKING:
    from lightkube import AsyncClient

Object: TypeAlias = Mapping[str, Any]

LIMIT: Final = 10.0
"""Seconds for one list."""
MOST: Final = 5_000
"""Objects of one kind that are looked at."""

KINDS: Final = {
    "Namespace": "v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "Node": "v1",
    "Service": "v1",
    "EndpointSlice": "discovery.k8s.io/v1",
    "ValidatingWebhookConfiguration": "admissionregistration.k8s.io/v1",
    "MutatingWebhookConfiguration": "admissionregistration.k8s.io/v1",
    "APIService": "apiregistration.k8s.io/v1",
    "PodDisruptionBudget": "policy/v1",
    "ClusterRoleBinding": "rbac.authorization.k8s.io/v1",
    "Lease": "coordination.k8s.io/v1",
}
"""What is listed, with its version; those of `NAMESPACED` in the agents' namespace only."""
NAMESPACED: Final = frozenset(["NetworkPolicy", "PodDisruptionBudget", "Lease"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Objects by kind. `unread` says why a kind could not be listed.

    `may_review` is whether the servers' user may create token reviews; None: nobody says.
    """

    namespace: str
    objects: Mapping[str, tuple[Object, ...]] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    may_review: bool | None = None

    def of(self, kind: str) -> tuple[Object, ...]:
        return self.objects.get(kind, ())

    def named(self, kind: str, name: str, namespace: str = "") -> Object | None:
        """The object of that name, None if there is none or it was not read."""
        for item in self.of(kind):
            meta = item["metadata"]
            if meta["name"] == name and (meta.get("namespace") or "") == namespace:
                return item
        return None

    def knows(self, kind: str) -> bool:
        return kind in self.objects


async def survey(client: AsyncClient, *, namespace: str, server_user: str) -> Surroundings:
    """List all kinds, and ask whether the servers' user may review tokens."""
    kinds = list(KINDS)
    async with asyncio.TaskGroup() as group:
        lists = [group.create_task(_list(client, kind, namespace)) for kind in kinds]
        right = group.create_task(_may_review(client, server_user))
    answers = dict(zip(kinds, (each.result() for each in lists), strict=True))
    return Surroundings(
        namespace=namespace,
        objects={kind: found for kind, found in answers.items() if isinstance(found, tuple)},
        unread={kind: found for kind, found in answers.items() if isinstance(found, str)},
        may_review=right.result(),
    )


async def _list(client: AsyncClient, kind: str, namespace: str) -> tuple[Object, ...] | str | None:
    """The objects, or why they could not be had; None if this cluster knows no such kind."""
    where = namespace if kind in NAMESPACED else ""
    collection = Collection(client, collection_path(KINDS[kind], kind, where))
    try:
        async with asyncio.timeout(LIMIT):
            found, _ = await collection.list(version="0")
    except TimeoutError:
        return f"{kind}: no answer within {LIMIT:g} s"
    except failures() as error:
        status = status_of(error)
        if status and status[0] == 404:
            return None  # this version of the API is not served here
        remedy = (
            f"; {rule(('list',), KINDS[kind], kind, where)}" if status and status[0] == 403 else ""
        )
        return f"{kind}: {describe(error)}{remedy}"
    return tuple(found[:MOST])


async def _may_review(client: AsyncClient, user: str) -> bool | None:
    """Source: SubjectAccessReview of authorization.k8s.io/v1; nothing is stored."""
    resource = {"group": "authentication.k8s.io", "resource": "tokenreviews", "verb": "create"}
    review: dict[str, Any] = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": resource},
    }
    reviews = Collection(client, "apis/authorization.k8s.io/v1/subjectaccessreviews")
    try:
        async with asyncio.timeout(LIMIT):
            answer = await reviews.create(review)
    except TimeoutError:
        return None
    except failures():
        return None
    status = answer.get("status")
    allowed = status.get("allowed") if isinstance(status, Mapping) else None
    return allowed if isinstance(allowed, bool) else None


def labels_of(item: Object) -> Mapping[str, str]:
    found = item.get("metadata", {}).get("labels")
    return found if isinstance(found, Mapping) else {}


def mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    """The mappings of a list that should hold nothing else: others may have written it."""
    for each in value if isinstance(value, list | tuple) else ():
        if isinstance(each, Mapping):
            yield each
