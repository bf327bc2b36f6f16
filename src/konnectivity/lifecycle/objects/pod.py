"""The pod of an agent: container, volumes, who may do what, where it may run."""

from __future__ import annotations

import math
from typing import Any, Final

from konnectivity.lifecycle.objects.arguments import (
    CA_DIRECTORY,
    CA_FILE,
    CERTIFICATE_DIRECTORY,
    COMMAND,
    HEALTH_PORT,
    TOKEN_DIRECTORY,
    TOKEN_FILE,
    arguments,
)
from konnectivity.lifecycle.objects.metadata import Object, pod_labels
from konnectivity.lifecycle.objects.toleration import tolerations
from konnectivity.lifecycle.specification import sizing
from konnectivity.lifecycle.specification.spec import CONTAINER, AgentSpec, pairs

USER: Final = 65532
"""The user of the image, which is nobody on the node."""
CA_BUNDLE: Final = "konnectivity-ca-bundle"
CLUSTER_CA: Final = "kube-root-ca.crt"
"""The cluster's own CA, a ConfigMap that Kubernetes keeps in every namespace."""
ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
LEAVING: Final = 5
"""Seconds beyond the drain's limit, for its last bytes and the process's end."""


def pod_template(spec: AgentSpec) -> Object:
    """Template of the workload. CA, certificate and token are reloaded live, so nothing of
    them is in it: a new one makes no new pods."""
    return {"metadata": {"labels": pod_labels(spec)}, "spec": _pod(spec)}


def replicas(spec: AgentSpec) -> int:
    """How many agents a deployment has."""
    return spec.replicas or sizing.replicas(spec.nodes, spec.zones)


def resources(spec: AgentSpec) -> Object:
    """Requests and the limit of memory, as given or by the table."""
    agents = max(spec.nodes, 1) if spec.is_daemonset else replicas(spec)
    size = sizing.size(spec.nodes, agents, kubernetes=spec.uses_api)
    return {
        "requests": {
            "cpu": spec.cpu_request or size.cpu,
            "memory": spec.memory_request or size.memory,
        },
        "limits": {"memory": spec.memory_limit or size.memory_limit},
    }


def _pod(spec: AgentSpec) -> Object:
    pod: Object = {
        "serviceAccountName": spec.name,
        "automountServiceAccountToken": False,
        "priorityClassName": spec.priority_class or _priority(spec),
        "dnsPolicy": spec.dns_policy or _dns(spec),
        "terminationGracePeriodSeconds": math.ceil(spec.drain_timeout) + LEAVING,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "tolerations": tolerations(spec),
        "containers": [_container(spec)],
        "volumes": _volumes(spec),
    }
    if spec.host_network:
        pod["hostNetwork"] = True
    if spec.server_addresses:
        pod["hostAliases"] = [
            {"ip": each, "hostnames": [spec.server_host]} for each in spec.server_addresses
        ]
    if spec.node_selector:
        pod["nodeSelector"] = pairs(spec.node_selector)
    if spec.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": each} for each in spec.image_pull_secrets]
    if not spec.is_daemonset:
        pod["topologySpreadConstraints"] = _spread(spec)
    return pod


def _priority(spec: AgentSpec) -> str:
    return "system-node-critical" if spec.is_daemonset else "system-cluster-critical"


def _dns(spec: AgentSpec) -> str:
    return "ClusterFirstWithHostNet" if spec.host_network else "ClusterFirst"


def _container(spec: AgentSpec) -> Object:
    return {
        "name": CONTAINER,
        "image": spec.image,
        "command": [COMMAND],
        "args": arguments(spec),
        "env": _environment(spec),
        "ports": [{"name": "health", "containerPort": HEALTH_PORT, "protocol": "TCP"}],
        "resources": resources(spec),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "livenessProbe": _probe("/healthz", delay=10, period=10, failures=3),
        # Not ready means no server is connected: that is no reason to start it anew.
        "readinessProbe": _probe("/readyz", delay=0, period=5, failures=2),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": each["name"], "mountPath": path, "readOnly": True}
            for each, path in _mounted(spec)
        ],
    }


def _environment(spec: AgentSpec) -> list[Object]:
    """The variables that identifiers may refer to come first: `$(NAME)` looks back only."""
    fields = {
        "PROXY_AGENT_ID": "metadata.name",
        "POD_NAME": "metadata.name",
        "NODE_NAME": "spec.nodeName",
        "NODE_IP": "status.hostIP",
    }
    if spec.heartbeats:
        fields |= {"POD_NAMESPACE": "metadata.namespace", "POD_UID": "metadata.uid"}
    downward: list[Object] = [
        {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
        for name, path in fields.items()
    ]
    return downward + [
        {"name": name, "value": value} for name, value in pairs(spec.environment).items()
    ]


def _probe(path: str, *, delay: int, period: int, failures: int) -> Object:
    probe: Object = {
        "httpGet": {"path": path, "port": "health", "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
    return probe | ({"initialDelaySeconds": delay} if delay else {})


def _volumes(spec: AgentSpec) -> list[Object]:
    return [volume for volume, _ in _mounted(spec)]


def _mounted(spec: AgentSpec) -> list[tuple[Object, str]]:
    """Volumes and where they are mounted. Whole directories: a `subPath` is never refreshed."""
    name = CA_BUNDLE if spec.ca_bundle else CLUSTER_CA
    items = [{"key": CA_FILE, "path": CA_FILE}]
    found: list[tuple[Object, str]] = [
        ({"name": "ca-bundle", "configMap": {"name": name, "items": items}}, CA_DIRECTORY)
    ]
    if spec.uses_token:
        token = {"path": TOKEN_FILE, "audience": spec.audience, "expirationSeconds": 3600}
        found.append((_projected("konnectivity-agent-token", _token(token)), TOKEN_DIRECTORY))
    if spec.uses_certificate:
        secret = {"secretName": spec.certificate_secret, "defaultMode": 0o440}
        found.append(({"name": "certificate", "secret": secret}, CERTIFICATE_DIRECTORY))
    if spec.uses_api:
        found.append((_projected("kubernetes-api", *_account()), ACCOUNT))
    return found


def _account() -> list[Object]:
    """What the automatic mount of a token would hold, for leases and heartbeats."""
    namespace = {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return [
        _token({"path": "token", "expirationSeconds": 3600}),
        {"configMap": {"name": CLUSTER_CA, "items": [{"key": CA_FILE, "path": CA_FILE}]}},
        {"downwardAPI": {"items": [{"path": "namespace", **namespace}]}},
    ]


def _token(source: Object) -> Object:
    return {"serviceAccountToken": source}


def _projected(name: str, *sources: Object) -> Object:
    return {"name": name, "projected": {"defaultMode": 0o440, "sources": list(sources)}}


def _spread(spec: AgentSpec) -> list[dict[str, Any]]:
    """By zone, then by node, and never so strictly that a node must be added for it."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": dict(spec.selector_labels)},
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
