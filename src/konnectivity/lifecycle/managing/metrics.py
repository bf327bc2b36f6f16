"""The manager's metrics: what it mended and how fast, what failed, how old its knowledge is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from konnectivity import __version__
from konnectivity.lifecycle.reconciling.conditions import Condition
from konnectivity.lifecycle.reconciling.plan import Key
from konnectivity.lifecycle.rollouts.progress import Progress
from konnectivity.observe import process
from konnectivity.observe.exposition import Catalogue, Family
from konnectivity.observe.histogram import Histogram, RequestCounts

BOUNDS: Final = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)

MANAGER: Final = Catalogue("konnectivity_manager_")

_HEAL_SECONDS = MANAGER.histogram(
    "heal_duration_seconds",
    "From the notice that an object is gone or differs to its being as wanted.",
    *("kind", "reason"),
    bounds=BOUNDS,
    ours=True,
    note="`reason` is `restore` or `drift`.",
)
_WRITES = MANAGER.counter(
    "heals_total",
    "Objects written, by reason.",
    *("kind", "reason"),
    ours=True,
    note="`reason` is `install`, `restore`, `drift`, `upgrade`, `adopt`, `rollout` or `remove`.",
)
_FAILURES = MANAGER.counter(
    "write_failures_total",
    "Writes that failed, by HTTP status.",
    *("kind", "code"),
    ours=True,
    note="`code` is 0 if there was no answer.",
)
_LAST_FAILURE = MANAGER.gauge(
    "last_error_timestamp_seconds", "When the last write failed, in seconds since 1970.", ours=True
)
_FAILING = MANAGER.gauge("failing_objects", "Objects that cannot be written.", ours=True)
_CONTESTED = MANAGER.counter(
    "contested_total", "How often somebody was found to undo what is mended.", "kind", ours=True
)
_LAG = MANAGER.gauge(
    "watch_lag_seconds",
    "How old the copy of an object is; about 0 while its watch is up.",
    "kind",
    ours=True,
    note="The oldest of a kind.",
)
_MISSED = MANAGER.counter(
    "watch_missed_total", "Changes that only a full resync has shown.", "kind", ours=True
)
_LISTS = MANAGER.counter(
    "lists_total", "Lists by answer.", *("http_response_code", "reason"), ours=True
)
_WATCHES = MANAGER.counter(
    "watches_total", "Watches by answer.", *("http_response_code", "reason"), ours=True
)
_DROPPED = MANAGER.counter(
    "dropped_events_total", "Kubernetes Events that could not be written.", ours=True
)
_LEADING = MANAGER.gauge("leading", "Whether this process may write: 1 or 0.", ours=True)
_CONDITION = MANAGER.gauge(
    "condition",
    "Conditions: 1 true, 0 false, -1 unknown.",
    *("cluster", "type"),
    ours=True,
    note="`cluster` is empty where there is but one. Of 2000 clusters, those in need first.",
)
_CLUSTERS = MANAGER.gauge(
    "clusters",
    "Clusters in each condition.",
    *("type", "status"),
    ours=True,
    note="`status` is `True`, `False` or `Unknown`.",
)
_ENDS = MANAGER.gauge(
    "certificate_not_after_timestamp_seconds",
    "When certificates in --pki-directory end, in seconds since 1970.",
    *("cluster", "role"),
    ours=True,
    note="`role` is `ca`, `server`, `agent`, ...; of several the first. At most 8000 are told.",
)
_ISSUED = MANAGER.counter(
    "certificates_issued_total", "Certificates renewed or rotated in --pki-directory.", ours=True
)
_UNKEPT = MANAGER.counter(
    "certificate_failures_total",
    "How often a directory of certificates could not be kept or read.",
    ours=True,
)
_AGENTS = MANAGER.gauge(
    "agents",
    "Agents of all clusters by state, as their workloads tell.",
    "state",
    ours=True,
    note="`state` is `wanted`, `updated` (of the present template) or `available`.",
)
_STOPPED = MANAGER.gauge(
    "rollouts_stopped", "Clusters in which the rollout of agents is stopped, or stuck.", ours=True
)
_BUILD = MANAGER.gauge(
    "build_info", "This program's version; the value is 1.", "version", ours=True
)


MOST_SHOWN: Final = 2000
"""Clusters whose conditions are told one by one; all are counted."""
MOST_ENDS: Final = 8000
"""Ends of certificates that are told, the first ones of all."""
IN_NEED: Final = frozenset(
    ["ApiReachable", "Available", "CertificatesValid", "Installed", "Registered"]
)
"""Conditions that ought to be true."""


@dataclass(frozen=True, slots=True)
class ClusterFigures:
    """One cluster as it is while the metrics are read."""

    lags: Mapping[Key, float]
    """How old the copy of each object is, seconds."""
    lists: RequestCounts
    watches: RequestCounts
    failing: int
    """Objects that cannot be written."""
    dropped: int
    """Kubernetes Events that could not be written."""
    conditions: tuple[Condition, ...]
    rollout: Progress | None = None
    """How far the agents' rollout is."""
    stopped: bool = False
    """Whether that is stopped, or stuck."""
    ends: Mapping[str, float] = field(default_factory=dict)
    """When certificates end, Unix seconds by role."""


