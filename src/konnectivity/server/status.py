"""The status of a server, from its exchange and its listeners."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from konnectivity import __version__
from konnectivity.net.certificate import CertificateFacts
from konnectivity.observe.certificate_status import certificate_file
from konnectivity.observe.snapshot import Traits, descriptors, take
from konnectivity.observe.status import Dials, Limit, Listener, Program, ServerStatus, Time
from konnectivity.server.exchange import Exchange
from konnectivity.server.options import ServerOptions
from konnectivity.tunnel.server_packets import PacketBackend

MOST_IDENTIFIERS = 64
"""Of one agent; it may send kilobytes of them."""


@dataclass(slots=True)
class ServerReport:
    """What the status of one server is made from, and how."""

    options: ServerOptions
    exchange: Exchange
    unready: Callable[[], str]
    stopping: Callable[[], bool]
    certificates: Callable[[], Sequence[CertificateFacts]]
    listeners: Callable[[], Sequence[Listener]]
    started_at: float

    async def take(self, most: int) -> ServerStatus:
        """The status now, with at most `most` tunnels."""
        exchange = self.exchange
        counters, journal = exchange.counters, exchange.journal
        generated, last_event = time.time(), exchange.events.last_id
        loop_time = asyncio.get_running_loop().time()
        snapshot = await take(journal, most=most, traits=_traits, loop_time=loop_time)
        return ServerStatus(
            generated_at=Time(generated),
            last_event=last_event,
            server=self._program(),
            agents=tuple(snapshot.peers),
            dials=Dials(
                pending=counters.pending_dials,
                succeeded=counters.dial_seconds.total,
                failed={str(key): count for key, count in sorted(counters.dial_failures.items())},
                recent=journal.recent,
                recent_failures=journal.recent_failures,
            ),
            tunnel_counts=snapshot.counts,
            tunnels_ended=dict(sorted(counters.tunnels_ended.items())),
            tunnels=tuple(snapshot.tunnels),
        )

    def _program(self) -> Program:
        unready = self.unready()
        return Program(
            id=self.options.server_id,
            version=__version__,
            started_at=Time(self.started_at),
            state="stopping" if self.stopping() else "running",
            ready=not unready,
            unready=unready,
            modes=tuple(sorted(self.options.modes)),
            strategies=tuple(self.options.strategies),
            listeners=tuple(self.listeners()),
            limits=tuple(self._limits()),
            certificates=tuple(map(certificate_file, self.certificates())),
        )

    def _limits(self) -> list[Limit]:
        exchange = self.exchange
        counters, limits, events = exchange.counters, exchange.limits, exchange.events
        dials = counters.pending_dials
        return [
            Limit("tunnels", counters.established + dials, limits.tunnels or None),
            Limit("pendingDials", dials, limits.dials or None),
            Limit("heldForFrontends", exchange.budget.held, exchange.budget.limit, "bytes"),
            Limit("eventReaders", events.readers, events.most_readers),
            descriptors(),
        ]


def _traits(backend: object) -> Traits:
    """What an agent says of itself."""
    if not isinstance(backend, PacketBackend):
        return Traits()
    found: dict[str, list[str]] = {}
    for key, value in parse_qsl(backend.identifiers.text)[:MOST_IDENTIFIERS]:
        found.setdefault(key, []).append(value)
    identifiers = {key: tuple(sorted(found[key])) for key in sorted(found)}
    return Traits(draining=backend.draining, identifiers=identifiers)
