"""The exchange: gives each dial of a frontend to an agent and keeps its time limit.

It owns what all frontends and agents of the process share: the table of agents, the memory
budget, the counters. It does not know how frontends or agents speak.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
from collections.abc import Sequence
from typing import Final, Protocol

from konnectivity.net.deadlines import Deadline, Deadlines
from konnectivity.observe import logs
from konnectivity.observe.access_log import Visit
from konnectivity.observe.events import Events
from konnectivity.observe.journal import Journal
from konnectivity.server.counters import ServerCounters
from konnectivity.server.liveness import Liveness
from konnectivity.tunnel.budget import Budget, TunnelLimits
from konnectivity.tunnel.reason import Failure, Refusal
from konnectivity.tunnel.routing import RANDOM, Backends
from konnectivity.tunnel.server import Frontend, ServerTunnel

log = logs.get(__name__)

NO_AGENT: Final = "No agent available"
"""kube-apiserver's users know this text; it is upstream's."""
FLUSH_LIMIT: Final = 30.0
"""Seconds a slow endpoint may take for what a frontend sent before it left."""


def _any_of(size: int) -> int:
    """A random number below `size`: as even as agents need it, and a third of randrange's price."""
    return int(random.random() * size)  # noqa: S311 - no secret


class Caller(Frontend, Protocol):
    """A frontend that asks for a dial."""

    @property
    def peer(self) -> str:
        """Where it connects from."""


class Exchange:
    """Where frontends and agents of one server meet. `dial_timeout` in seconds.

    `strategies` and `selection` are those of `Backends`. With `retry_dials`, a dial that an agent
    failed, not the endpoint, is given to another one, once and within its time limit.
    """

    def __init__(
        self,
        *,
        dial_timeout: float,
        limits: TunnelLimits | None = None,
        strategies: Sequence[str] = ("default",),
        selection: str = RANDOM,
        retry_dials: bool = True,
    ) -> None:
        self.limits = limits or TunnelLimits()
        self.budget = Budget(self.limits.process)
        self.backends = Backends(_any_of, strategies=strategies, selection=selection)
        self.retry_dials = retry_dials
        self.counters = ServerCounters()
        self.streams = True
        """Whether agents of ours may open a stream for each tunnel (`--tunnel-streams`)."""
        self.access_log = False
        """Whether each tunnel gets a line when it ends (`--access-log`)."""
        self._most_dials = self.limits.dials or sys.maxsize
        self._most_tunnels = self.limits.tunnels or sys.maxsize
        self._dials = Deadlines(dial_timeout)
        self.flushes = Deadlines(FLUSH_LIMIT)
        # In turn, so that none repeats; short, because each is coded four times as a varint; from
        # a random start, so that they do not meet those of a gRPC client that counts from 1.
        self._dial_ids = itertools.count(random.getrandbits(27))
        self._loop = asyncio.get_running_loop()
        self._liveness = Liveness()
        self.events = Events()
        self.journal = Journal(self.events, peers="agent")

    def dial(
        self, frontend: Caller, *, address: str, protocol: str = "tcp", dial_id: int | None = None
    ) -> ServerTunnel | None:
        """Start a dial. None: it failed at once, and the frontend was told."""
        dials = self.counters.pending_dials
        if dials >= self._most_dials:
            text = f"too many dials are pending at the server ({dials})"
            self._refuse(frontend, address, text)
            return None
        if dials + self.counters.established >= self._most_tunnels:
            text = f"the server has reached its limit of tunnels ({self._most_tunnels})"
            self._refuse(frontend, address, text)
            return None
        backend = self.backends.choose(address)
        if backend is None:
            self.counters.dial_failures[Failure.NO_AGENT] += 1
            self.journal.dialed(None, address, seconds=0.0, failure=Failure.NO_AGENT.value)
            log.summarised("no agent", "No agent for a dial", address=address)
            frontend.refused(Refusal(Failure.NO_AGENT, NO_AGENT))
            return None
        watch = Watch(self, self._loop)
        if self.access_log:
            watch.visit = Visit(frontend.peer)
        tunnel = ServerTunnel(
            frontend,
            backend,
            random=next(self._dial_ids) if dial_id is None else dial_id,
            protocol=protocol,
            address=address,
            watcher=watch,
            limits=self.limits,
        )
        watch.dialing(self._dials.start(tunnel.time_out))
        tunnel.number, tunnel.since = self.counters.dials, self._loop.time()
        backend.dial(tunnel)
        self._liveness.expect_answer(backend)
        return tunnel

    def dial_again(self, tunnel: ServerTunnel) -> bool:
        """Give a dial to another agent than the one it is at; False: there is none."""
        failed = tunnel.backend
        backend = self.backends.choose(tunnel.address, (failed,))
        if backend is None:
            return False
        self.counters.dial_retries += 1
        self.counters.dial_ended(failed.agent_id, failed=True)
        log.v(
            2,
            "Dial goes on at another agent",
            address=tunnel.address,
            failed=failed.agent_id,
            agentID=backend.agent_id,
        )
        tunnel.backend = backend
        backend.dial(tunnel)
        self._liveness.expect_answer(backend)
        return True

    def _refuse(self, frontend: Frontend, address: str, text: str) -> None:
        """A limit is reached (`--max-tunnels`, `--max-pending-dials`)."""
        self.counters.dial_failures[Failure.LIMIT] += 1
        self.journal.dialed(None, address, seconds=0.0, failure=Failure.LIMIT.value, error=text)
        log.summarised("limit", "Dial refused", cause=text)
        frontend.refused(Refusal(Failure.LIMIT, text))


