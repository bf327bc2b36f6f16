"""The flags of `konnectivity manager`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from konnectivity.flag import FLOAT, flag
from konnectivity.observe.log_options import LogOptions

LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class ManagerOptions(LogOptions):
    """All flags of the manager. Durations are seconds."""

    spec: str = flag("", "Specification of the agents, a TOML file; required.")
    kubeconfig: str = flag("", "Kubeconfig of the cluster; empty: in-cluster configuration.")
    dry_run: bool = flag(
        False, "Show what would be changed, ask the API whether it would take it, and end."
    )
    once: bool = flag(False, "Make the cluster as specified once, and end.")
    timeout: float = flag(60.0, "How long --once and --dry-run may take.")
    leader_elect: bool = flag(True, "Of several managers of a cluster, let one write.")
    leader_elect_namespace: str = flag(
        "", "Namespace of the lease konnectivity-manager; empty: that of the agents."
    )
    resync_interval: float = flag(
        600.0, "How often each object is asked for, should a watch have missed something; 0: never."
    )
    probe_interval: float = flag(
        60.0, "How often a log of an agent is asked for, to see that nodes are reached; 0: never."
    )
    kube_api_qps: float = flag(50.0, "Requests to the API, a second.", kind=FLOAT)
    kube_api_burst: int = flag(100, "Requests to the API at once.")
    health_server_host: str = flag("", "Health address; empty: all interfaces.")
    health_server_port: int = flag(8096, "Port of health checks, conditions and metrics.")


def validate(options: ManagerOptions) -> list[str]:
    """All that is wrong with `options`, a line each."""
    return list(_problems(options))


def _problems(options: ManagerOptions) -> Iterator[str]:
    if not options.spec:
        yield "--spec must be given: the file with the specification of the agents"
    if not 0 < options.health_server_port <= LAST_PORT:
        yield f"--health-server-port must be 1 to {LAST_PORT}, not {options.health_server_port}"
    for name in ("resync_interval", "probe_interval", "timeout"):
        if getattr(options, name) < 0:
            yield f"--{name.replace('_', '-')} must not be negative"
    if options.kube_api_qps <= 0 or options.kube_api_burst <= 0:
        yield "--kube-api-qps and --kube-api-burst must be greater than 0"
