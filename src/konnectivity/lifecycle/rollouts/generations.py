"""Which pods of a workload are of its template as it is now, and which are of an older one. Pure.

A DaemonSet counts its templates, and its pods bear the number. The ReplicaSets of a Deployment
bear its revision, and its pods the hash of their ReplicaSet.

Source: Kubernetes `pkg/controller/daemon/util`, `pkg/controller/deployment/util`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

DAEMON_GENERATION: Final = "deprecated.daemonset.template.generation"
POD_GENERATION: Final = "pod-template-generation"
REVISION: Final = "deployment.kubernetes.io/revision"
POD_HASH: Final = "pod-template-hash"


def mark(workload: Mapping[str, Any], replica_sets: Iterable[Mapping[str, Any]]) -> tuple[str, str]:
    """The label, and its value, that pods of the present template bear; empty if not known."""
    if workload["kind"] == "DaemonSet":
        return POD_GENERATION, _annotations(workload).get(DAEMON_GENERATION, "")
    revision = _annotations(workload).get(REVISION, "")
    for each in replica_sets:
        owners = each["metadata"].get("ownerReferences") or []
        ours = any(owner.get("uid") == workload["metadata"].get("uid") for owner in owners)
        if revision and ours and _annotations(each).get(REVISION) == revision:
            return POD_HASH, _labels(each).get(POD_HASH, "")
    return POD_HASH, ""


def is_new(pod: Mapping[str, Any], at: tuple[str, str]) -> bool:
    """Whether a pod bears the mark `at` of the present template."""
    name, value = at
    return bool(value) and _labels(pod).get(name) == value


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is ready, and not on its way out."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def _annotations(item: Mapping[str, Any]) -> Mapping[str, str]:
    return item["metadata"].get("annotations") or {}


def _labels(item: Mapping[str, Any]) -> Mapping[str, str]:
    return item["metadata"].get("labels") or {}