class Watch:
    """Follows one tunnel: its dial's time limit, its counts, its log lines."""

    __slots__ = (
        "_counters",
        "_exchange",
        "_flushes",
        "_limit",
        "_loop",
        "_retried",
        "_since",
        "visit",
    )

    def __init__(self, exchange: Exchange, loop: asyncio.AbstractEventLoop) -> None:
        self._exchange = exchange
        self._retried = not exchange.retry_dials
        self._counters = exchange.counters
        self._flushes = exchange.flushes
        self._loop = loop
        self._since = loop.time()
        self._limit: Deadline | None = None
        self.visit: Visit | None = None

    def dialing(self, limit: Deadline) -> None:
        """The dial begins."""
        self._counters.dials += 1
        self._counters.pending_dials += 1
        self._limit = limit

    def retry(self, tunnel: ServerTunnel) -> bool:
        """Dial once more, at another agent; never a third time."""
        if self._retried:
            return False
        self._retried = True  # before the dial, which may fail at once
        self._retried = self._exchange.dial_again(tunnel)
        return self._retried

    def dialed(self, tunnel: ServerTunnel, failure: Failure | None, text: str) -> None:
        """The dial ended: with success where `failure` is None."""
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        counters, journal = self._counters, self._exchange.journal
        counters.pending_dials -= 1
        if self.visit is not None:
            self.visit.dialed(tunnel, failure, text)
        at_fault = failure not in (None, Failure.FRONTEND_CLOSE)
        counters.dial_ended(tunnel.backend.agent_id, failed=at_fault)
        if failure is None:
            now = self._loop.time()
            counters.dial_seconds.observe(now - self._since)
            journal.dialed(tunnel.backend, tunnel.address, seconds=now - self._since)
            self._since = tunnel.since = now
            counters.established += 1
            log.v(5, "Tunnel opened", address=tunnel.address, connectionID=tunnel.connect_id)
            return
        counters.dial_failures[failure] += 1
        journal.dialed(
            tunnel.backend,
            tunnel.address,
            seconds=self._loop.time() - self._since,
            failure=failure.value,
            error=text,
        )
        log.v(
            2,
            "Dial failed",
            address=tunnel.address,
            reason=failure.value,
            error=text,
            agentID=tunnel.backend.agent_id,
        )

    def ended(self, tunnel: ServerTunnel, error: str) -> None:
        """An established tunnel is over; its last bytes have `FLUSH_LIMIT` to leave."""
        way = tunnel.way
        if way is not None and tunnel.lane is not None and tunnel.lane.waiting:
            self._flushes.start(lambda: way.cut(tunnel))
        reason = tunnel.reason.value if tunnel.reason else "?"
        seconds = self._loop.time() - self._since
        self._counters.tunnel_ended(tunnel, reason, seconds)
        self._exchange.journal.ended(
            tunnel.backend,
            tunnel.address,
            reason=reason,
            error=error,
            seconds=seconds,
            traffic=tunnel.traffic,
        )
        if self.visit is not None:
            self.visit.ended(tunnel, reason=reason, seconds=seconds, error=error)
        verbosity = 2 if error else 5
        if not log.enabled(verbosity):
            return
        log.v(
            verbosity,
            "Tunnel ended",
            address=tunnel.address,
            connectionID=tunnel.connect_id,
            reason=reason,
            seconds=round(seconds, 3),
            error=error,
        )
