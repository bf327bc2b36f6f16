"""What the control plane needs, as files: the server in three forms, and what points to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final

from konnectivity.lifecycle.objects.metadata import Object
from konnectivity.lifecycle.objects.server import NAME, STOPPED, asks_kubernetes, container
from konnectivity.lifecycle.specification.control_plane_spec import ControlPlaneSpec
from konnectivity.lifecycle.specification.spec import AgentSpec

PROTOCOLS: Final[Mapping[str, str]] = {"grpc": "GRPC", "http-connect": "HTTPConnect"}
"""The frontend's mode, and the `proxyProtocol` that speaks it."""
SOCKET: Final = "konnectivity-socket"
CERTIFICATES: Final = "konnectivity-certificates"
KUBECONFIG: Final = "konnectivity-kubeconfig"
EGRESS: Final = "konnectivity-egress"


def egress_selector(plane: ControlPlaneSpec) -> Object:
    """The file that sends kube-apiserver's traffic into the cluster through the server."""
    through = {
        "proxyProtocol": PROTOCOLS[plane.frontend],
        "transport": {"uds": {"udsName": plane.socket}},
    }
    direct = {"proxyProtocol": "Direct"}
    return {
        "apiVersion": "apiserver.k8s.io/v1beta1",
        "kind": "EgressSelectorConfiguration",
        "egressSelections": [
            {"name": "cluster", "connection": through},
            {"name": "controlplane", "connection": direct},
            {"name": "etcd", "connection": direct},
        ],
    }


def kubeconfig(agents: AgentSpec, plane: ControlPlaneSpec) -> Object:
    """The servers' kubeconfig. The user has the rights of its RBAC objects, and no group."""
    beside = PurePosixPath(plane.server_kubeconfig).parent
    user = {"client-certificate": f"{beside}/tls.crt", "client-key": f"{beside}/tls.key"}
    cluster = {"server": plane.api_server, "certificate-authority": f"{beside}/ca.crt"}
    context = {"cluster": "kubernetes", "user": agents.server_user}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "kubernetes", "cluster": cluster}],
        "users": [{"name": agents.server_user, "user": user}],
        "contexts": [{"name": agents.server_user, "context": context}],
        "current-context": agents.server_user,
    }


def static_pod(agents: AgentSpec, plane: ControlPlaneSpec) -> Object:
    """The server on the node's network, as root: so are the keys, and kube-apiserver's socket."""
    paths = {SOCKET: plane.socket_directory, CERTIFICATES: plane.server_certificates}
    if asks_kubernetes(agents):
        # The whole folder: a file that is replaced is not seen behind a mount of its own.
        paths[KUBECONFIG] = str(PurePosixPath(plane.server_kubeconfig).parent)
    mounts: list[Object] = [
        {"name": name, "mountPath": path, "readOnly": name != SOCKET}
        for name, path in paths.items()
    ]
    server = container(agents, plane, mounts)
    server["livenessProbe"]["httpGet"]["host"] = "127.0.0.1"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": NAME, "namespace": "kube-system", "labels": {"k8s-app": NAME}},
        "spec": {
            "hostNetwork": True,
            "priorityClassName": "system-node-critical",
            "terminationGracePeriodSeconds": STOPPED,
            "securityContext": {
                "runAsUser": 0,
                "runAsGroup": 0,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [server],
            "volumes": [
                {
                    "name": name,
                    "hostPath": {
                        "path": path,
                        "type": "DirectoryOrCreate" if name == SOCKET else "Directory",
                    },
                }
                for name, path in paths.items()
            ],
        },
    }


def sidecar(agents: AgentSpec, plane: ControlPlaneSpec) -> Object:
    """What a Deployment of kube-apiserver gains, as a strategic merge patch.

    Secrets and ConfigMaps are mounted as folders, so that the kubelet keeps them fresh.
    """
    socket = {"name": SOCKET, "mountPath": plane.socket_directory}
    folder = str(PurePosixPath(plane.egress_configuration).parent)
    mounts: list[Object] = [
        socket,
        {"name": CERTIFICATES, "mountPath": plane.server_certificates, "readOnly": True},
    ]
    volumes: list[Object] = [
        {"name": SOCKET, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": CERTIFICATES, "secret": {"secretName": NAME, "defaultMode": 0o440}},
        {"name": EGRESS, "configMap": {"name": EGRESS}},
    ]
    if asks_kubernetes(agents):
        where = str(PurePosixPath(plane.server_kubeconfig).parent)
        mounts.append({"name": KUBECONFIG, "mountPath": where, "readOnly": True})
        secret = {"secretName": KUBECONFIG, "defaultMode": 0o440}
        volumes.append({"name": KUBECONFIG, "secret": secret})
    apiserver = {
        "name": "kube-apiserver",
        "volumeMounts": [socket, {"name": EGRESS, "mountPath": folder, "readOnly": True}],
    }
    containers = [apiserver, container(agents, plane, mounts)]
    return {"spec": {"template": {"spec": {"containers": containers, "volumes": volumes}}}}
