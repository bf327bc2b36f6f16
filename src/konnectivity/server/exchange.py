"""The exchange: gives each dial of a frontend to an agent and keeps its time limit.

It owns what all frontends and agents of the process share: the table of agents, the memory
budget, the counters. It does not know how frontends or agents speak.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Final

from konnectivity.net.deadlines import Deadline, Deadlines
from konnectivity.observe import logs
from konnectivity.server.counters import ServerCounters
from konnectivity.tunnel.budget import Budget, TunnelLimits
from konnectivity.tunnel.reason import Failure, Refusal
from konnectivity.tunnel.routing import Backends
from konnectivity.tunnel.server import Frontend, ServerTunnel

log = logs.get(__name__)

NO_AGENT: Final = "No agent available"
"""kube-apiserver's users know this text; it is upstream's."""
FLUSH_LIMIT: Final = 30.0
"""Seconds a slow endpoint may take for what a frontend sent before it left."""


class Exchange:
    """Where frontends and agents of one server meet. `dial_timeout` in seconds."""

    def __init__(self, *, dial_timeout: float, limits: TunnelLimits | None = None) -> None:
        self.limits = limits or TunnelLimits()
        self.budget = Budget(self.limits.process)
        self.backends = Backends(random.randrange, asyncio.get_running_loop().time)
        self.counters = ServerCounters()
        self._dials = Deadlines(dial_timeout)
        self.flushes = Deadlines(FLUSH_LIMIT)
        # In turn, so that none repeats; short, because each is coded four times as a varint; from
        # a random start, so that they do not meet those of a gRPC client that counts from 1.
        self._dial_ids = itertools.count(random.getrandbits(27))
        self._loop = asyncio.get_running_loop()

    def dial(
        self, frontend: Frontend, *, address: str, protocol: str = "tcp", dial_id: int | None = None
    ) -> ServerTunnel | None:
        """Start a dial. None: it failed at once, and the frontend was told."""
        backend = self.backends.choose()
        if backend is None:
            self.counters.dial_failures[Failure.NO_AGENT] += 1
            log.warning("No agent for a dial", address=address)
            frontend.refused(Refusal(Failure.NO_AGENT, NO_AGENT))
            return None
        watch = Watch(self, self._loop)
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
        backend.dial(tunnel)
        return tunnel


class Watch:
    """Follows one tunnel: its dial's time limit, its counts, its log lines."""

    __slots__ = ("_counters", "_flushes", "_limit", "_loop", "_since")

    def __init__(self, exchange: Exchange, loop: asyncio.AbstractEventLoop) -> None:
        self._counters = exchange.counters
        self._flushes = exchange.flushes
        self._loop = loop
        self._since = loop.time()
        self._limit: Deadline | None = None

    def dialing(self, limit: Deadline) -> None:
        """The dial begins."""
        self._counters.pending_dials += 1
        self._limit = limit

    def dialed(self, tunnel: ServerTunnel, failure: Failure | None, text: str) -> None:
        """The dial ended: with success where `failure` is None."""
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        counters = self._counters
        counters.pending_dials -= 1
        if failure is None:
            now = self._loop.time()
            counters.dial_seconds.observe(now - self._since)
            self._since = now
            counters.established += 1
            log.v(5, "Tunnel opened", address=tunnel.address, connectionID=tunnel.connect_id)
            return
        counters.dial_failures[failure] += 1
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
        if tunnel.lane is not None and tunnel.lane.waiting:
            self._flushes.start(lambda: tunnel.backend.cut(tunnel))
        counters = self._counters
        counters.established -= 1
        reason = tunnel.reason.value if tunnel.reason else "?"
        counters.tunnels_ended[reason] += 1
        verbosity = 2 if error else 5
        if not log.enabled(verbosity):
            return
        log.v(
            verbosity,
            "Tunnel ended",
            address=tunnel.address,
            connectionID=tunnel.connect_id,
            reason=reason,
            seconds=round(self._loop.time() - self._since, 3),
            error=error,
        )
