"""What the server counts. Plain integers: the metrics read them when they are scraped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from konnectivity.errors import RpcError
from konnectivity.observe.histogram import TUNNEL_BOUNDS, Histogram, RequestCounts
from konnectivity.server.agent_figures import AgentTable
from konnectivity.tunnel.server import ServerTunnel
from konnectivity.tunnel.server_packets import PacketBackend
from konnectivity.wire import packet
from konnectivity.wire.grpc import code_name

PACKET_BOUNDS: Final = (1e-6, 1e-5, 1e-4, 0.005, 0.025, 0.1, 0.5, 2.5, 12.5)
LEASE_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Upper bounds of histograms, seconds; upstream's."""


class Waits:
    """How long frontends were too slow for what agents had for them."""

    __slots__ = ("begun", "seconds")

    def __init__(self) -> None:
        self.begun = 0
        self.seconds = Histogram(PACKET_BOUNDS)
        """Of those that are over."""

    def begin(self) -> float:
        """A frontend's buffer is full; the result is for `end`."""
        self.begun += 1
        return monotonic()

    def end(self, began: float) -> None:
        """It has room again, or the frontend is gone."""
        self.seconds.observe(monotonic() - began)


@dataclass(slots=True)
class ServerCounters:
    """Counts of one server process."""

    dials: int = 0
    """Given to an agent."""
    pending_dials: int = 0
    established: int = 0
    dial_failures: Counter[str] = field(default_factory=Counter)
    """By reason (`Failure`)."""
    dial_retries: int = 0
    """Dials that were given to a second agent because the first one failed."""
    dial_seconds: Histogram = field(default_factory=lambda: Histogram(PACKET_BOUNDS))
    tunnels_ended: Counter[str] = field(default_factory=Counter)
    """By `Reason`."""
    tunnel_seconds: Histogram = field(default_factory=lambda: Histogram(TUNNEL_BOUNDS))
    """How long tunnels lasted that are over."""
    bytes_to_agents: int = 0
    bytes_from_agents: int = 0
    """Payload of tunnels that are over; that of open ones stands in their lanes and intakes."""
    open_calls: Counter[str] = field(default_factory=Counter)
    """`Proxy` and `Connect` calls under way."""
    http_connections: int = 0
    authentications: Counter[str] = field(default_factory=Counter)
    """Of agents, by outcome."""
    waits: Waits = field(default_factory=Waits)
    packets_from_clients: dict[int, int] = field(default_factory=packet.counts)
    packets_to_clients: dict[int, int] = field(default_factory=packet.counts)
    packets_from_agents: Counter[int] = field(default_factory=Counter)
    packets_to_agents: Counter[int] = field(default_factory=Counter)
    unrecognized: int = 0
    pauses: int = 0
    """These four of agent streams that are gone; those of live ones stand in their carriers."""
    stream_errors: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By segment, gRPC code and packet type."""
    agents: AgentTable = field(default_factory=AgentTable)
    leases_culled: int = 0
    lease_lists: RequestCounts = field(default_factory=lambda: RequestCounts(LEASE_BOUNDS))
    lease_deletes: RequestCounts = field(default_factory=lambda: RequestCounts(LEASE_BOUNDS))

    def stream_error(self, segment: str, error: RpcError, packet_type: str = "Unknown") -> None:
        """A gRPC call ended with an error."""
        self.stream_errors[segment, code_name(error.code), packet_type] += 1

    def dial_ended(self, agent_id: str, *, failed: bool) -> None:
        """An agent has done what it could for a dial."""
        figures = self.agents.of(agent_id)
        figures.dials += 1
        if failed:
            figures.failures += 1

    def tunnel_ended(self, tunnel: ServerTunnel, reason: str, seconds: float) -> None:
        """A tunnel that had been open is over."""
        self.established -= 1
        self.tunnels_ended[reason] += 1
        self.tunnel_seconds.observe(seconds)
        if tunnel.lane is not None and tunnel.intake is not None:
            figures = self.agents.of(tunnel.backend.agent_id)
            up, down = tunnel.lane.bytes, tunnel.intake.bytes
            self.bytes_to_agents += up
            self.bytes_from_agents += down
            figures.bytes_to_agent += up
            figures.bytes_from_agent += down

    def agent_connected(self, backend: PacketBackend) -> None:
        """A `Connect` call was granted."""
        self.agents.enter(backend.agent_id)

    def agent_gone(self, backend: PacketBackend, error: RpcError | None) -> None:
        """A `Connect` call is over: keep what its carrier has counted."""
        self.agents.leave(backend.agent_id)
        self.packets_from_agents.update(backend.received)
        self.packets_to_agents.update(backend.outbox.sent)
        self.unrecognized += backend.unrecognized
        self.pauses += backend.outbox.pauses
        if error is not None:
            self.stream_error("from_agent", error)
