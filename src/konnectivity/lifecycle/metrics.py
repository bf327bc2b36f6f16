"""The manager's metrics: what it mended and how fast, what failed, how old its knowledge is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from konnectivity import __version__
from konnectivity.lifecycle.conditions import Condition
from konnectivity.lifecycle.plan import Key
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
    note="`reason` is `install`, `restore`, `drift`, `upgrade` or `adopt`.",
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
    "type",
    ours=True,
)
_BUILD = MANAGER.gauge(
    "build_info", "This program's version; the value is 1.", "version", ours=True
)


class ManagerCounters:
    """What is counted while a manager runs; the rest is looked at when asked."""

    def __init__(self) -> None:
        self.heal_seconds: dict[tuple[str, str], Histogram] = {}
        self.heals: Counter[tuple[str, str]] = Counter()
        self.failures: Counter[tuple[str, str]] = Counter()
        self.contested: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.last_failure = 0.0

    def healed(self, kind: str, reason: str, seconds: float | None) -> None:
        """Count one object that was written; `seconds` if it was damaged before."""
        self.heals[kind, reason] += 1
        if seconds is not None:
            self.heal_seconds.setdefault((kind, reason), Histogram(BOUNDS)).observe(seconds)


def families(
    counters: ManagerCounters,
    *,
    lags: Mapping[Key, float],
    lists: RequestCounts,
    watches: RequestCounts,
    failing: int,
    dropped: int,
    leading: bool,
    conditions: Iterable[Condition],
) -> list[Family]:
    """All metrics as of now."""
    oldest: dict[str, float] = {}
    for key, lag in lags.items():
        oldest[key.kind] = max(lag, oldest.get(key.kind, 0.0))
    values = {None: -1, False: 0, True: 1}
    return [
        _HEAL_SECONDS.durations_each(counters.heal_seconds),
        _WRITES.each(counters.heals),
        _FAILURES.each(counters.failures),
        _LAST_FAILURE.each({(): counters.last_failure} if counters.last_failure else {}),
        _FAILING.value(failing),
        _CONTESTED.each(counters.contested),
        _LAG.each(oldest),
        _MISSED.each(counters.missed),
        _LISTS.each(lists.total),
        _WATCHES.each(watches.total),
        _DROPPED.value(dropped),
        _LEADING.value(leading),
        _CONDITION.each({each.type: values[each.status] for each in conditions}),
        _BUILD.each({__version__: 1}),
        *process.families(),
    ]
