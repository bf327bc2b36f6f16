"""8xx: what happens to live traffic when agents leave, and when a node does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from konnectivity.diagnose.case import Case
from konnectivity.diagnose.check import Check, Finding, Layer, Severity, Source
from konnectivity.diagnose.surroundings import Object, labels_of
from konnectivity.gotext import one_line

ZONE: Final = "topology.kubernetes.io/zone"
FEW: Final = 2
"""Agents below which one that leaves is an outage."""


def _cuts(case: Case) -> Iterator[Finding]:
    for server, _ in case.statuses:
        left = [
            event
            for event in server.events
            if event.kind == "agent_disconnected"
            and case.is_recent(event.time)
            and isinstance(cut := event.facts.get("tunnels"), int)
            and cut > 0
        ]
        if not left:
            continue
        cut = sum(int(event.facts["tunnels"] or 0) for event in left)
        last = left[-1]
        yield Finding(
            subject=one_line(f"server {server.name}"),
            evidence=f"{cut} live tunnels ended with {len(left)} agents that left or were lost",
            said_by=(
                one_line(
                    f"server {server.name}: agent {last.facts.get('agent')}: "
                    f"{last.facts.get('cause')}"
                ),
            ),
            remedy="if they left on purpose, raise --drain-timeout of the specification, and "
            "terminationGracePeriodSeconds with it",
            about=("cuts", server.name),
        )


def _spread(case: Case) -> Iterator[Finding]:
    cluster = case.facts.cluster
    workload = cluster.workload if cluster else None
    if cluster is None or workload is None or workload.kind != "Deployment":
        return
    ready = [each for each in cluster.pods if each.ready and not each.leaving]
    evidence = ""
    nodes = Counter(each.node for each in ready)
    zones = Counter(filter(None, (_zone(case, each.node) for each in ready)))
    known = (
        Counter(filter(None, map(_zone_of, case.surroundings.of("Node"))))
        if case.surroundings
        else {}
    )
    if workload.desired < FEW:
        evidence = f"{workload.desired} agent is wanted: when it leaves, nothing is reached"
    elif len(ready) >= FEW and len(nodes) == 1:
        evidence = f"all {len(ready)} agents are on node {next(iter(nodes))}"
    elif len(ready) >= FEW and len(known) > 1 and len(zones) == 1:
        evidence = f"all {len(ready)} agents are in zone {next(iter(zones))}"
    if evidence:
        yield Finding(
            subject=f"{workload.kind} {workload.namespace}/{workload.name}",
            evidence=one_line(evidence),
            said_by=("Kubernetes API: pods and nodes",),
            remedy="set --replicas and --zones of the specification: rendered agents spread",
            about=("spread",),
        )


def _zone(case: Case, node: str) -> str:
    item = case.surroundings.named("Node", node) if case.surroundings else None
    return _zone_of(item) if item else ""


def _zone_of(node: Object) -> str:
    return labels_of(node).get(ZONE, "")


CHECKS: Final = (
    Check(
        code="KNC801",
        title="Agents that leave cut no live tunnel",
        layer=Layer.DISRUPTION,
        needs=(Source.SERVERS,),
        severity=Severity.WARNING,
        evaluate=_cuts,
        unknown=Case.server_silence,
    ),
    Check(
        code="KNC802",
        title="Agents are spread over nodes and zones",
        layer=Layer.DISRUPTION,
        needs=(Source.CLUSTER,),
        severity=Severity.WARNING,
        evaluate=_spread,
        unknown=lambda case: case.unread("workload", "pods", "Node"),
        blocked_by=("KNC101", "KNC102"),
    ),
)
