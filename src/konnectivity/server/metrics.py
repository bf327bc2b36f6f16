"""The server's metrics, under upstream's names (spec: `pkg/server/metrics/metrics.go`)."""

from __future__ import annotations

from konnectivity.observe.exposition import Family, by_label, durations, single
from konnectivity.server.exchange import Exchange

PREFIX = "konnectivity_network_proxy_server_"


def families(exchange: Exchange) -> list[Family]:
    """All metrics as of now."""
    counters = exchange.counters
    agents = len(exchange.backends)
    return [
        durations(
            PREFIX + "dial_duration_seconds",
            "How long successful dials took.",
            counters.dial_seconds,
        ),
        by_label(
            PREFIX + "dial_failure_count",
            "counter",
            "Failed dials by reason.",
            "reason",
            counters.dial_failures,
        ),
        by_label(
            PREFIX + "grpc_connections",
            "gauge",
            "gRPC calls under way by method.",
            "service_method",
            counters.open_calls,
        ),
        single(
            PREFIX + "http_connections",
            "gauge",
            "Open connections of http-connect frontends.",
            counters.http_connections,
        ),
        single(
            PREFIX + "pending_backend_dials",
            "gauge",
            "Dials that no agent has answered yet.",
            counters.pending_dials,
        ),
        single(
            PREFIX + "established_connections",
            "gauge",
            "Open tunnels.",
            counters.established,
        ),
        single(PREFIX + "ready_backend_connections", "gauge", "Connected agents.", agents),
        by_label(
            PREFIX + "ready_backends",
            "gauge",
            "Connected agents by strategy.",
            "proxy_strategy",
            {"default": agents},
        ),
        by_label(
            PREFIX + "tunnels_ended_total",
            "counter",
            "Tunnels that ended, by reason (not in upstream).",
            "reason",
            counters.tunnels_ended,
        ),
        single(
            PREFIX + "held_bytes",
            "gauge",
            "Bytes held for frontends that read slowly (not in upstream).",
            exchange.budget.held,
        ),
        single(
            PREFIX + "overflows_total",
            "counter",
            "Tunnels ended because their frontend read too slowly (not in upstream).",
            exchange.budget.overflows,
        ),
    ]
