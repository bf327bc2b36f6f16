"""7xx: the manager that keeps agents installed: alive, obeyed, and done with its upgrades."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from konnectivity.diagnose.case import Case, moment
from konnectivity.diagnose.check import Check, Finding, Layer, Severity, Source
from konnectivity.gotext import one_line
from konnectivity.kube.leases import State, judge
from konnectivity.lifecycle.managing.election import LEASE
from konnectivity.lifecycle.reconciling.plan import MANAGER

DAY: Final = 86400.0
HEALS: Final = frozenset(["Restored", "DriftReverted"])
MANY: Final = 3
"""Heals of one object in a day that are no accident."""


def _alive(case: Case) -> Iterator[Finding]:
    around = case.surroundings
    lease = around.named("Lease", LEASE, around.namespace) if around else None
    if around is None or lease is None:
        return  # nobody says that there should be one
    state = judge(lease, case.now)
    holder = str((lease.get("spec") or {}).get("holderIdentity") or "")
    if state.state is not State.VALID or not holder:
        renewed = (lease.get("spec") or {}).get("renewTime")
        yield Finding(
            subject=f"lease {around.namespace}/{LEASE}",
            evidence=one_line(
                f"no manager leads: the last one was {holder or 'nobody'}, renewed at {renewed}"
            ),
            said_by=("Kubernetes API: the lease",),
            remedy="start konnectivity manager; its log says why it ended",
            about=("manager",),
        )
    for event in case.facts.cluster.events if case.facts.cluster else ():
        if (
            event.reason == "WriteFailed"
            and event.component == MANAGER
            and _lately(case, event.time)
        ):
            yield Finding(
                subject=one_line(event.object),
                evidence=one_line(f"the manager cannot write it: {event.message}"),
                said_by=(f"event WriteFailed of {MANAGER}, {event.count} times",),
                remedy="give the manager the right that is named, or remove what refuses it",
                about=("object", event.object),
            )


def _lately(case: Case, time: float | None) -> bool:
    return time is not None and case.now - time < DAY


def _heals(case: Case) -> Iterator[Finding]:
    if case.facts.cluster is None:
        return
    ours = [
        each
        for each in case.facts.cluster.events
        if each.component == MANAGER and _lately(case, each.time)
    ]
    counts = Counter[str]()
    for event in ours:
        if event.reason in HEALS:
            counts[event.object] += event.count
    contested = {event.object: event for event in ours if event.reason == "Contested"}
    for name in dict.fromkeys([*contested, *counts]):
        if name not in contested and counts[name] < MANY:
            continue
        last = contested.get(name) or next(e for e in ours if e.object == name)
        yield Finding(
            subject=one_line(name),
            evidence=f"put back {counts[name]} times in a day: somebody keeps changing it",
            said_by=(
                one_line(
                    f"event {last.reason} of {MANAGER}, {moment(last.time or 0)}: {last.message}"
                ),
            ),
            remedy="take the object out of the other tool (GitOps, another operator), or pause the "
            "manager: annotation konnectivity/paused",
            about=("heals", name),
        )


def _rollout(case: Case) -> Iterator[Finding]:
    cluster = case.facts.cluster
    workload = cluster.workload if cluster else None
    if cluster is None or workload is None or workload.updated >= workload.desired:
        return
    waiting = [each for each in cluster.pods if not each.ready]
    reason = f"it waits for pod {waiting[0].name}: {waiting[0].reason}" if waiting else "it goes on"
    yield Finding(
        subject=f"{workload.kind} {workload.namespace}/{workload.name}",
        evidence=one_line(f"{workload.updated} of {workload.desired} agents are updated; {reason}"),
        said_by=("Kubernetes API: status of the workload",),
        remedy=f"kubectl -n {workload.namespace} rollout status "
        f"{workload.kind.lower()}/{workload.name}",
        about=("rollout",),
        under=tuple((each.node or each.name,) for each in waiting[:1]),
    )


CHECKS: Final = (
    Check(
        code="KNC701",
        title="The manager is alive and can write",
        layer=Layer.LIFECYCLE,
        needs=(Source.CLUSTER,),
        evaluate=_alive,
        unknown=lambda case: case.unread("Lease", "events"),
    ),
    Check(
        code="KNC702",
        title="Nobody keeps undoing what the manager does",
        layer=Layer.LIFECYCLE,
        needs=(Source.CLUSTER,),
        severity=Severity.WARNING,
        evaluate=_heals,
        unknown=lambda case: case.unread("events"),
    ),
    Check(
        code="KNC703",
        title="No rollout is stuck",
        layer=Layer.LIFECYCLE,
        needs=(Source.CLUSTER,),
        severity=Severity.WARNING,
        evaluate=_rollout,
        blocked_by=("KNC102",),
        unknown=lambda case: case.unread("workload"),
    ),
)
