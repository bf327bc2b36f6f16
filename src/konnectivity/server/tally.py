"""What the server's tables hold at this moment: one walk over them, for one scrape.

Figures of live streams and tunnels are read where they stand, so that no gauge can drift from what
it counts (W67); those that are over have been added to the counters.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Final

from konnectivity.server.agent_figures import OTHER, AgentFigures
from konnectivity.server.exchange import Exchange
from konnectivity.tunnel.server import State
from konnectivity.tunnel.server_packets import PacketBackend
from konnectivity.wire import packet

_UP: Final = (State.OPEN, State.CLOSING)
_FOR_FRONTENDS: Final = (packet.DATA, packet.DIAL_RSP, packet.DIAL_CLS, packet.CLOSE_RSP)


class Tally:
    """The sums over all agents' streams, with what was counted for those that are gone."""

    def __init__(self, exchange: Exchange) -> None:
        counters = exchange.counters
        self.pending = 0
        self.established = 0
        self.paused = 0
        """Tunnels whose frontend is not read, for the way to its agent is full."""
        self.pauses = counters.pauses
        self.waiting = 0
        """Bytes that wait for agents."""
        self.unrecognized = counters.unrecognized
        self.from_agents = Counter(counters.packets_from_agents)
        self.to_agents = Counter(counters.packets_to_agents)
        self.bytes_to_agents = counters.bytes_to_agents
        self.bytes_from_agents = counters.bytes_from_agents
        self.agents = {key: replace(each) for key, each in counters.agents.all()}
        """Figures by agent id, those of open tunnels included."""
        for backend in exchange.backends.streams():
            if isinstance(backend, PacketBackend):
                self._add(backend)

    def _add(self, backend: PacketBackend) -> None:
        outbox = backend.outbox
        self.pending += len(backend.pending)
        self.pauses += outbox.pauses
        self.unrecognized += backend.unrecognized
        self.from_agents.update(backend.received)
        self.to_agents.update(outbox.sent)
        tunnels = up = down = 0
        for tunnel in backend.tunnels.values():
            # Those that are over wait here for the agent's CLOSE_RSP.
            if tunnel.state in _UP and tunnel.lane is not None and tunnel.intake is not None:
                tunnels += 1
                up += tunnel.lane.bytes
                down += tunnel.intake.bytes
                self.paused += tunnel.lane.paused
            if tunnel.lane is not None:
                self.waiting += tunnel.lane.waiting
        self.established += tunnels
        self.bytes_to_agents += up
        self.bytes_from_agents += down
        figures = self.agents.get(backend.agent_id) or self.agents.setdefault(OTHER, AgentFigures())
        figures.tunnels += tunnels
        figures.bytes_to_agent += up
        figures.bytes_from_agent += down

    @property
    def packets_for_frontends(self) -> int:
        """What agents sent that a frontend gets, in either mode."""
        return sum(self.from_agents[kind] for kind in _FOR_FRONTENDS)
