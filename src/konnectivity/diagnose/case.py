"""Everything that checks may look at: `Case`. Collected before, judged afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from konnectivity.diagnose.attempt import Attempt, Cause, classify
from konnectivity.diagnose.check import Source
from konnectivity.diagnose.facts import AgentFacts, Facts, ServerFacts
from konnectivity.diagnose.surroundings import Surroundings
from konnectivity.gotext import one_line
from konnectivity.lifecycle.reconciling.plan import Action
from konnectivity.lifecycle.specification.spec import AgentSpec
from konnectivity.observe.status import Event, ServerStatus

SETTLING: Final = 30.0
"""Seconds after the start of a server or an agent in which pairs may still be missing."""
RECENT: Final = 900.0
"""Seconds for which an event of a server counts."""
STALE: Final = 600.0
"""Seconds after which an agent's last failure says nothing of the way as it is now."""
_KINDS: Final = {
    "pods": ("Pod",),
    "workload": ("DaemonSet", "Deployment"),
    "policies": ("NetworkPolicy",),
    "leases": ("Lease",),
    "events": ("Event",),
}
"""Fields of `ClusterFacts`, and the kinds that problems with them are about."""
REFUSALS: Final = frozenset(["handshake_failed", "agent_refused"])
"""Events of a server about agents that did not come through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetDial:
    """One end-to-end dial through a server's frontend: to a kubelet, webhook, API service.

    `kind` and `name` say for whom, `address` where to. `error` is empty if it came through; then
    `tls` says whether TLS was spoken. `stage` is `frontend`, `dial` or `tls`.
    """

    kind: str
    name: str
    address: str
    frontend: str
    stage: str = ""
    error: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """kube-apiserver's egress selector file. `content` is None if it is not to be read."""

    path: str
    content: Any = None
    error: str = ""
    doors: Mapping[str, str] = field(default_factory=dict)
    """Why each socket or port that it names does not answer; empty if it does."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run's evidence. What a mode does not collect is empty, and not among `sources`.

    `probes` are attempts made from here, `dials` end-to-end ones. `drift` is what the manager would
    do; None: not compared. `settling` is how long after a start pairs may be missing, in seconds.
    `clocks` are time servers, and by how many seconds each is ahead of us.
    `asked` are sources that were asked for, whether or not they answered.
    """

    facts: Facts
    probes: tuple[Attempt, ...] = ()
    dials: tuple[TargetDial, ...] = ()
    surroundings: Surroundings | None = None
    spec: AgentSpec | None = None
    drift: tuple[Action, ...] | None = None
    egress: Egress | None = None
    clocks: Mapping[str, float] = field(default_factory=dict)
    settling: float = SETTLING
    asked: frozenset[Source] = frozenset()

    @cached_property
    def sources(self) -> frozenset[Source]:
        """Where something is known from."""
        cluster = self.facts.cluster
        there = {
            Source.SERVERS: any(each.answers for each in self.facts.servers),
            Source.AGENTS: any(each.heartbeat or each.status for each in self.facts.agents),
            Source.CLUSTER: (cluster is not None and any(map(cluster.knows, _KINDS)))
            or bool(self.surroundings and self.surroundings.objects),
            Source.ATTEMPTS: bool(self.attempts),
            Source.DIALS: bool(self.dials),
            Source.SPEC: self.spec is not None,
            Source.EGRESS: self.egress is not None,
            Source.CLOCKS: bool(self.clocks),
        }
        return frozenset(source for source, known in there.items() if known)

    def silence(self, source: Source) -> str:
        """Why a source that was asked told nothing."""
        if source is Source.SERVERS:
            return self.server_silence() or "no server answers"
        told = [str(each) for each in self.facts.about("cluster")]
        return one_line("; ".join(told[:3])) or f"nothing was learned from {source}"

    @property
    def now(self) -> float:
        return self.facts.taken_at

    def is_recent(self, time: float) -> bool:
        """Whether something that a server saw still says how things are."""
        return time > self.now - RECENT

    @cached_property
    def attempts(self) -> tuple[Attempt, ...]:
        """Those of heartbeats, and those that were made from here."""
        return (*_from_heartbeats(self.facts), *self.probes)

    def failed(self, *causes: Cause) -> Iterator[Attempt]:
        """Attempts that failed for one of these causes."""
        return (each for each in self.attempts if each.cause in causes)

    @property
    def statuses(self) -> Iterator[tuple[ServerFacts, ServerStatus]]:
        """Servers that told their status."""
        return ((each, each.status) for each in self.facts.servers if each.status is not None)

    @property
    def agents(self) -> Sequence[AgentFacts]:
        return self.facts.agents

    def sights(self, attempt: Attempt) -> list[str]:
        """What the servers say of an attempt, a line each."""
        return [
            f"server {each.name}: {_saw(each, attempt, self._traces(each, attempt), self.now)}"
            for each in self.facts.servers
        ]

    def saw_nothing(self, attempt: Attempt) -> bool:
        """Whether all servers that could have seen it say that nothing came."""
        telling = [
            each for each in self.facts.servers if each.status and "events" not in each.unread
        ]
        return bool(telling) and not any(self._traces(each, attempt) for each in telling)

    @cached_property
    def _refusals(self) -> Mapping[str, Mapping[str, list[Event]]]:
        """Events about agents that did not come through, by server and by the host they are of."""
        found: dict[str, dict[str, list[Event]]] = {}
        for server in self.facts.servers:
            hosts = found.setdefault(server.name, {})
            for event in server.events:
                if event.kind in REFUSALS:
                    host = host_of(str(event.facts.get("address") or ""))
                    hosts.setdefault(host, []).append(event)
        return found

    def _traces(self, server: ServerFacts, attempt: Attempt) -> list[Event]:
        """What may be about an attempt: by its addresses, where they are known, else all."""
        hosts = self._refusals[server.name]
        wanted = {host_of(each) for each in attempt.sources} or set(hosts)
        found = [event for host in wanted for event in hosts.get(host, ())]
        return sorted(found, key=lambda each: each.time)

    def server_silence(self) -> str:
        """Why servers could not be asked; empty if all answered."""
        silent = self.facts.silent_servers
        return one_line("; ".join(f"server {each.name}: {each.error}" for each in silent))

    def unread(self, *names: str) -> str:
        """Why these parts of the cluster could not be read; empty if they were.

        Parts are fields of `ClusterFacts` and kinds of `Surroundings`.
        """
        told = []
        cluster, around = self.facts.cluster, self.surroundings
        for name in names:
            if cluster is not None and name in _KINDS and not cluster.knows(name):
                problems = self.facts.about("cluster")
                known = [str(each) for each in problems if each.what.startswith(_KINDS[name])]
                told += known or [self.silence(Source.CLUSTER)]
            if around is not None and name in around.unread:
                told.append(around.unread[name])
        return one_line("; ".join(dict.fromkeys(told)))


