"""What a reconciler has learnt of the objects of its cluster while it runs. No IO."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from konnectivity.kube.collection import Object
from konnectivity.lifecycle.reconciling.fields import Path, covers, leaves, show, value_at
from konnectivity.lifecycle.reconciling.plan import Action, Key, Known
from konnectivity.observe import logs

log = logs.get(__name__)


class Ledger:
    """By object. `installed` are those that were created here for the first time."""

    def __init__(self) -> None:
        self.installed: set[Key] = set()
        self._seen: set[Key] = set()
        self._fine: dict[Key, str] = {}
        """Version at which each object was found as wanted."""
        self._confirmed: set[Key] = set()
        self._settled: dict[Key, dict[Path, Any]] = {}
        self._other_pace: set[Key] = set()

    def known(self, *, added: Collection[Key]) -> Known:
        """For a plan."""
        return Known(
            seen=self._seen,
            installed=self.installed,
            confirmed=self._confirmed,
            settled=self._settled,
            added=added,
            steered=self._other_pace,
        )

    def saw(self, observed: Mapping[Key, Object | None]) -> None:
        """Note what is there."""
        self._seen.update(key for key, item in observed.items() if item is not None)

    def is_fine(self, key: Key, item: Object | None) -> bool:
        """Whether this very version was found to be as wanted."""
        return item is not None and self._fine.get(key) == version(item)

    def found_fine(self, key: Key, item: Object) -> None:
        """Note that it is as wanted."""
        self._fine[key] = version(item)
        self._confirmed.add(key)
        self._other_pace.discard(key)

    def other_pace(self, key: Key) -> None:
        """The workload is to be replaced at another pace than before."""
        self._fine.pop(key, None)
        self._confirmed.discard(key)
        self._other_pace.add(key)

    def settle(self, action: Action, item: Object) -> None:
        """Learn what the API made of our values: that is as good, or there would be no end."""
        found = {
            path: have
            for path, value in leaves(action.body)
            if not covers(have := value_at(item, path), value, path)
        }
        if found:
            paths = ", ".join(show(path) for path in found)
            log.info("The API changed what was applied", object=str(action.key), fields=paths)
        self._settled[action.key] = found

    def begin_anew(self, key: Key) -> None:
        """Something else is wanted of it: what it was is no measure any more."""
        self._fine.pop(key, None)
        self._settled.pop(key, None)
        self._confirmed.discard(key)
        self._other_pace.discard(key)

    def forget(self, key: Key) -> None:
        """It is gone, and nobody wants it."""
        self.begin_anew(key)
        self._seen.discard(key)
        self.installed.discard(key)


def version(item: Object) -> str:
    """The `resourceVersion`."""
    return str(item["metadata"].get("resourceVersion") or "")
