"""Upstream's metrics: name, type, labels and buckets, in the order of its declarations.

Sources: pkg/server/metrics/metrics.go, pkg/agent/metrics/metrics.go.
"""

from __future__ import annotations

from dataclasses import dataclass

SERVER = "konnectivity_network_proxy_server_"
AGENT = "konnectivity_network_proxy_agent_"


@dataclass(frozen=True)
class Known:
    """What upstream says of one metric."""

    kind: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


_PACKETS = (1e-6, 1e-5, 1e-4, 0.005, 0.025, 0.1, 0.5, 2.5, 12.5)
_TUNNELS = (1, 5, 15, 30, 60, 300, 900, 1800, 3600, 14400, 43200, 86400)
_DEFAULT = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LATENCY = (0.005, 0.025, 0.1, 0.5, 2.5, 10, 30)

SERVER_METRICS = {
    "dial_duration_seconds": Known("histogram", bounds=_PACKETS),
    "frontend_write_duration_seconds": Known("histogram", bounds=_PACKETS),
    "connection_duration_seconds": Known("histogram", bounds=_TUNNELS),
    "grpc_connections": Known("gauge", ("service_method",)),
    "http_connections": Known("gauge"),
    "ready_backend_connections": Known("gauge"),
    "ready_backends": Known("gauge", ("proxy_strategy",)),
    "pending_backend_dials": Known("gauge"),
    "established_connections": Known("gauge"),
    "full_receive_channels": Known("gauge", ("service_method",)),
    "dial_failure_count": Known("counter", ("reason",)),
    "stream_packets_total": Known("counter", ("segment", "packet_type")),
    "stream_errors_total": Known("counter", ("segment", "code", "packet_type")),
    "culled_leases_count": Known("counter"),
    "lease_delete_total": Known("counter", ("http_status_code", "reason")),
    "lease_delete_latency_seconds": Known("histogram", ("http_status_code",), _DEFAULT),
    "lease_list_total": Known("counter", ("http_status_code", "reason")),
    "lease_list_latency_seconds": Known("histogram", ("http_status_code",), _DEFAULT),
}

AGENT_METRICS = {
    "dial_duration_seconds": Known("histogram", bounds=_LATENCY),
    "endpoint_dial_failure_total": Known("counter", ("reason",)),
    "open_endpoint_connections": Known("gauge"),
    "open_server_connections": Known("gauge"),
    "known_server_count": Known("gauge"),
    "server_connection_failure_count": Known("counter", ("direction",)),
    "stream_packets_total": Known("counter", ("segment", "packet_type")),
    "stream_errors_total": Known("counter", ("segment", "code", "packet_type")),
    "lease_lists_total": Known("counter", ("http_response_code", "reason")),
    "lease_watches_total": Known("counter", ("http_response_code", "reason")),
    "lease_list_latency_seconds": Known("histogram", ("http_response_code",), _LATENCY),
}

HELP = {
    # Upstream's integration suite compares these two word for word.
    AGENT + "endpoint_dial_failure_total": (
        "Number of failures dialing the remote endpoint, by reason (example: timeout)."
    ),
    AGENT + "open_endpoint_connections": "Current number of open endpoint connections.",
}
