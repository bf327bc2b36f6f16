"""Where and how the servers run: `ControlPlaneSpec`, beside the specification of their agents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from konnectivity.flag import flag

SOCKET: Final = "server.socket"


@dataclass(frozen=True)
class ControlPlaneSpec:
    """One server beside each kube-apiserver, reached over a Unix socket."""

    flags_title: ClassVar[str] = "Control plane"

    server_image: str = flag("", "Container image with /proxy-server; empty: that of the agents.")
    frontend: str = flag("grpc", "What kube-apiserver speaks: grpc or http-connect.")
    server_count: int = flag(1, "Number of servers; without effect where leases are counted.")
    proxy_strategies: str = flag("default", "Ways to choose an agent, in order.")
    api_server: str = flag("https://127.0.0.1:6443", "The Kubernetes API, for the servers.")
    socket_directory: str = flag("/run/konnectivity", "Directory of the socket, shared by both.")
    server_certificates: str = flag(
        "/etc/kubernetes/pki/konnectivity/server",
        "Directory with tls.crt and tls.key of the server, and ca.crt for its agents.",
    )
    server_kubeconfig: str = flag(
        "/etc/kubernetes/konnectivity-server/kubeconfig",
        "The servers' kubeconfig, in a directory of its own.",
    )
    egress_configuration: str = flag(
        "/etc/kubernetes/egress-selector/configuration.yaml",
        "File for --egress-selector-config-file of kube-apiserver, in a directory of its own.",
    )
    agent_identities: tuple[str, ...] = flag(
        ("O=konnectivity:agent",),
        "What agents' certificates must bear, as --agent-certificate-identities; empty: any.",
    )

    @property
    def socket(self) -> str:
        return f"{self.socket_directory}/{SOCKET}"