class ManagerCounters:
    """What is counted while a manager runs; the rest is looked at when asked."""

    def __init__(self) -> None:
        self.heal_seconds: dict[tuple[str, str], Histogram] = {}
        self.heals: Counter[tuple[str, str]] = Counter()
        self.failures: Counter[tuple[str, str]] = Counter()
        self.contested: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.last_failure = 0.0
        self.certificates_issued = 0
        self.certificate_failures = 0

    def healed(self, kind: str, reason: str, seconds: float | None) -> None:
        """Count one object that was written; `seconds` if it was damaged before."""
        self.heals[kind, reason] += 1
        if seconds is not None:
            self.heal_seconds.setdefault((kind, reason), Histogram(BOUNDS)).observe(seconds)


def families(
    counters: ManagerCounters, clusters: Mapping[str, ClusterFigures], *, leading: bool
) -> list[Family]:
    """All metrics as of now; `clusters` by name."""
    oldest: dict[str, float] = {}
    lists: Counter[tuple[str, str]] = Counter()
    watches: Counter[tuple[str, str]] = Counter()
    for each in clusters.values():
        lists += each.lists.total
        watches += each.watches.total
        for key, lag in each.lags.items():
            oldest[key.kind] = max(lag, oldest.get(key.kind, 0.0))
    return [
        _HEAL_SECONDS.durations_each(counters.heal_seconds),
        _WRITES.each(counters.heals),
        _FAILURES.each(counters.failures),
        _LAST_FAILURE.each({(): counters.last_failure} if counters.last_failure else {}),
        _FAILING.value(sum(each.failing for each in clusters.values())),
        _CONTESTED.each(counters.contested),
        _LAG.each(oldest),
        _MISSED.each(counters.missed),
        _LISTS.each(lists),
        _WATCHES.each(watches),
        _DROPPED.value(sum(each.dropped for each in clusters.values())),
        _LEADING.value(leading),
        _AGENTS.each(_agents(clusters.values())),
        _STOPPED.value(sum(each.stopped for each in clusters.values())),
        *_conditions({name: each.conditions for name, each in clusters.items()}),
        _ENDS.each(_first_ends(clusters)),
        _ISSUED.value(counters.certificates_issued),
        _UNKEPT.value(counters.certificate_failures),
        _BUILD.each({__version__: 1}),
        *process.families(),
    ]


def _conditions(found: Mapping[str, Iterable[Condition]]) -> list[Family]:
    counted: Counter[tuple[str, str]] = Counter()
    for each in found.values():
        counted.update((one.type, one.word) for one in each)
    shown = sorted(found, key=lambda name: not _in_need(found[name]))[:MOST_SHOWN]
    values = {None: -1, False: 0, True: 1}
    by_cluster = {(name, one.type): values[one.status] for name in shown for one in found[name]}
    return [_CONDITION.each(by_cluster), _CLUSTERS.each(counted)]


def _agents(clusters: Iterable[ClusterFigures]) -> dict[str, float]:
    found = [each.rollout for each in clusters if each.rollout is not None]
    return {
        "wanted": sum(each.wanted for each in found),
        "updated": sum(each.updated for each in found),
        "available": sum(each.available for each in found),
    }


def _first_ends(clusters: Mapping[str, ClusterFigures]) -> dict[tuple[str, str], float]:
    found = {(name, role): at for name, each in clusters.items() for role, at in each.ends.items()}
    return dict(sorted(found.items(), key=lambda item: item[1])[:MOST_ENDS])


def _in_need(conditions: Iterable[Condition]) -> bool:
    return any(one.type in IN_NEED and one.status is not True for one in conditions)
