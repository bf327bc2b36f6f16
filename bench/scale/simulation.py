"""Agents and servers past one machine: a discrete-event model with measured costs.

An agent here keeps the rules of `konnectivity.agent.connections`, with its own back-off and the
intervals that ship: one attempt at a time; the next one an interval after a success, and longer
each time after a failure or a server that it is at already; lost links replaced within a tenth of
an interval; where servers are known the balancer is tried now and then only, as `Targets` has it.
A server is a queue for one core: each connection costs it CPU, whoever waits longer
than the handshake may take has cost it and gets nothing, and beyond the kernel's accept queue a
connection is tried again when TCP does.

What is not modelled: the network (a round trip is a constant), tunnels, and the agents' own CPU,
of which there is a machine for each.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from konnectivity.agent.connections import BACKOFF_FACTOR, JITTER
from konnectivity.agent.targets import DIRECT_TIMEOUT, PATIENCE, UNANSWERED
from konnectivity.net.backoff import Backoff, lengthened
from konnectivity.net.bind import BACKLOG
from konnectivity.net.connect import CONNECT_TIMEOUT
from konnectivity.net.handshake import HANDSHAKE_TIMEOUT
from konnectivity.net.listen import ListenerLimits

SYN_RETRIES: Final = (1.0, 3.0, 7.0, 15.0)
"""Seconds after the first SYN at which Linux sends it again (tcp_syn_retries)."""
ROUND_TRIPS: Final = 4
"""TCP, TLS 1.3, HTTP/2 with the call, and its answer: each before an agent counts a link."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What one connection costs: CPU seconds of the server, and a round trip in seconds.

    One to an agent that is there already is counted as dear as the first: most of it is TLS.
    """

    accept: float
    round_trip: float = 0.02


@dataclass(frozen=True, slots=True)
class Fleet:
    """`clusters` alike, each with `agents` agents and `servers` servers.

    `cores` is what the machine that the first servers of all clusters share has, likewise for the
    second ones: 0 means a core for each server. With `direct` an agent that has met one server
    knows where the others are; otherwise a balancer picks one at random.
    """

    agents: int
    servers: int
    clusters: int = 1
    cores: int = 0
    direct: bool = False


@dataclass(slots=True)
class Queue:
    """The CPU that servers share: when each core is free."""

    cores: list[float]
    work: float = 0.0
    waiting: list[float] = field(default_factory=list)
    """When each that waits will be taken, a heap."""

    def take(self, now: float, cost: float) -> float:
        """The time at which work that arrives now is done."""
        free = heapq.heappop(self.cores)
        begin = max(free, now)
        heapq.heappush(self.cores, begin + cost)
        heapq.heappush(self.waiting, begin)
        self.work += cost
        return begin + cost

    def length(self, now: float) -> int:
        """How many wait."""
        while self.waiting and self.waiting[0] <= now:
            heapq.heappop(self.waiting)
        return len(self.waiting)


class Server:
    """One server: up or down, and the queue of its machine."""

    __slots__ = ("agents", "queue", "up")

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.up = True
        self.agents: set[Agent] = set()


class Agent:
    """One agent: what it is connected to, and how long it waits."""

    __slots__ = ("backoff", "cluster", "in_vain", "led", "links", "tried", "turn")

    def __init__(self, cluster: Sequence[Server], interval: float, cap: float) -> None:
        self.cluster = cluster
        self.links: set[Server] = set()
        self.led: set[Server] = set()
        """Those that it has reached at their own address."""
        self.in_vain: dict[Server, int] = {}
        """Failures there since it has, or since it tried the balancer."""
        self.tried: dict[Server, float] = {}
        self.backoff = Backoff(interval, cap, factor=BACKOFF_FACTOR, jitter=JITTER)
        self.turn = 0
        """Counts its plans: only the last one made is carried out."""


class _Try(NamedTuple):
    """One attempt: void once the agent has another plan. `since` is when it began."""

    agent: Agent
    server: Server
    direct: bool
    turn: int
    since: float


@dataclass(slots=True)
class Outcome:
    """What a run has shown. `mesh` are pairs of a time and the share of links that are there."""

    mesh: list[tuple[float, float]] = field(default_factory=list)
    attempts: int = 0
    surplus: int = 0
    timeouts: int = 0

    def time_to(self, share: float, *, after: float = 0.0) -> float:
        """Seconds from `after` until `share` of all links was there for good; inf: never."""
        since = float("inf")
        for at, there in self.mesh:
            if there < share:
                since = float("inf")
            elif since == float("inf"):
                since = at
        return max(0.0, since - after)


class Simulation:
    """One run. Times are seconds from its beginning."""

    def __init__(
        self,
        fleet: Fleet,
        costs: Costs,
        *,
        interval: float = 1.0,
        cap: float = 10.0,
        seed: int = 1,
        look: float = 0.1,
    ) -> None:
        self.fleet, self.costs, self.interval, self.look = fleet, costs, interval, look
        self.now = 0.0
        self.outcome = Outcome()
        self._random = random.Random(seed)  # noqa: S311 - repeatable
        random.seed(seed)  # what ships takes its jitter from there
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._limit = BACKLOG + ListenerLimits().handshakes
        machines = [Queue([0.0] * fleet.cores) for _ in range(fleet.servers)]
        self.clusters = [
            [Server(machines[n] if fleet.cores else Queue([0.0])) for n in range(fleet.servers)]
            for _ in range(fleet.clusters)
        ]
        self.agents = [
            Agent(cluster, interval, cap) for cluster in self.clusters for _ in range(fleet.agents)
        ]
        self.links = 0

    def connected(self) -> None:
        """Begin with every link there; the first of each agent was made by the balancer."""
        for agent in self.agents:
            for server in agent.cluster:
                self._link(agent, server)
            if self.fleet.direct:
                agent.led |= agent.links - {self._random.choice(agent.cluster)}

    def arrive(self, within: float) -> None:
        """Let all agents start at random within so many seconds."""
        for agent in self.agents:
            self._plan(agent, self._random.random() * within)

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do something at a time."""
        self._count += 1
        heapq.heappush(self._events, (when, self._count, action))

    def stop(self, servers: Iterable[Server]) -> None:
        """Take servers down: their agents notice at once, and look for others."""
        for server in servers:
            server.up = False
            agents, server.agents = server.agents, set()
            for agent in agents:
                agent.links.discard(server)
                self.links -= 1
                agent.backoff.reset()
                self._plan(agent, self._random.random() * self.interval * JITTER)

    def start(self, servers: Iterable[Server]) -> None:
        """Bring servers back."""
        for server in servers:
            server.up = True

    def run(self, until: float) -> Outcome:
        """Let time pass; look at the mesh at intervals."""
        self.at(0.0, self._see)
        while self._events and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()
        return self.outcome

    def _see(self) -> None:
        full = len(self.agents) * self.fleet.servers
        self.outcome.mesh.append((self.now, self.links / full))
        self.at(self.now + self.look, self._see)

    def _plan(self, agent: Agent, pause: float) -> None:
        agent.turn += 1
        turn = agent.turn
        self.at(self.now + pause, lambda: self._attempt(agent) if agent.turn == turn else None)

    def _attempt(self, agent: Agent) -> None:
        missing = [each for each in agent.cluster if each not in agent.links]
        if not missing:
            return
        if not self.fleet.direct or not agent.links:
            self._balanced(agent)
            return
        server = min(missing, key=lambda each: agent.tried.get(each, 0.0))
        agent.tried[server] = self.now
        if server.up:
            self._try(agent, server, direct=True)
        else:  # refused: nobody listens
            self._missed(agent, server)

    def _balanced(self, agent: Agent) -> None:
        up = [each for each in agent.cluster if each.up]
        if up:
            self._try(agent, self._random.choice(up), direct=False)
        else:
            self._plan(agent, agent.backoff.next())

    def _missed(self, agent: Agent, server: Server, counts: int = 1) -> None:
        """Nothing at the server's own address: the balancer, or patience (`Targets.failed`)."""
        agent.in_vain[server] = agent.in_vain.get(server, 0) + counts
        if agent.in_vain[server] < PATIENCE:
            self._plan(agent, agent.backoff.next())
            return
        if server in agent.led:
            agent.in_vain[server] = 0
        self._balanced(agent)

    def _try(self, agent: Agent, server: Server, *, direct: bool) -> None:
        self.outcome.attempts += 1
        self._knock(_Try(agent, server, direct, agent.turn, self.now))

    def _knock(self, one: _Try) -> None:
        """The SYN: it is lost while the accept queue is full, and sent again."""
        if one.agent.turn != one.turn:
            return
        if one.server.queue.length(self.now) < self._limit:
            self._serve(one)
            return
        limit = one.since + (DIRECT_TIMEOUT if one.direct else CONNECT_TIMEOUT)
        later = [one.since + pause for pause in SYN_RETRIES if one.since + pause > self.now]
        if later and later[0] < limit:
            self.at(later[0], lambda: self._knock(one))
        else:
            self.at(limit, lambda: self._late(one))

    def _serve(self, one: _Try) -> None:
        taken = one.server.queue.take(self.now, self.costs.accept)
        done = taken + ROUND_TRIPS * self.costs.round_trip
        deadline = min(self.now + HANDSHAKE_TIMEOUT, one.since + CONNECT_TIMEOUT)
        if done > deadline:
            self.at(deadline, lambda: self._late(one))
        else:
            self.at(done, lambda: self._answered(one))

    def _answered(self, one: _Try) -> None:
        agent, server = one.agent, one.server
        if agent.turn != one.turn:
            return
        if not server.up:
            self._plan(agent, agent.backoff.next())
        elif server in agent.links:
            self.outcome.surplus += 1
            self._plan(agent, agent.backoff.next())
        else:
            first = not agent.links
            self._link(agent, server)
            if one.direct:
                agent.led.add(server)
                agent.in_vain.pop(server, None)
            agent.backoff.reset()
            # The first one tells how many there are: the next look is within an interval.
            pause = self._random.random() if first else lengthened(1.0, JITTER)
            self._plan(agent, pause * self.interval)

    def _late(self, one: _Try) -> None:
        if one.agent.turn != one.turn:
            return
        self.outcome.timeouts += 1
        if one.direct:
            self._missed(one.agent, one.server, UNANSWERED)
        else:
            self._plan(one.agent, one.agent.backoff.next())

    def _link(self, agent: Agent, server: Server) -> None:
        agent.links.add(server)
        server.agents.add(agent)
        self.links += 1
