"""1xx: whether the agents are installed as they should be, and the servers asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from konnectivity.diagnose.case import Case
from konnectivity.diagnose.check import Check, Finding, Layer, Severity, Source
from konnectivity.diagnose.checks import egress_selector
from konnectivity.diagnose.facts import PodFacts, Workload
from konnectivity.diagnose.policy import selects
from konnectivity.diagnose.surroundings import labels_of, mappings
from konnectivity.gotext import one_line
from konnectivity.kube.resources import rule
from konnectivity.lifecycle.objects.rbac import BINDING

MOST: Final = 10
"""Findings of one check that are told one by one."""
DELEGATOR: Final = "system:auth-delegator"
ADMIN: Final = "cluster-admin"

_WAITING: Final = {
    "ImagePullBackOff": "kubectl -n {namespace} describe pod {name}; correct the image, its tag "
    "or imagePullSecrets",
    "ErrImagePull": "kubectl -n {namespace} describe pod {name}; correct the image, its tag "
    "or imagePullSecrets",
    "Unschedulable": "kubectl -n {namespace} describe pod {name}; make room, or tolerate the taint "
    "that it names",
    "CrashLoopBackOff": "the last words: kubectl -n {namespace} get pod {name} -o "
    "jsonpath='{{.status.containerStatuses[0].lastState.terminated.message}}'",
    "OOMKilled": "raise --memory-limit of the specification",
}


def _exists(case: Case) -> Iterator[Finding]:
    cluster = case.facts.cluster
    if cluster is None or not cluster.knows("workload") or cluster.workload is not None:
        return
    counts = [f"server {each.name}: {len(status.agents)} agents" for each, status in case.statuses]
    connected = any(status.agents for _, status in case.statuses)
    yield Finding(
        subject=f"agents in namespace {cluster.namespace or 'kube-system'}",
        evidence="there is no DaemonSet and no Deployment of agents",
        said_by=(f"Kubernetes API {cluster.url}: none matches {cluster.selector}", *counts),
        remedy="install them: konnectivity manifests --spec=agents.toml | kubectl apply -f -; "
        "konnectivity manager keeps them",
        # Agents of some other installation work all the same.
        about=("workload",) if connected else (),
    )


def _ready(case: Case) -> Iterator[Finding]:
    cluster = case.facts.cluster
    if cluster is None or cluster.workload is None:
        return
    workload = cluster.workload
    if workload.desired == 0:
        yield _none_wanted(workload)
    broken = [each for each in cluster.pods if not each.ready and not each.leaving]
    if not broken and workload.ready < workload.desired:
        yield _pods_missing(case, workload)
    everything = workload.ready == 0 and not any(status.agents for _, status in case.statuses)
    for pod in broken[:MOST]:
        yield _unready(case, pod, everything=everything)
    if len(broken) > MOST:
        yield Finding(
            subject=f"{len(broken) - MOST} more pods",
            evidence="not ready either",
            said_by=(f"Kubernetes API: {workload.ready} of {workload.desired} are ready",),
            remedy=f"kubectl -n {workload.namespace} get pods -l {cluster.selector}",
            about=("pods",),
        )


def _none_wanted(workload: Workload) -> Finding:
    return Finding(
        subject=f"{workload.kind} {workload.namespace}/{workload.name}",
        evidence="no agent is wanted: no node matches, it is scaled to 0, or its controller has "
        "not looked at it",
        said_by=("Kubernetes API: status of the workload",),
        remedy=f"kubectl -n {workload.namespace} describe {workload.kind.lower()} {workload.name}; "
        "compare its node selector with kubectl get nodes --show-labels",
        about=(),
    )


def _pods_missing(case: Case, workload: Workload) -> Finding:
    events = case.facts.cluster.events if case.facts.cluster else ()
    words = [
        f"event {each.reason}: {one_line(each.message[:300])}"
        for each in events
        if each.warning and workload.name in each.object
    ]
    return Finding(
        subject=f"{workload.kind} {workload.namespace}/{workload.name}",
        evidence=f"{workload.ready} of {workload.desired} agents are ready, and the pods that are "
        "missing do not exist",
        said_by=("Kubernetes API: status of the workload", *words[:3]),
        remedy=f"kubectl -n {workload.namespace} describe {workload.kind.lower()} {workload.name}: "
        "quota, admission or a taint keeps its pods away",
        about=() if workload.ready == 0 else ("pods",),
    )


def _unready(case: Case, pod: PodFacts, *, everything: bool) -> Finding:
    hint = _WAITING.get(pod.reason, "kubectl -n {namespace} describe pod {name}")
    last = pod.last_termination
    ended = f"; it last ended as {last.reason} with code {last.exit_code}" if last else ""
    reason = pod.reason or pod.phase
    return Finding(
        subject=f"pod {pod.namespace}/{pod.name}{f' on {pod.node}' if pod.node else ''}",
        evidence=one_line(f"not ready: {reason}: {pod.message[:300]}".rstrip(": ") + ended),
        said_by=("Kubernetes API: status of the pod",),
        remedy=hint.format(namespace=pod.namespace, name=pod.name),
        about=() if everything else (pod.node or pod.name,),
        severity=Severity.WARNING if pod.reason == "ContainersNotReady" else None,
    )


def _drift(case: Case) -> Iterator[Finding]:
    for action in (case.drift or ())[:MOST]:
        writers = ", ".join(action.writers) or "unknown"
        lines = action.lines()
        shown = "; ".join(lines[:3]) + (f"; {len(lines) - 3} more" if len(lines) > 3 else "")
        missing = action.live is None
        evidence = (
            "it does not exist" if missing else f"not as specified: {shown or action.reason.value}"
        )
        yield Finding(
            subject=str(action.key),
            evidence=one_line(evidence),
            said_by=(
                "specification and Kubernetes API",
                *(() if missing else (f"managedFields: written by {one_line(writers)}",)),
            ),
            remedy="konnectivity manager --once --spec=... puts it back; --dry-run shows all of it",
            about=("object", str(action.key)),
        )


def _reviews(case: Case) -> Iterator[Finding]:
    """Two viewpoints: what servers were told, and what the API says of their user."""
    told = [
        f"server {server.name}: {one_line(str(event.facts.get('error')))}"
        for server in case.facts.servers
        for event in server.events
        if event.kind == "agent_refused"
        and event.facts.get("reason") == "unavailable"
        and case.is_recent(event.time)
    ]
    user = case.spec.server_user if case.spec else "system:konnectivity-server"
    forbidden = any("403" in each or "orbidden" in each for each in told)
    around = case.surroundings
    may = around.may_review if around is not None else None
    if may is None and around is not None and around.knows("ClusterRoleBinding"):
        may = _is_bound(around.of("ClusterRoleBinding"), user)
    if may is False and _uses_token(case):
        told.append(f"Kubernetes API: user {user} may not create tokenreviews")
    elif not told:
        return
    cause = (
        f"user {user} may not review tokens"
        if forbidden or may is False
        else ("the servers cannot have tokens reviewed")
    )
    yield Finding(
        subject=f"servers → Kubernetes API, as {user}",
        evidence=f"{cause}, so no agent can show who it is",
        said_by=tuple(dict.fromkeys(told[-3:])),
        remedy=(
            f"kubectl create clusterrolebinding {BINDING} --clusterrole={DELEGATOR} --user={user}"
            if forbidden or may is False
            else "on the server's machine: look whether --kubeconfig leads to the API"
        ),
        about=("token",),
        explains=(("object", f"ClusterRoleBinding {BINDING}"),),
    )


def _is_bound(bindings: tuple[Mapping[str, Any], ...], user: str) -> bool:
    """Whether a binding that guides tell of is there: enough where the API does not say."""
    return any(
        (each.get("roleRef") or {}).get("name") in (DELEGATOR, ADMIN)
        and any(subject.get("name") == user for subject in mappings(each.get("subjects")))
        for each in bindings
    )


def _uses_token(case: Case) -> bool:
    if case.spec is not None:
        return case.spec.uses_token
    cluster = case.facts.cluster
    if cluster is None or cluster.workload is None:
        return False
    return "service-account-token-path" in str(cluster.workload.object)


def _resources(case: Case) -> Iterator[Finding]:
    cluster = case.facts.cluster
    if cluster is None or cluster.workload is None:
        return
    workload = cluster.workload
    subject = f"{workload.kind} {workload.namespace}/{workload.name}"
    template = (workload.object.get("spec") or {}).get("template") or {}
    pod = template.get("spec") or {}
    wrong = []
    for container in mappings(pod.get("containers")):
        requests = (container.get("resources") or {}).get("requests") or {}
        missing = [name for name in ("cpu", "memory") if name not in requests]
        if missing:
            wrong.append(
                f"container {container.get('name')} requests no {' and no '.join(missing)}"
            )
    if not pod.get("priorityClassName"):
        wrong.append("the pods have no priority class, and are the first to go")
    if workload.kind == "Deployment" and workload.desired > 1 and not _has_budget(case, template):
        wrong.append("no PodDisruptionBudget keeps agents during drains of nodes")
    if wrong:
        yield Finding(
            subject=subject,
            evidence="; ".join(wrong),
            said_by=("Kubernetes API: the workload's template",),
            remedy="konnectivity manifests --spec=agents.toml has all of it; kubectl apply it",
            about=("workload", "resources"),
        )


def _has_budget(case: Case, template: Mapping[str, Any]) -> bool:
    around = case.surroundings
    if around is None or not around.knows("PodDisruptionBudget"):
        return True  # not known to be missing
    labels = labels_of(template)
    return any(
        selects((each.get("spec") or {}).get("selector"), labels)
        for each in around.of("PodDisruptionBudget")
    )


def _versions(case: Case) -> Iterator[Finding]:
    versions = Counter(status.server.version for _, status in case.statuses)
    if len(versions) > 1:
        yield Finding(
            subject="servers",
            evidence="they have different versions: "
            + ", ".join(f"{version} ({count})" for version, count in versions.items()),
            said_by=tuple(
                f"server {each.name}: {status.server.version}" for each, status in case.statuses
            ),
            remedy="finish the upgrade; see docs/how-to/stopping-and-upgrading.md",
            about=("versions", "servers"),
        )
    cluster = case.facts.cluster
    if cluster is None or cluster.workload is None or not cluster.workload.image:
        return
    stale = [each for each in cluster.pods if each.image and each.image != cluster.workload.image]
    if stale and cluster.workload.updated >= cluster.workload.desired:
        yield Finding(
            subject=f"{len(stale)} pods of agents",
            evidence=f"they run {stale[0].image}, the workload says {cluster.workload.image}",
            said_by=(f"Kubernetes API: pod {stale[0].name}",),
            remedy=f"kubectl -n {cluster.workload.namespace} rollout restart "
            f"{cluster.workload.kind.lower()} {cluster.workload.name}",
            about=("versions", "agents"),
        )


CHECKS: Final = (
    Check(
        code="KNC101",
        title="Agents are installed",
        layer=Layer.INSTALLATION,
        needs=(Source.CLUSTER,),
        evaluate=_exists,
        unknown=lambda case: case.unread("workload"),
    ),
    Check(
        code="KNC102",
        title="All pods of agents are ready",
        layer=Layer.INSTALLATION,
        needs=(Source.CLUSTER,),
        evaluate=_ready,
        unknown=lambda case: case.unread("workload", "pods"),
        blocked_by=("KNC101",),
    ),
    Check(
        code="KNC104",
        title="Servers may have tokens reviewed",
        layer=Layer.INSTALLATION,
        needs=(Source.CLUSTER, Source.SERVERS),
        evaluate=_reviews,
    ),
    Check(
        code="KNC103",
        title="Objects are as specified",
        layer=Layer.INSTALLATION,
        needs=(Source.SPEC,),
        severity=Severity.WARNING,
        evaluate=_drift,
        unknown=lambda case: "" if case.drift is not None else "the objects could not be read",
        blocked_by=("KNC101", "KNC104"),
    ),
    Check(
        code="KNC105",
        title="Agents have requests, priority and a disruption budget",
        layer=Layer.INSTALLATION,
        needs=(Source.CLUSTER,),
        severity=Severity.WARNING,
        evaluate=_resources,
        unknown=lambda case: case.unread("workload", "PodDisruptionBudget"),
        blocked_by=("KNC101",),
    ),
    Check(
        code="KNC106",
        title="Versions fit together",
        layer=Layer.INSTALLATION,
        needs=(Source.CLUSTER, Source.SERVERS),
        severity=Severity.WARNING,
        evaluate=_versions,
    ),
    Check(
        code="KNC107",
        title="kube-apiserver's egress selector leads to the server",
        layer=Layer.INSTALLATION,
        needs=(Source.EGRESS, Source.DIALS),
        evaluate=egress_selector.evaluate,
    ),
)

RIGHTS: Final = tuple(
    rule(("list",), version, kind, "kube-system")
    for version, kind in (("v1", "Pod"), ("apps/v1", "DaemonSet"), ("apps/v1", "Deployment"))
)
"""What a reader of the cluster needs at least, in the words of RBAC."""