def name_of(agent: AgentFacts) -> str:
    """An agent as people know it: by its node, else its pod, else its id."""
    return one_line((agent.node or agent.pod or agent.id)[:80])


def _from_heartbeats(facts: Facts) -> Iterator[Attempt]:
    pods = {each.name: each for each in facts.cluster.pods} if facts.cluster else {}
    for agent in facts.agents:
        beat = agent.heartbeat
        if beat is None:
            continue
        name = name_of(agent)
        witness = f"heartbeat of agent {name}"
        pod = pods.get(agent.pod)
        sources = {host_of(each.address) for each in agent.peers}
        if pod is not None:
            status = pod.object.get("status") or {}
            sources |= {str(each) for each in (pod.ip, status.get("hostIP")) if each}
        for failure in beat.failures:
            if failure.at < beat.updated_at - STALE:
                continue
            yield Attempt(
                origin=name,
                target=one_line(failure.target),
                witness=witness,
                stage=failure.stage,
                cause=classify(failure.stage, failure.error),
                error=one_line(failure.error),
                at=failure.at,
                times=failure.times,
                sources=tuple(sorted(sources)),
            )
        for server in beat.servers:
            yield Attempt(
                origin=name, target=one_line(server.id), witness=witness, at=beat.updated_at
            )


def _saw(server: ServerFacts, attempt: Attempt, traces: Sequence[Event], now: float) -> str:
    if server.status is None:
        return f"not known, {server.error or 'it has no status API'}"
    origin = " or ".join(sorted({host_of(each) for each in attempt.sources})) or "unknown agents"
    if not traces:
        up = max(0.0, now - server.status.server.started_at)
        return f"saw no failed attempt from {origin} since its start {_span(up)} ago"
    last = traces[-1]
    what = "a TLS handshake failed" if last.kind == "handshake_failed" else "refused an agent"
    ago = _span(max(0.0, now - last.time))
    return one_line(f"{what} {ago} ago from {last.facts.get('address')}: {last.facts.get('error')}")


def host_of(address: str) -> str:
    """The host of `host:port`; an address without a port is one already."""
    head, colon, _ = address.rpartition(":")
    alone = not colon or (address.count(":") > 1 and not address.startswith("["))
    return (address if alone else head).strip("[]")


def _span(seconds: float) -> str:
    """A time span for people."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def moment(seconds: float) -> str:
    """A moment for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
