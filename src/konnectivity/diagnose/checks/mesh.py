"""2xx: who is connected to whom: ids, the number of servers, and the pairs that are missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from konnectivity.diagnose.case import Case, name_of
from konnectivity.diagnose.check import Check, Finding, Layer, Severity, Source
from konnectivity.diagnose.checks.network import WAY
from konnectivity.diagnose.facts import AgentFacts
from konnectivity.gotext import one_line
from konnectivity.kube.leases import State, judge, server_of

MOST: Final = 20
"""Pairs that are told one by one."""
STICKY: Final = 5
"""So many attempts that met a known server say that a balancer does not spread them."""


def _duplicates(case: Case) -> Iterator[Finding]:
    for agent in case.agents:
        for server, peers in agent.seen.items():
            hosts = sorted({each.address.rpartition(":")[0] for each in peers})
            if len(peers) < 2:
                continue
            cloned = len(hosts) > 1
            evidence = f"{len(peers)} connections under the id {agent.id!r}"
            evidence += f", from {len(hosts)} addresses" if cloned else ", from one address"
            yield Finding(
                subject=one_line(f"{name_of(agent)} → server {server}"),
                evidence=one_line(evidence),
                said_by=(one_line(f"server {server}: {', '.join(e.address for e in peers[:5])}"),),
                remedy=(
                    "give each agent an id of its own: --agent-id, by default $PROXY_AGENT_ID or "
                    "a random one"
                )
                + ("" if cloned else "; one that is half-open ends with the next keepalive"),
                about=("id", agent.id),
            )


def _counts(case: Case) -> Iterator[Finding]:
    """How many servers there are: as agents believe, as leases say, as servers answer."""
    known = {each.name for each, _ in case.statuses}
    known |= {name for agent in case.agents for name in agent.seen}
    known |= {
        server.id for agent in case.agents if agent.heartbeat for server in agent.heartbeat.servers
    }
    wanted = {
        name_of(each): each.heartbeat.servers_wanted for each in case.agents if each.heartbeat
    }
    wanted |= {name_of(each): each.status.servers_wanted for each in case.agents if each.status}
    there = len(known)
    off = {name: count for name, count in wanted.items() if count != there}
    leases = case.facts.cluster.leases if case.facts.cluster else ()
    valid = [server_of(each)[0] for each in leases if judge(each, case.now).state is State.VALID]
    if not there or not (off or (leases and len(valid) != there)):
        return
    believed = [f"agent {name}: {count} servers" for name, count in list(off.items())[:3]]
    names = ", ".join(sorted(known)) or "none known"
    said = [f"servers that exist: {one_line(names)}", *believed]
    if leases:
        said.append(f"leases: {one_line(', '.join(valid)) or 'none is valid'}")
    counts = set(off.values()) | ({len(valid)} if leases else set())
    low = min(counts) < there
    yield Finding(
        subject="number of servers",
        evidence=f"{there} servers exist, "
        f"{', '.join(str(each) for each in sorted(counts))} are counted"
        + (": agents leave some out" if low else ": agents look for some in vain"),
        said_by=tuple(said),
        remedy=f"start each server with --server-count={there}, or let servers and agents count "
        "leases (docs/how-to/server-count.md)",
        about=("count",),
        severity=Severity.ERROR if low else Severity.WARNING,
    )


def _matrix(case: Case) -> Iterator[Finding]:
    """Pairs that should be there and are not."""
    missing = list(_missing(case))
    populated = {server.name for server, status in case.statuses if status.agents}
    for agent, server in missing[:MOST]:
        name = name_of(agent)
        others = ", ".join(agent.seen) or "no other"
        met = agent.heartbeat.met_again if agent.heartbeat else 0
        sticky = met >= STICKY and bool(agent.seen)
        evidence = f"not connected; it is on {one_line(others)}"
        if sticky:
            evidence += f"; {met} attempts led to a server that it had already: a balancer sticks"
        said = [f"server {server}: this agent is not among its agents"]
        if agent.heartbeat is not None:
            beat = agent.heartbeat
            servers = ", ".join(each.id for each in beat.servers) or "none"
            said.append(
                one_line(
                    f"heartbeat of agent {name}: wants {beat.servers_wanted} servers, has {servers}"
                )
            )
        yield Finding(
            subject=one_line(f"{name} → server {server}"),
            evidence=evidence,
            said_by=tuple(said),
            remedy=(
                "spread connections by round robin and without affinity to the source, or let "
                "servers tell their own address: --advertise-agent-address"
                if sticky
                else "konnectivity doctor --node on that node tries the way; see also KNC202"
            ),
            about=(name, server),
            explains=() if server in populated else (("agents",),),
            under=(
                ("count",),
                ("token",),
                *(each.hop for each in case.attempts if each.origin == name and not each.worked),
            ),
        )
    if len(missing) > MOST:
        yield Finding(
            subject=f"{len(missing) - MOST} more pairs",
            evidence="not connected either",
            said_by=("servers: their agents",),
            remedy="konnectivity status shows the matrix",
            about=("pairs",),
        )


def _missing(case: Case) -> Iterator[tuple[AgentFacts, str]]:
    for server, status in case.statuses:
        if case.now - status.server.started_at < case.settling:
            continue
        for agent in case.agents:
            beat = agent.heartbeat
            young = beat is not None and case.now - beat.started_at < case.settling
            if server.name not in agent.seen and not young and not agent.draining:
                yield agent, server.name


CHECKS: Final = (
    Check(
        code="KNC206",
        title="Each agent has an id of its own, and one connection to a server",
        layer=Layer.MESH,
        needs=(Source.SERVERS,),
        severity=Severity.WARNING,
        evaluate=_duplicates,
        unknown=Case.server_silence,
    ),
    Check(
        code="KNC202",
        title="Agents know how many servers there are",
        layer=Layer.MESH,
        needs=(Source.AGENTS, Source.CLUSTER),
        evaluate=_counts,
    ),
    Check(
        code="KNC201",
        title="Each agent is connected to each server",
        layer=Layer.MESH,
        needs=(Source.SERVERS,),
        evaluate=_matrix,
        blocked_by=(
            *("KNC101", "KNC102", "KNC104"),
            *WAY,
            *("KNC205", "KNC203", "KNC204", "KNC207", "KNC202"),
        ),
        unknown=Case.server_silence,
    ),
)
