"""The flags of `konnectivity manager`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from konnectivity.flag import FLOAT, flag
from konnectivity.kube.selector import check_selector
from konnectivity.observe.log_options import LogOptions

LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class ManagerOptions(LogOptions):
    """All flags of the manager. Durations are seconds."""

    spec: str = flag("", "Specification of the agents, a TOML file; required.")
    kubeconfig: str = flag("", "Kubeconfig of the cluster; empty: in-cluster configuration.")
    clusters: str = flag(
        "", "Folder of clusters: NAME.kubeconfig each, NAME.toml beside it wins over --spec."
    )
    clusters_selector: str = flag(
        "",
        "Labels of Secrets that are clusters each, in the cluster of --kubeconfig: key kubeconfig "
        "or value; key agents.toml wins over --spec.",
    )
    clusters_namespace: str = flag("default", "Namespace of these Secrets.")
    cluster_concurrency: int = flag(32, "Clusters of many that are begun with at once.")
    dry_run: bool = flag(
        False, "Show what would be changed, ask the API whether it would take it, and end."
    )
    once: bool = flag(False, "Make the cluster as specified once, and end.")
    timeout: float = flag(60.0, "How long --once and --dry-run may take.")
    leader_elect: bool = flag(
        True,
        "Of several managers let one write. With --clusters the lease is in the cluster of "
        "--kubeconfig; without that there is none.",
    )
    leader_elect_namespace: str = flag(
        "",
        "Namespace of the lease konnectivity-manager; empty: that of the agents, or of Secrets "
        "that are clusters.",
    )
    resync_interval: float = flag(
        600.0, "How often each object is asked for, should a watch have missed something; 0: never."
    )
    probe_interval: float = flag(
        60.0, "How often a log of an agent is asked for, to see that nodes are reached; 0: never."
    )
    rollout_stuck_after: float = flag(
        300.0, "When a rollout is stopped that has no further new agent; 0: never."
    )
    scale_down_hold: float = flag(
        600.0, "How long more agents of a deployment are kept than are wanted; 0: not at all."
    )
    pki_directory: str = flag(
        "",
        "Certificates as of konnectivity certs init, from which agents get theirs; of many "
        "clusters each has a folder in it, by its name. Empty: agents' certificates are not kept.",
    )
    certificate_reload_interval: float = flag(
        10.0, "How often the files in --pki-directory are looked at."
    )
    kube_api_qps: float = flag(50.0, "Requests to the API of a cluster, a second.", kind=FLOAT)
    kube_api_burst: int = flag(100, "Requests to the API of a cluster at once.")
    health_server_host: str = flag("", "Health address; empty: all interfaces.")
    health_server_port: int = flag(8096, "Port of health checks, conditions and metrics.")

    @property
    def is_fleet(self) -> bool:
        """Whether there may be many clusters."""
        return bool(self.clusters or self.clusters_selector)


def validate(options: ManagerOptions) -> list[str]:
    """All that is wrong with `options`, a line each."""
    return list(_problems(options))


def _problems(options: ManagerOptions) -> Iterator[str]:
    if not options.spec:
        yield "--spec must be given: the file with the specification of the agents"
    if not 0 < options.health_server_port <= LAST_PORT:
        yield f"--health-server-port must be 1 to {LAST_PORT}, not {options.health_server_port}"
    times = ("resync_interval", "probe_interval", "timeout")
    for name in (*times, "rollout_stuck_after", "scale_down_hold"):
        if getattr(options, name) < 0:
            yield f"--{name.replace('_', '-')} must not be negative"
    if options.kube_api_qps <= 0 or options.kube_api_burst <= 0:
        yield "--kube-api-qps and --kube-api-burst must be greater than 0"
    if options.pki_directory and (options.dry_run or options.once):
        yield "--pki-directory is for a manager that stays: not with --dry-run and --once"
    if options.certificate_reload_interval <= 0:
        yield "--certificate-reload-interval must be greater than 0"
    if options.is_fleet:
        yield from _fleet_problems(options)


def _fleet_problems(options: ManagerOptions) -> Iterator[str]:
    if options.clusters and options.clusters_selector:
        yield "--clusters and --clusters-selector are two sources of clusters; give one"
    if options.dry_run or options.once:
        yield "--dry-run and --once are for one cluster: give its --kubeconfig, without --clusters"
    if options.cluster_concurrency <= 0:
        yield "--cluster-concurrency must be greater than 0"
    if options.clusters_selector and not options.clusters_namespace:
        yield "--clusters-namespace must be given: the namespace of the Secrets"
    try:
        check_selector(options.clusters_selector)
    except ValueError as error:
        yield f"--clusters-selector is no label selector: {error}"
