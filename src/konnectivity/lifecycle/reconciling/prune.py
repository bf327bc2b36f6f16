"""What is no longer wanted and was ours is removed, in an order that leaves no gap. Pure.

The new workload first: what the old agents live on goes when the new ones are all there. What only
restrains agents goes at once, for it may be what the new ones wait for. A namespace never goes: it
would take along what is not ours. Only an uninstall looks into one, and somebody has agreed to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from konnectivity.lifecycle.reconciling.compare import is_ours
from konnectivity.lifecycle.reconciling.fields import Object
from konnectivity.lifecycle.reconciling.plan import WORKLOADS, Action, Key, Reason
from konnectivity.lifecycle.rollouts.progress import progress

KINDS: Final = (
    ("v1", "ServiceAccount"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("v1", "ConfigMap"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "Deployment"),
    ("policy/v1", "PodDisruptionBudget"),
    ("v1", "Service"),
    ("monitoring.coreos.com/v1", "PodMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
)
"""All that is ever rendered and may be removed, in the order in which it is applied."""
RESTRAINTS: Final = frozenset(["NetworkPolicy", "PodDisruptionBudget"])


def removals(
    retired: Collection[Key], observed: Mapping[Key, Object | None], *, replaced: bool
) -> Iterator[Action]:
    """Actions for those of `retired` that are there, are ours and may go now.

    `replaced`: whether the workload that is wanted is as wanted, with all of its agents.
    """
    there = [key for key in retired if _is_there(observed.get(key))]
    former = any(key.kind in WORKLOADS for key in there)
    for key in sorted(there, key=_rank, reverse=True):
        allowed = replaced and (key.kind in WORKLOADS or not former)
        live = observed[key]
        if live is None or not may_go(key, live) or "deletionTimestamp" in live["metadata"]:
            continue
        if allowed or key.kind in RESTRAINTS:
            yield Action(key, Reason.REMOVE, {}, live=live)


def may_go(key: Key, live: Object) -> bool:
    """Whether an object is ours to remove."""
    return (key.api_version, key.kind) in KINDS and is_ours(live)


def is_replaced(workload: Object | None) -> bool:
    """Whether all agents of the workload that is wanted are there."""
    return workload is not None and progress(workload).done


def _is_there(item: Object | None) -> bool:
    return item is not None


def _rank(key: Key) -> tuple[int, Key]:
    kind = (key.api_version, key.kind)
    return KINDS.index(kind) if kind in KINDS else -1, key
