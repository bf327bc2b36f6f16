"""What the Prometheus operator reads: where the agents' metrics are, and when to call somebody."""

from __future__ import annotations

from typing import Final

from konnectivity.lifecycle.objects.arguments import HEALTH_PORT
from konnectivity.lifecycle.objects.metadata import Object, metadata
from konnectivity.lifecycle.rendering.alerts import ALERTS, group
from konnectivity.lifecycle.specification.spec import AgentSpec

OPERATOR: Final = "monitoring.coreos.com/v1"


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
        "spec": {"groups": [group(spec.name, ALERTS["konnectivity-agent"])]},
    }
