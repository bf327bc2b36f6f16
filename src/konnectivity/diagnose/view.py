"""What `konnectivity status` says, as data: one type for the screen and for JSON. Pure.

    view = look(facts)

`SCHEMA` names the form of the JSON document: fields are added to it, and one that goes away or
changes its meaning makes another schema. Reference: docs/reference/status.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from konnectivity.diagnose.causes import Cause, causes
from konnectivity.diagnose.facts import Facts, ServerFacts
from konnectivity.diagnose.matrix import AgentRow, Pair, lacking, rows, server_names
from konnectivity.gotext import one_line
from konnectivity.lifecycle.reconciling.plan import MANAGER
from konnectivity.observe.status import Time

SCHEMA: Final = "konnectivity.status/v1"
HEALS: Final = frozenset(["Restored", "DriftReverted"])
"""Reasons of Events that tell of something put right (lifecycle/reconciling/reconcile.py)."""

Verdict = Literal["healthy", "degraded", "down", "unknown"]
Answer = Literal["ok", "bad", "unknown"]
EXIT_STATUS: Final[dict[str, int]] = {"healthy": 0, "degraded": 1, "down": 1, "unknown": 3}


@dataclass(frozen=True, slots=True)
class Step:
    """One of the first four questions: pods, policies, network, errors."""

    name: str
    answer: Answer
    text: str


@dataclass(frozen=True, slots=True)
class ServerRow:
    """One server. `state`: ready, or why not in a word. A stock one tells less: None is unknown.

    `dials_failed` counts all since its start.
    """

    name: str
    url: str
    state: str
    version: str
    started_at: Time | None
    agents: int | None
    tunnels: int | None
    pending_dials: int | None
    dials_failed: int | None
    certificate_not_after: Time | None
    error: str


@dataclass(frozen=True, slots=True)
class Heal:
    """The last thing that a manager put right."""

    at: Time | None
    object: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusView:
    """All of it. `cluster` is the API's address; empty if it was not asked.

    `unknown` is what could not be learned, a line each.
    """

    schema: str = SCHEMA
    taken_at: Time
    verdict: Verdict
    summary: str
    cluster: str
    cluster_version: str
    steps: tuple[Step, ...]
    servers: tuple[ServerRow, ...]
    agents: tuple[AgentRow, ...]
    causes: tuple[Cause, ...]
    last_heal: Heal | None
    unknown: tuple[str, ...]

    @property
    def pairs(self) -> Iterator[Pair]:
        return (pair for agent in self.agents for pair in agent.pairs)


def look(facts: Facts) -> StatusView:
    """What the facts amount to."""
    names = server_names(facts)
    agents = rows(facts, names)
    servers = [_server(each) for each in facts.servers]
    found = tuple(causes(facts))
    verdict, summary = _judge(facts, servers, agents, found)
    cluster = facts.cluster
    return StatusView(
        taken_at=Time(facts.taken_at),
        verdict=verdict,
        summary=summary,
        cluster=cluster.url if cluster else "",
        cluster_version=cluster.version if cluster else "",
        steps=tuple(_steps(facts, agents)),
        servers=tuple(servers),
        agents=tuple(agents),
        causes=found,
        last_heal=_last_heal(facts),
        unknown=tuple(map(str, facts.problems)),
    )


def _server(facts: ServerFacts) -> ServerRow:
    status = facts.status
    if status is None:
        stock = bool(facts.samples)
        return ServerRow(
            name=facts.name,
            url=facts.url,
            state="stock" if stock else facts.trouble or "unknown",
            version="",
            started_at=None,
            agents=_total(facts, "ready_backend_connections"),
            tunnels=_total(facts, "established_connections"),
            pending_dials=_total(facts, "pending_backend_dials"),
            dials_failed=_total(facts, "dial_failure_count"),
            certificate_not_after=None,
            error="no status API: a stock server" if stock else facts.error,
        )
    expiries = [each.not_after for each in status.server.certificates]
    return ServerRow(
        name=facts.name,
        url=facts.url,
        state="ready" if status.server.ready else status.server.state,
        version=status.server.version,
        started_at=status.server.started_at,
        agents=len(status.agents),
        tunnels=status.tunnel_counts.open,
        pending_dials=status.dials.pending,
        dials_failed=sum(status.dials.failed.values()),
        certificate_not_after=min(expiries, default=None),
        error=status.server.unready,
    )


def _total(facts: ServerFacts, metric: str) -> int | None:
    found = facts.values(metric)
    return int(sum(found)) if found else None


# The verdict


def _judge(
    facts: Facts, servers: Sequence[ServerRow], agents: Sequence[AgentRow], found: Sequence[Cause]
) -> tuple[Verdict, str]:
    pairs = [pair for agent in agents for pair in agent.pairs]
    missing = sum(each.state == "missing" for each in pairs)
    known = sum(each.state != "unknown" for each in pairs)
    here = sum(each.state in ("ok", "draining", "doubled") for each in pairs)
    answering = [each for each in facts.servers if each.status is not None]
    short = [each for each in facts.agents if lacking(each)]
    if not here and known == len(pairs) and (pairs or short):
        return "down", f"no agent is connected to any server ({_count(len(agents), 'agent')})"
    if answering and not agents:
        return "down", "no agent is connected, and none is known"
    if missing:
        return "degraded", f"{missing} of {len(pairs)} agent-server pairs missing"
    if short:
        return "degraded", f"{_count(len(short), 'agent')} not connected to all servers they want"
    if unready := [each.name for each in servers if each.state in ("running", "stopping")]:
        return "degraded", f"{_count(len(unready), 'server')} not ready: {', '.join(unready[:3])}"
    if worst := next((each for each in found if each.error), None):
        return "degraded", f"{worst.code} {worst.subject}"
    if facts.servers and not known and len(facts.silent_servers) == len(facts.servers):
        asked = _count(len(facts.servers), "server was", "servers were")
        return "unknown", f"no server answers, {asked} asked, and no heartbeat tells"
    if not known:
        return "unknown", "neither a server nor a heartbeat tells which agents are connected"
    if silent := len(facts.silent_servers):
        return "unknown", f"{_count(silent, 'server')} gave no answer; what is known is well"
    if known < len(pairs):
        return "unknown", f"{len(pairs) - known} of {len(pairs)} pairs are not known; others are"
    return "healthy", f"{_count(len(pairs), 'agent-server pair')}, none missing"


# The first four questions


def _steps(facts: Facts, agents: Sequence[AgentRow]) -> Iterator[Step]:
    yield _pods(facts)
    yield _policies(facts)
    yield _network(facts, agents)
    yield _errors(facts, agents)


def _pods(facts: Facts) -> Step:
    cluster = facts.cluster
    if cluster is None or not cluster.knows("pods"):
        return Step("pods", "unknown", "the Kubernetes API was not asked or did not answer")
    wanted = cluster.workload.desired if cluster.workload else len(cluster.pods)
    if cluster.workload is None and cluster.knows("workload"):
        where = f"in namespace {cluster.namespace} with {cluster.selector}"
        return Step("pods", "bad", f"no workload of agents {where}")
    ready = sum(each.ready for each in cluster.pods)
    restarts = sum(each.restarts for each in cluster.pods)
    text = f"{ready} of {wanted} ready"
    if reasons := Counter(each.reason for each in cluster.pods if each.reason):
        text += f", {_counted(reasons.items())}"
    if restarts:
        text += f", {_count(restarts, 'restart')}"
    return Step("pods", "ok" if ready >= wanted > 0 else "bad", text)


def _policies(facts: Facts) -> Step:
    cluster = facts.cluster
    if cluster is None or not cluster.knows("policies"):
        return Step("policies", "unknown", "network policies were not read")
    names = [str(each["metadata"]["name"]) for each in cluster.policies]
    if not names:
        return Step("policies", "ok", "no network policy selects the agents")
    text = f"{_count(len(names), 'network policy', 'network policies')} on the agents: "
    return Step("policies", "ok", text + ", ".join(sorted(names)[:5]))


def _network(facts: Facts, agents: Sequence[AgentRow]) -> Step:
    """Firewalls: whether agents reach servers, and at which stage they fail."""
    fresh = [each for each in facts.agents if each.heartbeat and not each.silent]
    failing: Counter[str] = Counter()
    for agent in fresh:
        if agent.heartbeat and len(agent.heartbeat.servers) < agent.heartbeat.servers_wanted:
            failing.update({each.stage for each in agent.heartbeat.failures})
    if failing:
        return Step(
            "network", "bad", f"agents fail to connect, by stage: {_counted(failing.items())}"
        )
    # A pod that does not run is no matter of the network.
    pairs = [pair for agent in agents for pair in agent.pairs if not agent.pod_trouble]
    if any(each.state == "missing" for each in pairs):
        heard = "" if fresh else "; no agent writes a heartbeat that would say why"
        return Step("network", "bad", f"servers lack connections of agents{heard}")
    if pairs and all(each.state != "unknown" for each in pairs):
        return Step("network", "ok", "every agent reaches every server")
    return Step("network", "unknown", "neither servers nor agents say")


def _errors(facts: Facts, agents: Sequence[AgentRow]) -> Step:
    statuses = [each.status for each in facts.servers if each.status is not None]
    if not statuses:
        return Step("errors", "unknown", "no server tells of dials")
    recent = sum(each.failed_recently for each in agents)
    reasons: Counter[str] = Counter()
    for status in statuses:
        reasons.update(status.dials.failed)
    done = sum(each.dials.succeeded for each in statuses)
    text = f"{_count(recent, 'failed dial')} in 5 min; {done} dials succeeded since the start"
    if reasons:
        text += f", {_counted(reasons.most_common(3))}"
    return Step("errors", "bad" if recent else "ok", text)


def _last_heal(facts: Facts) -> Heal | None:
    """The newest Event of a manager about something that it put back; they are newest first."""
    for each in facts.cluster.events if facts.cluster else ():
        if each.component == MANAGER and each.reason in HEALS:
            at = None if each.time is None else Time(each.time)
            return Heal(at, each.object, each.reason, one_line(each.message))
    return None


def _count(number: int, what: str, many: str = "") -> str:
    return f"{number} {what if number == 1 else many or what + 's'}"


def _counted(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{one_line(name)} x{number}" for name, number in counts)
