"""The status of an agent, from its connections and its listeners."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from konnectivity import __version__
from konnectivity.agent.connections import Connections
from konnectivity.agent.counters import AgentCounters
from konnectivity.agent.options import AgentOptions
from konnectivity.net.certificate import CertificateFacts
from konnectivity.observe.certificate_status import certificate_file
from konnectivity.observe.snapshot import Traits, descriptors, take
from konnectivity.observe.status import AgentStatus, Dials, Limit, Listener, Program, Time


@dataclass(slots=True)
class AgentReport:
    """What the status of one agent is made from, and how."""

    options: AgentOptions
    connections: Connections
    counters: AgentCounters
    unready: Callable[[], str]
    certificates: Callable[[], Sequence[CertificateFacts]]
    listeners: Callable[[], Sequence[Listener]]
    started_at: float

    async def take(self, most: int) -> AgentStatus:
        """The status now, with at most `most` tunnels."""
        connections, counters = self.connections, self.counters
        journal, events = connections.endpoints.journal, connections.endpoints.events
        generated, last_event = time.time(), events.last_id
        leaving = {link.packets for link in connections.links if link.going_away}
        snapshot = await take(
            journal,
            most=most,
            traits=lambda link: Traits(draining=link in leaving),
            loop_time=asyncio.get_running_loop().time(),
        )
        return AgentStatus(
            generated_at=Time(generated),
            last_event=last_event,
            agent=self._program(),
            servers=tuple(snapshot.peers),
            servers_wanted=counters.known_servers,
            connection_failures=dict(sorted(counters.link_failures.items())),
            dials=Dials(
                pending=snapshot.counts.dialing,
                succeeded=counters.dial_seconds.total,
                failed=dict(sorted(counters.dial_failures.items())),
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
            id=self.options.agent_id,
            version=__version__,
            started_at=Time(self.started_at),
            state="draining" if self.connections.draining else "running",
            ready=not unready,
            unready=unready,
            modes=(),
            strategies=(),
            listeners=tuple(self.listeners()),
            limits=tuple(self._limits()),
            certificates=tuple(map(certificate_file, self.certificates())),
        )

    def _limits(self) -> list[Limit]:
        budget, events = self.connections.budget, self.connections.endpoints.events
        most = self.options.max_tunnels or None
        return [
            Limit("tunnels", self.connections.tunnels, most),
            Limit("heldForEndpoints", budget.held, budget.limit, "bytes"),
            Limit("eventReaders", events.readers, events.most_readers),
            descriptors(),
        ]
