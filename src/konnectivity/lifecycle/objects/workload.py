"""The agents themselves: a DaemonSet or a Deployment, with the account they run as."""

from __future__ import annotations

from konnectivity.lifecycle.objects.metadata import Object, metadata
from konnectivity.lifecycle.objects.pod import CA_BUNDLE, pod_template, replicas
from konnectivity.lifecycle.specification.spec import AgentSpec

MIN_READY = 10  # seconds in which the manager may find that a new agent does not work


def service_account(spec: AgentSpec) -> Object:
    """The account of the agents, for the token that they show to servers."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(spec),
        "automountServiceAccountToken": False,
    }


def ca_bundle(spec: AgentSpec) -> list[Object]:
    """The servers' CA, if it is not the cluster's own."""
    if not spec.ca_bundle:
        return []
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata(spec, name=CA_BUNDLE),
            "data": {"ca.crt": spec.ca_bundle},
        }
    ]


def workload(spec: AgentSpec) -> Object:
    """DaemonSet or Deployment. New agents of a Deployment are ready before old ones leave."""
    shared = {
        "minReadySeconds": MIN_READY,
        "selector": {"matchLabels": dict(spec.selector_labels)},
        "template": pod_template(spec),
    }
    if spec.is_daemonset:
        rolling = {"maxUnavailable": 1}
        strategy = {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}
        return _named(spec, "DaemonSet") | {"spec": strategy | shared}
    surge = {"maxUnavailable": 0, "maxSurge": 1}
    strategy = {"strategy": {"type": "RollingUpdate", "rollingUpdate": surge}}
    return _named(spec, "Deployment") | {"spec": {"replicas": replicas(spec)} | strategy | shared}


def _named(spec: AgentSpec, kind: str) -> Object:
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata(spec)}
