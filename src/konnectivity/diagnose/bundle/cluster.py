"""What the cluster's API tells: the agents' objects, network policies, Events. Lists and no more.

Secrets are not asked for.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from konnectivity.diagnose.bundle.archive import File, Found, Miss
from konnectivity.diagnose.cluster import ClusterReader, open_cluster
from konnectivity.diagnose.facts import Facts
from konnectivity.diagnose.sources import ClusterSource
from konnectivity.errors import ConfigError
from konnectivity.kube import heartbeat
from konnectivity.kube.resources import plural
from konnectivity.observe.status_json import rfc3339, to_plain

FOLDER: Final = "cluster"
NOT_NAMED: Final = Miss(FOLDER, "no cluster is named; --kubeconfig names one")
OWNED: Final = {
    "DaemonSet": "apps/v1",
    "Deployment": "apps/v1",
    "Pod": "v1",
    "ServiceAccount": "v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
    "PodDisruptionBudget": "policy/v1",
}
"""Kinds in the agents' namespace, with their versions; those with the agents' labels are taken."""
LEASES: Final = "coordination.k8s.io/v1"


async def objects(source: ClusterSource | None, *, limit: float) -> list[Found]:
    """The agents' objects, the servers' leases and the heartbeats."""
    if source is None:
        return [NOT_NAMED]
    asked = {plural(kind): (kind, version, source.namespace) for kind, version in OWNED.items()}
    selectors = dict.fromkeys(asked, source.selector)
    asked["leases"] = ("Lease", LEASES, source.lease_namespace)
    asked["heartbeats"] = ("Lease", LEASES, source.heartbeat_namespace)
    selectors |= {"leases": source.lease_selector, "heartbeats": heartbeat.SELECTOR}
    try:
        async with open_cluster(source, limit=limit) as reader:
            lists = await asyncio.gather(
                *(
                    reader.list(version, kind, where, selector=selectors[name])
                    for name, (kind, version, where) in asked.items()
                )
            )
            return [*_files(dict(zip(asked, lists, strict=True))), *_misses(reader)]
    except ConfigError as error:
        return [Miss(FOLDER, str(error))]


async def policies(source: ClusterSource | None, *, limit: float) -> list[Found]:
    """All network policies of the agents' namespace, and its labels and those of others."""
    if source is None:
        return [NOT_NAMED]
    try:
        async with open_cluster(source, limit=limit) as reader:
            found, spaces = await asyncio.gather(
                reader.list("networking.k8s.io/v1", "NetworkPolicy", source.namespace),
                reader.list("v1", "Namespace"),
            )
            return [
                *_files({"networkpolicies": found, "namespaces": spaces}),
                *_misses(reader),
            ]
    except ConfigError as error:
        return [Miss(FOLDER, str(error))]


def kubernetes_events(facts: Facts) -> Found:
    """Events about the agents' objects, newest first."""
    if facts.cluster is None:
        return NOT_NAMED
    if not facts.cluster.knows("events"):
        reasons = [each.reason for each in facts.about("cluster")]
        return Miss(f"{FOLDER}/events.json", reasons[0] if reasons else "they cannot be read")
    events: list[dict[str, Any]] = []
    for each in facts.cluster.events:
        time = rfc3339(each.time) if each.time is not None else None
        events.append({**to_plain(each), "time": time})
    return File(f"{FOLDER}/events.json", events)


def _files(lists: dict[str, list[dict[str, Any]] | None]) -> list[Found]:
    return [
        File(f"{FOLDER}/{name}.json", items) for name, items in lists.items() if items is not None
    ]


def _misses(reader: ClusterReader) -> list[Found]:
    return [
        Miss(each.what, f"{each.reason}; {each.remedy}" if each.remedy else each.reason)
        for each in reader.problems
    ]
