"""The agent's metrics: upstream's under upstream's names, and ours beside them.

Source: upstream `pkg/agent/metrics/metrics.go`. Vectors appear once they are touched, as there,
but for `open_server_connections`, which upstream's tests want from the start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from konnectivity import __version__
from konnectivity.agent.connections import Connections
from konnectivity.agent.counters import LATENCY_BOUNDS, AgentCounters
from konnectivity.net.certificate import CertificateFacts, expiries
from konnectivity.observe import process
from konnectivity.observe.exposition import Catalogue, Family
from konnectivity.observe.histogram import TUNNEL_BOUNDS
from konnectivity.tunnel.agent import State
from konnectivity.tunnel.agent_packets import PacketLink
from konnectivity.wire import packet

AGENT: Final = Catalogue("konnectivity_network_proxy_agent_")

# Dials and tunnels

_DIAL_SECONDS = AGENT.histogram(
    "dial_duration_seconds", "How long successful dials of endpoints took.", bounds=LATENCY_BOUNDS
)
# Upstream's integration suite compares this help text, and the next, literally.
_DIAL_FAILURES = AGENT.counter(
    "endpoint_dial_failure_total",
    "Number of failures dialing the remote endpoint, by reason (example: timeout).",
    "reason",
    note="`timeout` or `unknown`.",
)
_ENDPOINTS = AGENT.gauge(
    "open_endpoint_connections", "Current number of open endpoint connections."
)
_DIAL_FAILURE_REASONS = AGENT.counter(
    "endpoint_dial_failure_reasons_total",
    "Failed dials of endpoints by cause.",
    "reason",
    ours=True,
)
_REFUSED = AGENT.counter(
    "refused_destinations_total",
    "Dials that the destination policy does not allow, by rule.",
    "rule",
    ours=True,
)
_ENDED = AGENT.counter("tunnels_ended_total", "Tunnels that ended, by reason.", "reason", ours=True)
_TUNNEL_SECONDS = AGENT.histogram(
    "connection_duration_seconds",
    "How long tunnels lasted that are over.",
    bounds=TUNNEL_BOUNDS,
    ours=True,
)
_BYTES = AGENT.counter(
    "tunnel_bytes_total",
    "Payload carried.",
    "segment",
    ours=True,
    note="`to_agent` or `from_agent`, as the server sees it.",
)
_PAUSES = AGENT.counter(
    "pauses_total",
    "How often an endpoint was not read because the way to its server was full.",
    ours=True,
)
_HELD = AGENT.gauge("held_bytes", "Bytes held for endpoints that read slowly.", ours=True)
_OVERFLOWS = AGENT.counter(
    "overflows_total", "Tunnels ended because their endpoint read too slowly.", ours=True
)
_WAITING = AGENT.gauge("waiting_bytes", "Bytes of tunnels that wait for servers.", ours=True)

# Servers

_SERVERS = AGENT.gauge("open_server_connections", "Servers this agent is connected to.")
_CONNECTIONS = AGENT.gauge(
    "server_connections", "Connections to servers, several to one of them included.", ours=True
)
_KNOWN = AGENT.gauge("known_server_count", "Servers this agent wants to be connected to.")
_LINK_FAILURES = AGENT.counter(
    "server_connection_attempt_failures_total",
    "Failed attempts to connect to a server by stage.",
    "stage",
    ours=True,
)
_CONNECTION_FAILURES = AGENT.counter(
    "server_connection_failure_count",
    "Connections to servers that broke.",
    "direction",
    note="Deprecated. `from_server` alone: sending cannot fail here.",
)
_PACKETS = AGENT.counter(
    "stream_packets_total",
    "Packets by segment and type.",
    *("segment", "packet_type"),
    note="All types unknown to upstream and to us count as `unknown`; `CREDIT` is ours.",
)
_ERRORS = AGENT.counter(
    "stream_errors_total",
    "gRPC calls that ended with an error.",
    *("segment", "code", "packet_type"),
    note="`to_agent` alone: sending cannot fail here.",
)

# Leases

_LISTS = AGENT.counter(
    "lease_lists_total",
    "Lists of server leases by answer.",
    *("http_response_code", "reason"),
    note="Upstream counts watches here, too.",
)
_WATCHES = AGENT.counter(
    "lease_watches_total",
    "Watches of server leases by answer.",
    *("http_response_code", "reason"),
    note="Upstream declares it and never counts.",
)
_LIST_SECONDS = AGENT.histogram(
    "lease_list_latency_seconds",
    "How long lists of server leases took.",
    "http_response_code",
    bounds=LATENCY_BOUNDS,
    note="Upstream counts those without an answer as `200`; here they are not counted.",
)
_EXPIRY = AGENT.gauge(
    "certificate_expiry_timestamp_seconds",
    "When certificates stop being valid, in seconds since 1970.",
    *("file", "state"),
    ours=True,
    note="`file` is the name of the flag, `state` is `in_use` or `on_disk`.",
)
_BUILD = AGENT.gauge("build_info", "This program's version; the value is 1.", "version", ours=True)


def families(
    connections: Connections,
    counters: AgentCounters,
    certificates: Iterable[CertificateFacts] = (),
) -> list[Family]:
    """All metrics as of now."""
    links = [link.packets for link in connections.links if link.packets is not None]
    return [
        *_dials(links, counters),
        *_flow(links, connections, counters),
        *_servers(connections, counters),
        *_packets(links, counters),
        *_leases(counters),
        _EXPIRY.each(expiries(certificates)),
        _BUILD.each({__version__: 1}),
        *process.families(),
    ]


def _dials(links: list[PacketLink], counters: AgentCounters) -> Iterator[Family]:
    yield _DIAL_SECONDS.durations(counters.dial_seconds)
    failures: Counter[str] = Counter()
    for reason, count in counters.dial_failures.items():
        # Upstream knows these two; the finer reasons have a metric of their own.
        failures["timeout" if reason == "timeout" else "unknown"] += count
    yield _DIAL_FAILURES.each(failures)
    yield _DIAL_FAILURE_REASONS.each(counters.dial_failures)
    yield _REFUSED.each(counters.policy_refusals)
    if counters.dial_seconds.total:
        yield _ENDPOINTS.value(sum(len(link.tunnels) for link in links))
    yield _ENDED.each(counters.tunnels_ended)
    yield _TUNNEL_SECONDS.durations(counters.tunnel_seconds)


def _flow(
    links: list[PacketLink], connections: Connections, counters: AgentCounters
) -> Iterator[Family]:
    up, down = counters.bytes_to_endpoints, counters.bytes_from_endpoints
    waiting = 0
    for tunnel in (tunnel for link in links for tunnel in link.tunnels.values()):
        if tunnel.lane is not None and tunnel.intake is not None:
            waiting += tunnel.lane.waiting
            if tunnel.state is State.OPEN:
                up += tunnel.intake.bytes
                down += tunnel.lane.bytes
    yield _BYTES.each({"to_agent": up, "from_agent": down})
    yield _PAUSES.value(counters.pauses + sum(link.outbox.pauses for link in links))
    yield _HELD.value(connections.budget.held)
    yield _OVERFLOWS.value(connections.budget.overflows)
    yield _WAITING.value(waiting)


def _servers(connections: Connections, counters: AgentCounters) -> Iterator[Family]:
    yield _SERVERS.value(len({link.server_id for link in connections.links}))
    yield _CONNECTIONS.value(len(connections.links))
    yield _KNOWN.value(counters.known_servers)
    yield _LINK_FAILURES.each(counters.link_failures)
    broken = sum(counters.stream_errors.values())
    yield _CONNECTION_FAILURES.each({"from_server": broken} if broken else {})


def _packets(links: list[PacketLink], counters: AgentCounters) -> Iterator[Family]:
    received, sent = Counter(counters.packets_received), Counter(counters.packets_sent)
    for link in links:
        received.update(link.received)
        sent.update(link.outbox.sent)
    yield _PACKETS.each(
        {
            (segment, packet.NAMES.get(kind, "unknown")): count
            for segment, counts in (("to_agent", received), ("from_agent", sent))
            for kind, count in counts.items()
            if count
        }
    )
    yield _ERRORS.each(counters.stream_errors)


def _leases(counters: AgentCounters) -> Iterator[Family]:
    yield _LISTS.each(counters.lease_lists.total)
    yield _WATCHES.each(counters.lease_watches.total)
    yield _LIST_SECONDS.durations_each(counters.lease_lists.seconds)
