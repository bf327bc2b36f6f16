"""The agent's metrics, under upstream's names (spec: `pkg/agent/metrics/metrics.go`)."""

from __future__ import annotations

from collections import Counter

from konnectivity.agent.connections import Connections
from konnectivity.agent.counters import AgentCounters
from konnectivity.observe.exposition import Family, by_label, durations, single
from konnectivity.wire import packet

PREFIX = "konnectivity_network_proxy_agent_"


def families(connections: Connections, counters: AgentCounters) -> list[Family]:
    """All metrics as of now."""
    links = [link.packets for link in connections.links if link.packets is not None]
    failures: Counter[str] = Counter()
    for reason, count in counters.dial_failures.items():
        # Upstream knows these two; the finer reasons have a metric of their own.
        failures["timeout" if reason == "timeout" else "unknown"] += count
    return [
        durations(
            PREFIX + "dial_duration_seconds",
            "How long successful dials of endpoints took.",
            counters.dial_seconds,
        ),
        by_label(
            # Upstream's integration suite compares this help text, and the next, literally.
            PREFIX + "endpoint_dial_failure_total",
            "counter",
            "Number of failures dialing the remote endpoint, by reason (example: timeout).",
            "reason",
            failures,
        ),
        by_label(
            PREFIX + "endpoint_dial_failure_reasons_total",
            "counter",
            "Failed dials of endpoints by cause (not in upstream).",
            "reason",
            counters.dial_failures,
        ),
        single(
            PREFIX + "open_endpoint_connections",
            "gauge",
            "Current number of open endpoint connections.",
            sum(len(link.tunnels) for link in links),
        ),
        single(
            PREFIX + "open_server_connections",
            "gauge",
            "Servers this agent is connected to.",
            len(connections.links),
        ),
        single(
            PREFIX + "known_server_count",
            "gauge",
            "Servers this agent wants to be connected to.",
            counters.known_servers,
        ),
        by_label(
            PREFIX + "server_connection_attempt_failures_total",
            "counter",
            "Failed attempts to connect to a server by stage (not in upstream).",
            "stage",
            counters.link_failures,
        ),
        single(
            PREFIX + "held_bytes",
            "gauge",
            "Bytes held for endpoints that read slowly (not in upstream).",
            connections.budget.held,
        ),
        single(
            PREFIX + "overflows_total",
            "counter",
            "Tunnels ended because their endpoint read too slowly (not in upstream).",
            connections.budget.overflows,
        ),
        _packets(connections, counters),
    ]


def _packets(connections: Connections, counters: AgentCounters) -> Family:
    received, sent = Counter(counters.packets_received), Counter(counters.packets_sent)
    for link in connections.links:
        if link.packets is not None:
            received.update(link.packets.received)
            sent.update(link.packets.outbox.sent)
    family = Family(PREFIX + "stream_packets_total", "counter", "Packets by direction and type.")
    for segment, counts in (("to_agent", received), ("from_agent", sent)):
        for kind, count in sorted(counts.items()):
            name = packet.NAMES.get(kind, "unknown")
            family.samples.append(({"segment": segment, "packet_type": name}, count))
    return family
