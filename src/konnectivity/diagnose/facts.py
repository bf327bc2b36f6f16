"""What is known of one installation at one moment: `Facts`, for all that tells people of it.

    facts = await gather(sources)          # konnectivity.diagnose.gather

Data only: nothing is asked for here, and nothing is judged. Whatever could not be learned is a
`Problem`, never an exception, and what it would have told is empty: ask `ClusterFacts.knows`
before taking an empty list for an answer. Times are Unix seconds, durations seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from konnectivity.kube.heartbeat import Heartbeat
from konnectivity.observe.status import AgentStatus, Event, Peer, PeerCertificate, ServerStatus

Object = Mapping[str, Any]
"""A Kubernetes object as plain JSON."""

Trouble = Literal[
    "silent", "refused", "tls", "unauthorized", "forbidden", "absent", "unreadable", "missing"
]
"""Why something is unknown: no answer in time; no connection; TLS failed; no or a wrong credential;
no right to it; there is no such thing; the answer makes no sense; it was not asked for."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be learned. `source` is a server's URL, `cluster` or `heartbeats`.

    `what` is what was asked for, `reason` one line, `remedy` what would help, if that is known.
    """

    source: str
    what: str
    trouble: Trouble
    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        help_ = f"; {self.remedy}" if self.remedy else ""
        return f"{self.source}: {self.what} unknown: {self.reason}{help_}"


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a metrics page."""

    name: str
    labels: Mapping[str, str]
    value: float


# Servers


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """One admin address that was asked. `status` is None if it gave none: `error` says why.

    `name` is the server's id, else what was asked. A stock server has `samples` alone: those of
    its `/metrics` page. `events` are those that it keeps, oldest first; `unread` says why they, or
    `metrics`, could not be read. `seconds` is how long the status took to come, `skew` how far the
    server's clock is ahead of ours, give or take that.
    """

    name: str
    url: str
    status: ServerStatus | None = None
    error: str = ""
    trouble: Trouble | None = None
    seconds: float = 0.0
    skew: float | None = None
    samples: tuple[Sample, ...] = ()
    events: tuple[Event, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)

    @property
    def answers(self) -> bool:
        """Whether anything is known of it."""
        return self.status is not None or bool(self.samples)

    def values(self, metric: str, **labels: str) -> list[float]:
        """Values of the metric with any prefix of a program before `metric`, with these labels."""
        return [
            each.value
            for each in self.samples
            if each.name.endswith(metric)
            and all(each.labels.get(name) == value for name, value in labels.items())
        ]


# Agents


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """One agent, put together from what servers, its heartbeat and the cluster tell.

    `id` is the agent's, or the name of its pod if no one has heard of it. `seen` has its
    connections by name of the server, more than one if it has several there. `heard_at` is when it
    last wrote its heartbeat, by its own clock; `silent`: it should have written since. `status` is
    its own answer, where its admin address was asked.
    """

    id: str
    node: str = ""
    pod: str = ""
    seen: Mapping[str, tuple[Peer, ...]] = field(default_factory=dict)
    heartbeat: Heartbeat | None = None
    heard_at: float | None = None
    silent: bool = False
    status: AgentStatus | None = None

    @property
    def peers(self) -> Iterator[Peer]:
        """Its connections, as all servers see them."""
        return (peer for peers in self.seen.values() for peer in peers)

    @property
    def version(self) -> str:
        """Ours, or the user agent of a stock one; empty if nobody knows."""
        if self.heartbeat is not None:
            return self.heartbeat.version
        return next((each.version or each.software for each in self.peers), "")

    @property
    def is_ours(self) -> bool:
        """Whether it is one of ours, which tells more of itself than a stock one."""
        return self.heartbeat is not None or any(each.version for each in self.peers)

    @property
    def certificate(self) -> PeerCertificate | None:
        """What it has shown; of several the one that expires first."""
        shown = [each.certificate for each in self.peers if each.certificate is not None]
        return min(shown, key=lambda each: each.not_after, default=None)

    @property
    def draining(self) -> bool:
        return any(each.draining for each in self.peers)


# The cluster


@dataclass(frozen=True, slots=True)
class Termination:
    """How a container ended: `OOMKilled`, `Error`, `Completed`..."""

    reason: str
    exit_code: int
    message: str
    finished_at: float | None


@dataclass(frozen=True, slots=True)
class PodFacts:
    """One pod of the agents. `reason` and `message` say why it is not ready; empty if it is.

    `reason` is a word of Kubernetes', such as `ImagePullBackOff` or `Unschedulable`.
    """

    name: str
    namespace: str
    node: str
    phase: str
    ready: bool
    restarts: int
    reason: str
    message: str
    ip: str
    image: str
    started_at: float | None
    leaving: bool
    last_termination: Termination | None
    object: Object = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Workload:
    """What makes the agents' pods: a DaemonSet or a Deployment."""

    kind: str
    name: str
    namespace: str
    desired: int
    ready: int
    updated: int
    image: str
    object: Object = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ObjectEvent:
    """A Kubernetes Event about one of our objects; `object` is `Kind/name`."""

    time: float | None
    object: str
    reason: str
    message: str
    warning: bool
    count: int
    component: str


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What the Kubernetes API tells; `url` says which one.

    `workload` is None if there is none, or if `knows("workload")` is false. `policies` are the
    network policies that select the agents' pods. `leases` are the servers' (raw). `nodes` are
    there if they were asked for. `unknown` has the names of the fields that were not read, and
    `heartbeats`: there is a `Problem` for each that was asked for.
    """

    url: str
    version: str = ""
    namespace: str = ""
    selector: str = ""
    workload: Workload | None = None
    pods: tuple[PodFacts, ...] = ()
    policies: tuple[Object, ...] = ()
    leases: tuple[Object, ...] = ()
    nodes: tuple[Object, ...] = ()
    events: tuple[ObjectEvent, ...] = ()
    unknown: frozenset[str] = frozenset()

    def knows(self, name: str) -> bool:
        """Whether the field `name` was read, so that an empty one means that there is nothing."""
        return name not in self.unknown


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it. `cluster` is None if none was asked; if one was meant, a problem says why."""

    taken_at: float
    servers: tuple[ServerFacts, ...] = ()
    agents: tuple[AgentFacts, ...] = ()
    cluster: ClusterFacts | None = None
    problems: tuple[Problem, ...] = ()

    def about(self, source: str) -> Iterable[Problem]:
        """What could not be learned from one source."""
        return (each for each in self.problems if each.source == source)

    @property
    def silent_servers(self) -> list[ServerFacts]:
        """Those of which nothing is known."""
        return [each for each in self.servers if not each.answers]
