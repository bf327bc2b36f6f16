"""5xx: limits that are near, agents that are starved, dials that fail more than they should."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from statistics import median
from typing import Final

from konnectivity.diagnose.case import Case, moment, name_of
from konnectivity.diagnose.check import Check, Finding, Layer, Severity, Source
from konnectivity.diagnose.facts import AgentFacts
from konnectivity.gotext import one_line
from konnectivity.observe.status import Dial, Limit, Peer, Program

NEAR: Final = 0.8
"""Part of a limit from which it is worth a warning."""
OLD_DIAL: Final = 10.0
"""Seconds after which a dial under way is stuck: agents give up after 5."""
SLOW: Final = 0.5
"""Seconds for an answer to a ping, which an agent answers at once."""
SLOWER: Final = 5.0
"""So many times slower than the others is the agent's own doing, not the network's."""
RESTARTED: Final = 3600.0
"""Seconds for which the end of a container counts."""
FEW_DIALS: Final = 10
FAILING: Final = 0.1
"""Part of dials that fail from which it is worth a warning."""
MOST: Final = 10


def _near(
    who: str, limits: Iterable[Limit], names: frozenset[str], remedy: str
) -> Iterator[Finding]:
    for each in limits:
        if each.name in names and each.limit and each.used >= NEAR * each.limit:
            full = each.used >= each.limit
            yield Finding(
                subject=one_line(f"{who}: {each.name}"),
                evidence=f"{each.used} of {each.limit} {each.unit} in use",
                said_by=(one_line(f"{who}: its limits"),),
                remedy=remedy,
                about=("limit", who, each.name),
                severity=Severity.ERROR if full else None,
            )


def _programs(case: Case) -> Iterator[tuple[str, Program]]:
    for server, status in case.statuses:
        yield f"server {server.name}", status.server
    for agent in case.agents:
        if agent.status is not None:
            yield f"agent {name_of(agent)}", agent.status.agent


def _queues(case: Case) -> Iterator[Finding]:
    names = frozenset(["heldForFrontends", "heldForEndpoints"])
    for who, program in _programs(case):
        remedy = "konnectivity status --tunnels shows who reads slowly; end those connections"
        yield from _near(who, program.limits, names, remedy)


def _resources(case: Case) -> Iterator[Finding]:
    names = frozenset(["descriptors", "tunnels"])
    for who, program in _programs(case):
        remedy = "raise LimitNOFILE or --max-tunnels, or add agents and servers"
        yield from _near(who, program.limits, names, remedy)


def _pending(case: Case) -> Iterator[Finding]:
    for server, status in case.statuses:
        who = f"server {server.name}"
        remedy = "konnectivity status --dials shows the destinations; unreachable ones hold dials"
        yield from _near(who, status.server.limits, frozenset(["pendingDials"]), remedy)
        old = [
            each
            for each in status.tunnels
            if each.state == "dialing" and status.generated_at - each.since > OLD_DIAL
        ]
        if old:
            oldest = min(old, key=lambda each: each.since)
            peers = Counter(each.peer for each in old)
            agent, count = peers.most_common(1)[0]
            yield Finding(
                subject=one_line(f"server {server.name}: {len(old)} dials"),
                evidence=one_line(
                    f"under way for more than {OLD_DIAL:g} s; the oldest, to {oldest.destination}, "
                    f"for {status.generated_at - oldest.since:.0f} s; {count} at agent {agent}"
                ),
                said_by=(one_line(f"server {server.name}: its tunnels"),),
                remedy=one_line(
                    f"an agent answers each dial within 5 s: look whether agent {agent} is starved "
                    "or stopped (KNC504)"
                ),
                about=("dials", server.name),
                under=(("agent", agent),),
            )


def _starved(case: Case) -> Iterator[Finding]:
    yield from _ended(case)
    for server, status in case.statuses:
        known = {each.id: each.round_trip for each in status.agents if each.round_trip is not None}
        for peer in status.agents:
            slow = _slowness(peer, known)
            if not slow:
                continue
            agent = next((each for each in case.agents if each.id == peer.id), AgentFacts(peer.id))
            yield Finding(
                subject=one_line(f"agent {name_of(agent)}"),
                evidence=f"it answers pings {slow}: starved of CPU, throttled, or stopped",
                said_by=(
                    one_line(f"server {server.name}: round trip of its connection"),
                    *_pod(case, agent),
                ),
                remedy="raise its CPU request and take away its CPU limit (--cpu-request); on the "
                "node: cat /sys/fs/cgroup/.../cpu.stat, and look for nr_throttled",
                about=("agent", peer.id),
            )


def _slowness(peer: Peer, known: dict[str, float]) -> str:
    """How slow an agent is, next to the others; empty if it is not."""
    own = peer.round_trip
    if own is None or own < SLOW:
        return ""
    others = [each for agent, each in known.items() if agent != peer.id]
    if not others:
        return f"after {own:.1f} s"
    usual = median(others)
    return f"after {own:.1f} s, others after {usual * 1e3:.0f} ms" if own > SLOWER * usual else ""


def _pod(case: Case, agent: AgentFacts) -> list[str]:
    """What the cluster says of its CPU."""
    cluster = case.facts.cluster
    pod = next((each for each in cluster.pods if each.name == agent.pod), None) if cluster else None
    if pod is None:
        return []
    containers = (pod.object.get("spec") or {}).get("containers") or [{}]
    limits = (containers[0].get("resources") or {}).get("limits") or {}
    return [f"Kubernetes API: CPU limit {limits['cpu']}"] if limits.get("cpu") else []


def _ended(case: Case) -> Iterator[Finding]:
    for pod in case.facts.cluster.pods if case.facts.cluster else ():
        last = pod.last_termination
        if last is None or last.finished_at is None or case.now - last.finished_at > RESTARTED:
            continue
        if last.exit_code == 0:
            continue
        killed = last.reason == "OOMKilled"
        yield Finding(
            subject=f"pod {pod.namespace}/{pod.name}",
            evidence=one_line(
                f"its container ended as {last.reason or 'Error'} with code {last.exit_code} at "
                f"{moment(last.finished_at)}; {pod.restarts} restarts"
            ),
            said_by=("Kubernetes API: status of the pod",),
            remedy="raise --memory-limit of the specification"
            if killed
            else f"kubectl -n {pod.namespace} describe pod {pod.name}",
            about=("agent", pod.name),
            under=((pod.node or pod.name,),),
        )


def _failures(case: Case) -> Iterator[Finding]:
    """Whether it is an agent or a destination: whoever most failures have in common."""
    for server, status in case.statuses:
        failed = sum(status.dials.failed.values())
        total = failed + status.dials.succeeded
        if failed < FEW_DIALS or failed < FAILING * total:
            continue
        recent = [each for each in status.dials.recent_failures if case.now - each.time < RESTARTED]
        if len(recent) < FEW_DIALS:
            continue
        reasons = ", ".join(f"{name} {count}" for name, count in status.dials.failed.items())
        blame, about = _blame(recent, len(status.agents))
        yield Finding(
            subject=one_line(f"dials of server {server.name}"),
            evidence=one_line(f"{failed} of {total} failed ({reasons}); {blame}"),
            said_by=(one_line(f"server {server.name}: {recent[0].error}"),),
            remedy="konnectivity status --dials shows them; doctor --probe tries again",
            about=("dials", server.name, *about),
            under=tuple(each for each in (("destination", recent[0].destination), about) if each),
        )


def _blame(recent: list[Dial], agents: int) -> tuple[str, tuple[str, ...]]:
    count = len(recent)
    destination, to = Counter(each.destination for each in recent).most_common(1)[0]
    agent, by = Counter(each.peer for each in recent).most_common(1)[0]
    if to >= 0.8 * count:
        through = len({each.peer for each in recent if each.destination == destination})
        return f"{to} of the last {count} to {destination}, through {through} agents", ()
    if by >= 0.8 * count and agents > 1:
        return f"{by} of the last {count} at agent {agent or '(none)'}", ("agent", agent)
    return f"the last {count} are spread over agents and destinations", ()


CHECKS: Final = (
    Check(
        code="KNC504",
        title="Agents have the CPU and memory that they need",
        layer=Layer.LOAD,
        needs=(Source.SERVERS, Source.CLUSTER),
        severity=Severity.WARNING,
        evaluate=_starved,
        blocked_by=("KNC102",),
        unknown=Case.server_silence,
    ),
    Check(
        code="KNC501",
        title="No slow reader fills the queues",
        layer=Layer.LOAD,
        needs=(Source.SERVERS,),
        severity=Severity.WARNING,
        evaluate=_queues,
        unknown=Case.server_silence,
    ),
    Check(
        code="KNC502",
        title="Dials are answered",
        layer=Layer.LOAD,
        needs=(Source.SERVERS,),
        severity=Severity.WARNING,
        evaluate=_pending,
        blocked_by=("KNC504",),
        unknown=Case.server_silence,
    ),
    Check(
        code="KNC503",
        title="Descriptors and tunnels are far from their limits",
        layer=Layer.LOAD,
        needs=(Source.SERVERS,),
        severity=Severity.WARNING,
        evaluate=_resources,
        unknown=Case.server_silence,
    ),
    Check(
        code="KNC505",
        title="Dials succeed",
        layer=Layer.LOAD,
        needs=(Source.SERVERS,),
        severity=Severity.WARNING,
        evaluate=_failures,
        blocked_by=("KNC101", "KNC404", "KNC401", "KNC402", "KNC403", "KNC504", "KNC502"),
        unknown=Case.server_silence,
    ),
)
