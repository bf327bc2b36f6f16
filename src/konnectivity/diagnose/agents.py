"""Who the agents are: one list of what servers, heartbeats and pods tell of the same agent. Pure.

An agent's id joins what servers and heartbeats say. To a pod it belongs by the heartbeat, by an id
that is the pod's name, by the address it comes from, or by the node it says it is near to.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from konnectivity.diagnose.facts import AgentFacts, PodFacts, Problem, ServerFacts
from konnectivity.gotext import one_line
from konnectivity.kube import heartbeat
from konnectivity.kube.leases import name_of
from konnectivity.net.address import AddressError, split_host_port
from konnectivity.observe.status import AgentStatus, Peer

FORGOTTEN: Final = 3600.0
"""Seconds after which an agent without pod and connection is no longer one."""
MOST_ODD: Final = 3
"""Leases that cannot be read and are named."""


def combine(
    servers: Iterable[ServerFacts],
    statuses: Iterable[AgentStatus],
    leases: Iterable[Mapping[str, Any]],
    pods: Sequence[PodFacts],
    *,
    now: float,
) -> tuple[list[AgentFacts], list[Problem]]:
    """All agents by id, and what is wrong with heartbeats."""
    agents: dict[str, AgentFacts] = {}
    for agent_id, seen in _seen(servers).items():
        agents[agent_id] = AgentFacts(agent_id, seen=seen)
    problems = []
    for lease in leases:
        try:
            beat = heartbeat.read(lease)
        except (ValueError, OverflowError) as error:
            problems.append((name_of(lease), str(error)))
            continue
        found = agents.get(beat.agent, AgentFacts(beat.agent))
        known = _with_heartbeat(found, beat, lease, now)
        if found.heard_at is None or (known.heard_at or 0.0) > found.heard_at:
            agents[beat.agent] = known
    for status in statuses:
        found = agents.get(status.agent.id, AgentFacts(status.agent.id))
        agents[status.agent.id] = replace(found, status=status)
    _join(agents, pods)
    present = [each for each in agents.values() if not _is_forgotten(each, now)]
    return sorted(present, key=lambda each: each.id), _problems(problems)


def _seen(servers: Iterable[ServerFacts]) -> dict[str, dict[str, tuple[Peer, ...]]]:
    """Connections by agent and server; agents of earlier builds may have several at one."""
    found: dict[str, dict[str, tuple[Peer, ...]]] = defaultdict(dict)
    for server in servers:
        for peer in server.status.agents if server.status else ():
            at = found[peer.id]
            at[server.name] = (*at.get(server.name, ()), peer)
    return found


def _with_heartbeat(
    agent: AgentFacts, beat: heartbeat.Heartbeat, lease: Mapping[str, Any], now: float
) -> AgentFacts:
    heard = heartbeat.renewed_at(lease)
    silent = heard is None or now - heard > heartbeat.duration(lease)
    return replace(
        agent, node=beat.node, pod=beat.pod, heartbeat=beat, heard_at=heard, silent=silent
    )


def _join(agents: dict[str, AgentFacts], pods: Sequence[PodFacts]) -> None:
    """Give each agent its pod, and each pod that no one has heard of a place in the list."""
    free = {each.name: each for each in pods}
    waiting = []
    for agent in list(agents.values()):
        pod = free.pop(agent.pod, None) or free.pop(agent.id, None)
        if pod is None:
            if pods:  # its heartbeat names one that is gone
                agent = agents[agent.id] = replace(agent, pod="")
            waiting.append(agent)
        else:
            agents[agent.id] = replace(agent, pod=pod.name, node=agent.node or pod.node)
    by_place = _by_place(free.values())
    for agent in waiting:
        found = next((by_place[place] for place in _places(agent) if place in by_place), None)
        pod = free.pop(found, None) if found else None
        if pod is not None:
            agents[agent.id] = replace(agent, pod=pod.name, node=agent.node or pod.node)
        elif not agent.node:
            agents[agent.id] = replace(agent, node=_host(agent))
    for name, pod in free.items():
        agents.setdefault(name, AgentFacts(name, node=pod.node, pod=name))


def _by_place(pods: Iterable[PodFacts]) -> dict[str, str]:
    """Names of pods by address and by node, where there is one pod alone."""
    places: dict[str, list[str]] = defaultdict(list)
    for pod in pods:
        for place in {pod.ip, pod.node} - {""}:
            places[place].append(pod.name)
    return {place: names[0] for place, names in places.items() if len(names) == 1}


def _places(agent: AgentFacts) -> Iterable[str]:
    """Where an agent may be: addresses that servers see, its node's name and address."""
    for peer in agent.peers:
        with contextlib.suppress(AddressError):
            yield split_host_port(peer.address)[0]
        for kind in ("host", "ipv4", "ipv6"):
            yield from peer.identifiers.get(kind, ())


def _host(agent: AgentFacts) -> str:
    """The node's name, as the agent tells servers."""
    return next((name for peer in agent.peers for name in peer.identifiers.get("host", ())), "")


def _is_forgotten(agent: AgentFacts, now: float) -> bool:
    if agent.seen or agent.pod or agent.status or not agent.silent:
        return False
    return now - (agent.heard_at or 0.0) > FORGOTTEN


def _problems(odd: Sequence[tuple[str, str]]) -> list[Problem]:
    """Heartbeats that cannot be read, the first ones by name."""
    if not odd:
        return []
    told = "; ".join(f"{one_line(name)}: {one_line(why)[:200]}" for name, why in odd[:MOST_ODD])
    more = f"; and {len(odd) - MOST_ODD} more" if len(odd) > MOST_ODD else ""
    return [Problem("heartbeats", f"{len(odd)} of them", "unreadable", told + more)]
