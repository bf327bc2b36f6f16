"""Rights: what the servers' user and the agents' account may do, and nothing more."""

from __future__ import annotations

from typing import Final

from konnectivity.lifecycle.objects.metadata import Object, metadata, shared_labels
from konnectivity.lifecycle.specification.spec import AgentSpec

GROUP: Final = "rbac.authorization.k8s.io"
BINDING: Final = "system:konnectivity-server"
SERVER: Final = "konnectivity-server"


def rights(spec: AgentSpec) -> list[Object]:
    """TokenReview for servers where agents show tokens; leases for both where they are counted;
    heartbeats for agents."""
    found: list[Object] = []
    user = {"kind": "User", "apiGroup": GROUP, "name": spec.server_user}
    if spec.uses_token:
        found.append(_token_review(spec, user))
    account = {"kind": "ServiceAccount", "name": spec.name, "namespace": spec.namespace}
    if spec.count_leases:
        found += _leases(spec, spec.name, ["get", "list", "watch"], account)
        found += _leases(spec, SERVER, ["get", "list", "create", "update", "delete"], user)
    if spec.heartbeats:
        found += _leases(
            spec,
            f"{spec.name}-heartbeats",
            ["create", "patch", "list", "delete"],
            account,
            namespace=spec.heartbeat_namespace,
        )
    return found


def heartbeat_namespace(spec: AgentSpec) -> list[Object]:
    """A namespace for nothing but heartbeats, so that their right is one to nothing else.

    In the agents' own namespace, often kube-system, leases decide who leads.
    """
    if not spec.heartbeats or spec.heartbeat_namespace in (spec.namespace, spec.lease_namespace):
        return []
    meta = {"name": spec.heartbeat_namespace, "labels": shared_labels(spec)}
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": meta}]


def _token_review(spec: AgentSpec, user: Object) -> Object:
    """The role is one that every cluster has; the name is the one that guides tell."""
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": metadata(spec, name=BINDING, namespace=""),
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "system:auth-delegator"},
        "subjects": [user],
    }


def _leases(
    spec: AgentSpec, name: str, verbs: list[str], subject: Object, *, namespace: str = ""
) -> list[Object]:
    meta = metadata(spec, name=name, namespace=namespace or spec.lease_namespace)
    rule = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs}
    return [
        {"apiVersion": f"{GROUP}/v1", "kind": "Role", "metadata": meta, "rules": [rule]},
        {
            "apiVersion": f"{GROUP}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": name},
            "subjects": [subject],
        },
    ]
