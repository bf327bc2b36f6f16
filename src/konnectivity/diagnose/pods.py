"""From objects of the Kubernetes API to facts: pods, workloads, Events, who a policy selects. Pure.

Objects come from an API server, and yet nothing about their shape is taken for granted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from konnectivity.diagnose.facts import Object, ObjectEvent, PodFacts, Termination, Workload
from konnectivity.kube.leases import parse_time


def pod_facts(item: Object) -> PodFacts:
    """One pod; its first container is the agent's, or the one whose name says so."""
    meta, spec, status = (_mapping(item.get(name)) for name in ("metadata", "spec", "status"))
    container = _agent(_items(status.get("containerStatuses")))
    ready = _condition(status, "Ready").get("status") == "True"
    leaving = meta.get("deletionTimestamp") is not None
    reason, message = ("", "") if ready else _unready(status, container, leaving=leaving)
    return PodFacts(
        name=_text(meta.get("name")),
        namespace=_text(meta.get("namespace")),
        node=_text(spec.get("nodeName")),
        phase=_text(status.get("phase")) or "Unknown",
        ready=ready,
        restarts=_number(container.get("restartCount")),
        reason=reason,
        message=message,
        ip=_text(status.get("podIP")),
        image=_text(_agent(_items(spec.get("containers"))).get("image")),
        started_at=parse_time(status.get("startTime")),
        leaving=leaving,
        last_termination=_termination(container),
        object=item,
    )


def workload_facts(item: Object) -> Workload:
    """A DaemonSet or a Deployment; its `kind` must be in it, which lists leave out."""
    meta, spec, status = (_mapping(item.get(name)) for name in ("metadata", "spec", "status"))
    is_set = item.get("kind") == "DaemonSet"
    pod = _mapping(_mapping(spec.get("template")).get("spec"))
    names = (
        ("desiredNumberScheduled", "numberReady", "updatedNumberScheduled")
        if is_set
        else ("replicas", "readyReplicas", "updatedReplicas")
    )
    desired = status.get(names[0]) if is_set else spec.get("replicas", 1)
    return Workload(
        kind=_text(item.get("kind")),
        name=_text(meta.get("name")),
        namespace=_text(meta.get("namespace")),
        desired=_number(desired),
        ready=_number(status.get(names[1])),
        updated=_number(status.get(names[2])),
        image=_text(_agent(_items(pod.get("containers"))).get("image")),
        object=item,
    )


def object_event(item: Object) -> ObjectEvent:
    """An Event of either API, core/v1 or events.k8s.io/v1."""
    about = _mapping(item.get("involvedObject") or item.get("regarding"))
    source = _mapping(item.get("source") or item.get("deprecatedSource"))
    times = (item.get(name) for name in ("lastTimestamp", "eventTime", "firstTimestamp"))
    return ObjectEvent(
        time=next((found for found in map(parse_time, times) if found is not None), None),
        object=f"{_text(about.get('kind'))}/{_text(about.get('name'))}",
        reason=_text(item.get("reason")),
        message=_text(item.get("message") or item.get("note")),
        warning=item.get("type") == "Warning",
        count=max(1, _number(item.get("count"))),
        component=_text(source.get("component") or item.get("reportingComponent")),
    )


def selects(policy: Object, shown: Iterable[Mapping[str, str]]) -> bool:
    """Whether a network policy selects pods with any of these labels."""
    selector = _mapping(_mapping(policy.get("spec")).get("podSelector"))
    return any(matches(selector, labels) for labels in shown)


def matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector matches; an empty one matches all.

    Source: Kubernetes API, `LabelSelector`; an operator that is not known matches nothing.
    """
    wanted = _mapping(selector.get("matchLabels"))
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(_holds(each, labels) for each in _items(selector.get("matchExpressions")))


def _holds(requirement: Object, labels: Mapping[str, str]) -> bool:
    key, values = _text(requirement.get("key")), requirement.get("values") or []
    match requirement.get("operator"):
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return key not in labels or labels[key] not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    return False


def _unready(status: Object, container: Object, *, leaving: bool) -> tuple[str, str]:
    """Why a pod is not ready: a word and a line, the most telling of what its status has."""
    if leaving:
        return "Terminating", "the pod is being deleted"
    waiting = _mapping(_mapping(container.get("state")).get("waiting"))
    if waiting.get("reason"):
        return _text(waiting["reason"]), _text(waiting.get("message"))
    ended = _mapping(_mapping(container.get("state")).get("terminated"))
    if ended:
        return _text(ended.get("reason")) or "Terminated", _text(ended.get("message"))
    for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready"):
        found = _condition(status, kind)
        if found.get("status") == "False":
            return _text(found.get("reason")) or kind, _text(found.get("message"))
    return _text(status.get("reason")) or "Unknown", _text(status.get("message"))


def _condition(status: Object, kind: str) -> Mapping[str, Any]:
    conditions = _items(status.get("conditions"))
    return next((each for each in conditions if each.get("type") == kind), {})


def _termination(container: Object) -> Termination | None:
    """How the container ended the last time that it did."""
    for state in ("state", "lastState"):
        ended = _mapping(_mapping(container.get(state)).get("terminated"))
        if ended:
            return Termination(
                reason=_text(ended.get("reason")),
                exit_code=_number(ended.get("exitCode")),
                message=_text(ended.get("message")),
                finished_at=parse_time(ended.get("finishedAt")),
            )
    return None


def _agent(containers: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The agent's among containers, or among their statuses."""
    named = (each for each in containers if "konnectivity" in _text(each.get("name")))
    return next(named, containers[0] if containers else {})


def _items(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
