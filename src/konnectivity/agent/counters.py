"""What the agent counts. Plain integers: the metrics read them when they are scraped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from konnectivity.errors import RpcError
from konnectivity.observe.histogram import TUNNEL_BOUNDS, Histogram, RequestCounts
from konnectivity.tunnel.agent import AgentTunnel
from konnectivity.tunnel.agent_packets import PacketLink
from konnectivity.wire.grpc import code_name

LATENCY_BOUNDS: Final = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 30.0)
"""Upper bounds of histograms, seconds; upstream's."""


@dataclass(slots=True)
class AgentCounters:
    """Counts of one agent process."""

    dial_failures: Counter[str] = field(default_factory=Counter)
    """By reason (`DialError.reason`)."""
    dial_seconds: Histogram = field(default_factory=lambda: Histogram(LATENCY_BOUNDS))
    policy_refusals: Counter[str] = field(default_factory=Counter)
    """By the rule of the destination policy that refused them."""
    tunnels_ended: Counter[str] = field(default_factory=Counter)
    """By `Reason`."""
    tunnel_seconds: Histogram = field(default_factory=lambda: Histogram(TUNNEL_BOUNDS))
    """How long tunnels lasted that are over."""
    bytes_to_endpoints: int = 0
    bytes_from_endpoints: int = 0
    """Payload of tunnels that are over; that of open ones stands in their lanes and intakes."""
    link_failures: Counter[str] = field(default_factory=Counter)
    """Failed connection attempts by stage (`LinkError.stage`)."""
    packets_sent: Counter[int] = field(default_factory=Counter)
    packets_received: Counter[int] = field(default_factory=Counter)
    pauses: int = 0
    """These three of links that are gone; those of live links stand in their carriers."""
    stream_errors: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By segment, gRPC code and packet type."""
    known_servers: int = 0
    lease_lists: RequestCounts = field(default_factory=lambda: RequestCounts(LATENCY_BOUNDS))
    lease_watches: RequestCounts = field(default_factory=lambda: RequestCounts(LATENCY_BOUNDS))

    def tunnel_ended(self, tunnel: AgentTunnel, seconds: float) -> None:
        """A tunnel that had been open is over."""
        self.tunnels_ended[tunnel.reason.value if tunnel.reason else "?"] += 1
        self.tunnel_seconds.observe(seconds)
        if tunnel.lane is not None and tunnel.intake is not None:
            self.bytes_from_endpoints += tunnel.lane.bytes
            self.bytes_to_endpoints += tunnel.intake.bytes

    def link_gone(self, packets: PacketLink, error: RpcError | None) -> None:
        """A link is over: keep what its carrier has counted."""
        self.packets_sent.update(packets.outbox.sent)
        self.packets_received.update(packets.received)
        self.pauses += packets.outbox.pauses
        if error is not None:
            self.stream_errors["to_agent", code_name(error.code), "Unknown"] += 1
