"""Agent by server: which of the connections that there should be are there. Pure.

What a server says of its agents decides. Where it was not asked, or does not answer, the agent's
own heartbeat does, while it is fresh.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from konnectivity.diagnose.facts import AgentFacts, Facts, ServerFacts
from konnectivity.kube.heartbeat import MISSED
from konnectivity.kube.leases import State, judge, server_of
from konnectivity.observe.status import Dial, Time

RECENT: Final = 300.0
"""Seconds for which a failed dial is recent."""
MOST_SERVERS: Final = 64
POD_TROUBLE: Final = "pod not ready"

PairState = Literal["ok", "draining", "doubled", "missing", "unknown"]


@dataclass(frozen=True, slots=True)
class Pair:
    """One cell. `doubled`: the agent has several connections to this server at once.

    `round_trip` in seconds; `said_by` is who says so: `server`, `agent`, or nobody.
    """

    server: str
    state: PairState
    round_trip: float | None = None
    said_by: str = ""


@dataclass(frozen=True, slots=True)
class AgentRow:
    """One agent. `trouble` says what is wrong with it in a few words; empty if it is well.

    `dial_p99` is of the dials that servers remember, `failed_recently` counts those that failed in
    the last five minutes. `certificate_not_after` is of what it has shown, else of its file.
    `heard_at` is when it last wrote its heartbeat.
    """

    id: str
    node: str
    pod: str
    version: str
    ours: bool
    pairs: tuple[Pair, ...]
    tunnels: int
    dial_p99: float | None
    failed_recently: int
    certificate_not_after: Time | None
    heard_at: Time | None
    trouble: str

    @property
    def pod_trouble(self) -> bool:
        """Whether the trouble is that its pod is not ready."""
        return self.trouble.startswith(POD_TROUBLE)

    @property
    def connected(self) -> bool:
        return any(each.state in ("ok", "draining", "doubled") for each in self.pairs)


def server_names(facts: Facts) -> list[str]:
    """The columns: servers that were asked, those that have a lease, those that agents name."""
    names = {each.name: None for each in facts.servers}
    leases = facts.cluster.leases if facts.cluster else ()
    for lease in leases:
        if judge(lease, facts.taken_at).state is State.VALID:
            names.setdefault(server_of(lease)[0])
    for agent in facts.agents:
        if agent.heartbeat is not None and not agent.silent:
            for connection in agent.heartbeat.servers:
                names.setdefault(connection.id)
    names.pop("", None)
    # Without an answer a server has no id; what agents call it is already there.
    if len(names) > len(facts.servers):
        for each in facts.silent_servers:
            names.pop(each.name, None)
    return sorted(names)[:MOST_SERVERS]


def rows(facts: Facts, servers: Sequence[str]) -> list[AgentRow]:
    """A row for each agent, those in trouble first."""
    asked = {each.name: each for each in facts.servers}
    dials = _dials(facts.servers)
    columns = [(name, asked.get(name)) for name in servers]
    pods = {each.name: each for each in facts.cluster.pods} if facts.cluster else {}
    found = []
    for agent in facts.agents:
        pairs = tuple(_pair(agent, name, server) for name, server in columns)
        pod = pods.get(agent.pod)
        if pod is not None and pod.leaving:
            pairs = tuple(map(_leaving, pairs))
        leaving = pod is not None and pod.leaving
        unready = f"{POD_TROUBLE}: {pod.reason}" if pod and pod.reason and not leaving else ""
        recent = dials.get(agent.id, ())
        found.append(
            AgentRow(
                id=agent.id,
                node=agent.node,
                pod=agent.pod,
                version=agent.version,
                ours=agent.is_ours,
                pairs=pairs,
                tunnels=_tunnels(agent),
                dial_p99=_p99([each.seconds for each in recent if each.result == "ok"]),
                failed_recently=sum(
                    each.result != "ok" and facts.taken_at - each.time < RECENT for each in recent
                ),
                certificate_not_after=_certificate(agent),
                heard_at=None if agent.heard_at is None else Time(agent.heard_at),
                trouble=unready or _trouble(agent, pairs),
            )
        )
    return sorted(found, key=lambda each: (not each.trouble, -each.failed_recently, each.id))


def _pair(agent: AgentFacts, name: str, server: ServerFacts | None) -> Pair:
    if server is not None and server.status is not None:
        peers = agent.seen.get(name, ())
        if not peers:
            return Pair(name, "missing", said_by="server")
        state: PairState = "doubled" if len(peers) > 1 else "ok"
        if all(each.draining for each in peers):
            state = "draining"
        return Pair(name, state, peers[0].round_trip, "server")
    if agent.heartbeat is None or agent.silent:
        return Pair(name, "unknown")
    for each in agent.heartbeat.servers:
        if each.id == name:
            state = "draining" if agent.heartbeat.state == "draining" else "ok"
            return Pair(name, state, each.round_trip, "agent")
    return Pair(name, "missing", said_by="agent")


def _leaving(pair: Pair) -> Pair:
    """A pod that is being deleted owes no connection."""
    return replace(pair, state="draining") if pair.state == "missing" else pair


def _trouble(agent: AgentFacts, pairs: Sequence[Pair]) -> str:
    missing = [each.server for each in pairs if each.state == "missing"]
    doubled = [each.server for each in pairs if each.state == "doubled"]
    if missing:
        if len(missing) == len(pairs):
            return "connected to no server"
        return f"not connected to {', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
    if short := lacking(agent):
        return short
    if doubled:
        return f"connected more than once to {', '.join(doubled[:3])}"
    if agent.silent:
        return f"no heartbeat, {MISSED} and more are missing"
    return ""


def lacking(agent: AgentFacts) -> str:
    """How many of the servers that it wants an agent has, if some are missing; by its own word.

    It knows of servers that nobody here was told of.
    """
    beat = agent.heartbeat
    if beat is None or agent.silent or beat.state == "draining":
        return ""
    if not beat.servers and not agent.seen:
        return "connected to no server"
    if len(beat.servers) < beat.servers_wanted:
        return f"connected to {len(beat.servers)} of {beat.servers_wanted} servers"
    return ""


def _tunnels(agent: AgentFacts) -> int:
    if agent.seen:
        return sum(each.tunnels.open for each in agent.peers)
    return agent.heartbeat.tunnels if agent.heartbeat else 0


def _certificate(agent: AgentFacts) -> Time | None:
    if agent.certificate is not None:
        return agent.certificate.not_after
    files = agent.heartbeat.certificates if agent.heartbeat else ()
    return next((each.not_after for each in files if each.name == "agent-cert"), None)


def _dials(servers: Iterable[ServerFacts]) -> dict[str, list[Dial]]:
    """What servers remember of dials, by agent; those that failed are told twice."""
    found: dict[str, dict[tuple[object, ...], Dial]] = defaultdict(dict)
    for server in servers:
        if server.status is None:
            continue
        for each in (*server.status.dials.recent, *server.status.dials.recent_failures):
            found[each.peer][server.name, each.time, each.destination] = each
    return {peer: list(dials.values()) for peer, dials in found.items()}


def _p99(seconds: list[float]) -> float | None:
    """The nearest rank; None without any."""
    return sorted(seconds)[math.ceil(len(seconds) * 0.99) - 1] if seconds else None
