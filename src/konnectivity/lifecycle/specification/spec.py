"""What is to be installed in a cluster: `AgentSpec`, one frozen dataclass.

It is data only. Its fields are the flags of the commands that take a specification, and the keys
of a TOML file (`spec_file.py`); `spec_check.py` says what is wrong with one, `render.py` makes
objects of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from konnectivity.flag import flag
from konnectivity.lifecycle.specification.bundle import PEM
from konnectivity.net.address import split_host_port

AGENT: Final = "konnectivity-agent"
AGENT_PORT: Final = 8091
CONTAINER: Final = AGENT
"""Name of the agent's container, whatever the workload is called."""

WORKLOAD_OVERRIDES: Final = (
    "spec.replicas",
    "spec.template.spec.nodeSelector",
    "spec.template.spec.tolerations",
    f"spec.template.spec.containers[{CONTAINER}].resources",
)


@dataclass(frozen=True)
class AgentSpec:
    """One cluster's agents. Durations are seconds; lists of `key=value` keep their order.

    Where a text is empty or a number 0, a default follows from the rest, as each field's help
    says. Nothing here is secret: a client certificate is a Secret of its own, named here.
    """

    flags_title: ClassVar[str] = "Specification"

    server: str = flag("", "Where agents find the servers, host or host:port; required.")
    server_addresses: tuple[str, ...] = flag(
        (), "IP addresses of that host, for nodes whose DNS does not know it; empty: DNS is asked."
    )
    image: str = flag("", "Container image with /proxy-agent; required.")
    image_pull_secrets: tuple[str, ...] = flag((), "Secrets with credentials for the image.")
    mode: str = flag("daemonset", "One agent on each node, daemonset; or some, deployment.")
    replicas: int = flag(0, "Agents of a deployment; 0: by --nodes and --zones.")
    nodes: int = flag(0, "Nodes of the cluster, schedulable or not, for sizes; 0: few.")
    zones: int = flag(0, "Zones of the cluster; with more than one, three agents at least.")
    authentication: str = flag("token", "What agents show: token, certificate or both.")
    audience: str = flag("system:konnectivity-server", "Audience of the agents' tokens.")
    server_user: str = flag(
        "system:konnectivity-server", "Kubernetes user of the servers, which reviews tokens."
    )
    certificate_secret: str = flag(
        AGENT, "Secret with the agents' certificate, tls.crt and tls.key."
    )
    ca_bundle: str = flag(
        "",
        "CA bundle for the servers' certificates, PEM or @file; empty: the cluster's own CA.",
        kind=PEM,
    )
    count_leases: bool = flag(False, "Agents count servers by their leases.")
    lease_namespace: str = flag("kube-system", "Namespace of the leases.")
    heartbeats: bool = flag(
        True, "Agents write their state to the Kubernetes API, for konnectivity status and doctor."
    )
    heartbeat_namespace: str = flag(
        "konnectivity-heartbeats", "Namespace of these heartbeats, best one of their own."
    )
    identifiers: str = flag(
        "",
        "What an agent is near to; empty: in a daemonset its node's name and address. "
        "$(NODE_NAME), $(NODE_IP) and $(POD_NAME) are known.",
    )
    host_network: bool = flag(False, "Agents use their node's network, not that of pods.")
    dns_policy: str = flag("", "DNS policy of the pods; empty: that of the cluster.")
    drain_timeout: float = flag(25.0, "How long an agent that leaves waits for its tunnels.")
    cpu_request: str = flag("", "CPU request; empty: by --nodes.")
    memory_request: str = flag("", "Memory request; empty: by --nodes.")
    memory_limit: str = flag("", "Memory limit; empty: by --nodes.")
    priority_class: str = flag("", "Priority class; empty: the system's one for the mode.")
    node_selector: tuple[str, ...] = flag(
        ("kubernetes.io/os=linux",), "Labels of nodes that may have agents, key=value."
    )
    tolerations: tuple[str, ...] = flag(
        (),
        "Taints to tolerate, key, key:Effect, key=value:Effect, * for all, with @seconds at the "
        "end if for a time; empty: what suits the mode.",
    )
    extra_arguments: tuple[str, ...] = flag((), "Further flags of the agent, as --name=value.")
    environment: tuple[str, ...] = flag(
        (), "Environment of the agent, NAME=value, such as HTTPS_PROXY."
    )
    network_policy: bool = flag(False, "Limit the agents' traffic by a NetworkPolicy.")
    destinations: tuple[str, ...] = flag(
        (), "Networks of nodes, pods and services, for --network-policy, as CIDR."
    )
    monitoring: bool = flag(
        False, "Objects for the Prometheus operator: PodMonitor, PrometheusRule; and a Service."
    )
    overrides: tuple[str, ...] = flag(
        WORKLOAD_OVERRIDES,
        "Fields of the workload that users may change, as paths; a list's element by its name.",
    )
    namespace: str = flag("kube-system", "Namespace of the agents.", short="n")
    name: str = flag(AGENT, "Name of the objects, and of the labels app and k8s-app.")
    labels: tuple[str, ...] = flag((), "Further labels of all objects, key=value.")
    selector: tuple[str, ...] = flag(
        (), "Labels by which the workload finds its pods, key=value; empty: k8s-app=<name>."
    )

    @property
    def server_host(self) -> str:
        return _split(self.server)[0]

    @property
    def server_port(self) -> int:
        """Port of the servers for agents; 0 if what was given is no port."""
        port = _split(self.server)[1]
        return int(port) if port.isascii() and port.isdigit() else 0

    @property
    def is_daemonset(self) -> bool:
        return self.mode == "daemonset"

    @property
    def uses_token(self) -> bool:
        return self.authentication in ("token", "both")

    @property
    def uses_certificate(self) -> bool:
        return self.authentication in ("certificate", "both")

    @property
    def uses_api(self) -> bool:
        """Whether agents talk to the Kubernetes API."""
        return self.count_leases or self.heartbeats

    @property
    def selector_labels(self) -> Mapping[str, str]:
        """Labels by which workload, budget and policies find the pods."""
        return pairs(self.selector) or {"k8s-app": self.name}


def pairs(texts: tuple[str, ...]) -> dict[str, str]:
    """`key=value` texts as a mapping; without `=` the value is empty."""
    return {key: value for key, _, value in (text.partition("=") for text in texts)}


def _split(server: str) -> tuple[str, str]:
    """Host and port, as texts; a bare IPv6 address is a host."""
    if ":" not in server or (server.count(":") > 1 and not server.startswith("[")):
        return server, str(AGENT_PORT)
    if server.startswith("[") and server.endswith("]"):
        return server[1:-1], str(AGENT_PORT)
    try:
        return split_host_port(server)
    except ValueError:
        return server, ""
