"""A small set of objects as the renderer makes them, and where the fixture keeps them."""

from __future__ import annotations

import copy
from typing import Any

Object = dict[str, Any]

ACCOUNT = "/api/v1/namespaces/kube-system/serviceaccounts/konnectivity-agent"
BINDING = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:konnectivity-server"
WORKLOAD = "/apis/apps/v1/namespaces/kube-system/daemonsets/konnectivity-agent"
PATHS = (ACCOUNT, BINDING, WORKLOAD)
LABELS = {"app": "konnectivity-agent", "k8s-app": "konnectivity-agent"}
OVERRIDES = (
    "spec.template.spec.tolerations",
    "spec.template.spec.containers[konnectivity-agent].resources",
)


def account() -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "name": "konnectivity-agent",
            "namespace": "kube-system",
            "labels": dict(LABELS),
        },
        "automountServiceAccountToken": False,
    }


def binding() -> Object:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "system:konnectivity-server"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "system:auth-delegator",
        },
        "subjects": [{"kind": "User", "name": "system:konnectivity-server"}],
    }


def workload(image: str = "registry.example/agent:1") -> Object:
    container = {
        "name": "konnectivity-agent",
        "image": image,
        "args": ["--proxy-server-host=konnectivity.example.com", "--sync-forever"],
        "env": [{"name": "HTTPS_PROXY", "value": "http://user:secret@proxy:3128"}],
        "resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "64Mi"}},
        "ports": [{"name": "health", "containerPort": 8093}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": "konnectivity-agent",
            "namespace": "kube-system",
            "labels": dict(LABELS),
        },
        "spec": {
            "selector": {"matchLabels": {"k8s-app": "konnectivity-agent"}},
            "template": {
                "metadata": {"labels": dict(LABELS)},
                "spec": {
                    "serviceAccountName": "konnectivity-agent",
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [container],
                },
            },
        },
    }


def desired() -> list[Object]:
    return [account(), binding(), workload()]


def container_of(item: Object) -> Object:
    found: Object = item["spec"]["template"]["spec"]["containers"][0]
    return found


def changed(item: Object | None, **fields: Any) -> Object:
    """A copy of a workload whose container has other fields."""
    assert item is not None
    copied = copy.deepcopy(item)
    container_of(copied).update(fields)
    return copied
