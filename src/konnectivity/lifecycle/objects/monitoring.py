"""What the Prometheus operator reads: where the agents' metrics are, and when to call somebody."""

from __future__ import annotations

from typing import Final

from konnectivity.lifecycle.objects.arguments import HEALTH_PORT
from konnectivity.lifecycle.objects.metadata import Object, metadata
from konnectivity.lifecycle.spec import AgentSpec

OPERATOR: Final = "monitoring.coreos.com/v1"
METRIC: Final = "konnectivity_network_proxy_agent_"


def monitoring(spec: AgentSpec) -> list[Object]:
    """Service, PodMonitor and PrometheusRule, or nothing."""
    return [_service(spec), _monitor(spec), _rule(spec)] if spec.monitoring else []


def _service(spec: AgentSpec) -> Object:
    """Headless, and with agents that are not ready: those are the ones to look at."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(spec),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": dict(spec.selector_labels),
            "ports": [
                {"name": "health", "port": HEALTH_PORT, "targetPort": "health", "protocol": "TCP"}
            ],
        },
    }


def _monitor(spec: AgentSpec) -> Object:
    return {
        "apiVersion": OPERATOR,
        "kind": "PodMonitor",
        "metadata": metadata(spec),
        "spec": {
            "selector": {"matchLabels": dict(spec.selector_labels)},
            "podMetricsEndpoints": [{"port": "health", "path": "/metrics", "interval": "30s"}],
        },
    }


def _rule(spec: AgentSpec) -> Object:
    return {
        "apiVersion": OPERATOR,
        "kind": "PrometheusRule",
        "metadata": metadata(spec),
        "spec": {"groups": [{"name": spec.name, "rules": _alerts()}]},
    }


def _alerts() -> list[Object]:
    expiry = f'{METRIC}certificate_expiry_timestamp_seconds{{state="in_use"}}'
    return [
        _alert(
            "KonnectivityAgentDisconnected",
            f"{METRIC}open_server_connections == 0",
            "5m",
            "critical",
            "Agent {{ $labels.pod }} is connected to no server: through it there are no logs, no "
            "exec and no webhooks.",
        ),
        _alert(
            "KonnectivityAgentServersMissing",
            f"{METRIC}open_server_connections < {METRIC}known_server_count",
            "10m",
            "warning",
            "Agent {{ $labels.pod }} is connected to {{ $value }} servers and there are more: "
            "those that it lacks may have no agent.",
        ),
        _alert(
            "KonnectivityAgentCertificateExpires",
            f"{expiry} - time() < 7 * 24 * 3600",
            "1h",
            "warning",
            "A certificate of agent {{ $labels.pod }} ({{ $labels.file }}) expires within a week.",
        ),
        _alert(
            "KonnectivityAgentDialsFail",
            f"rate({METRIC}endpoint_dial_failure_total[10m]) > 1",
            "15m",
            "warning",
            "Agent {{ $labels.pod }} fails to reach endpoints: {{ $value }} a second.",
        ),
    ]


def _alert(name: str, expression: str, wait: str, severity: str, text: str) -> Object:
    return {
        "alert": name,
        "expr": expression,
        "for": wait,
        "labels": {"severity": severity},
        "annotations": {"summary": text},
    }
