"""Whether we may do what has to be done: all missing rights at once, before the first write.

Source: Kubernetes' `authorization.k8s.io/v1`, SelfSubjectAccessReview, which everybody may ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from konnectivity.kube.collection import Collection
from konnectivity.kube.resources import CLUSTER_SCOPED, plural, rule
from konnectivity.lifecycle.reconciling.plan import WORKLOADS, Key

if TYPE_CHECKING:
    from lightkube import AsyncClient

REVIEWS: Final = "apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
AT_ONCE: Final = 8
WRITING: Final = ("get", "list", "watch", "create", "patch")
REMOVING: Final = ("get", "list", "delete")


class Right(NamedTuple):
    """One verb on one resource."""

    verb: str
    api_version: str
    kind: str
    namespace: str


def to_write(keys: Iterable[Key]) -> list[Right]:
    """What an install of these objects needs."""
    found = [
        Right(verb, key.api_version, key.kind, key.namespace) for key in keys for verb in WRITING
    ]
    found += [Right("list", "v1", "Pod", key.namespace) for key in keys if key.kind in WORKLOADS]
    return list(dict.fromkeys(found))


def to_remove(keys: Iterable[Key]) -> list[Right]:
    """What their removal needs."""
    found = [
        Right(verb, key.api_version, key.kind, key.namespace) for key in keys for verb in REMOVING
    ]
    return list(dict.fromkeys(found))


async def missing(client: AsyncClient, rights: Iterable[Right]) -> list[str]:
    """The rights that we do not have, a line for each resource, in the words of RBAC.

    Raises one of `client.failures()`.
    """
    gate = asyncio.Semaphore(AT_ONCE)
    collection = Collection(client, REVIEWS)

    async def denied(right: Right) -> bool:
        async with gate:
            answer = await collection.create(_review(right))
        return not (answer.get("status") or {}).get("allowed")

    asked = list(rights)
    async with asyncio.TaskGroup() as tasks:
        answers = [tasks.create_task(denied(each)) for each in asked]
    lacking: dict[tuple[str, str, str], list[str]] = {}
    for right, answer in zip(asked, answers, strict=True):
        if answer.result():
            lacking.setdefault(right[1:], []).append(right.verb)
    return [f"missing rights: {rule(verbs, *where)}" for where, verbs in lacking.items()]


def _review(right: Right) -> dict[str, object]:
    group, slash, version = right.api_version.rpartition("/")
    attributes = {
        "verb": right.verb,
        "group": group if slash else "",
        "version": version,
        "resource": plural(right.kind),
    }
    if right.namespace and right.kind not in CLUSTER_SCOPED:
        attributes["namespace"] = right.namespace
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
