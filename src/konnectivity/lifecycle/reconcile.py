"""The loop that keeps one cluster as wanted: observe, plan, apply; again whenever something moves.

Level-triggered: each pass looks at all that is there, whatever woke it. Each object is written on
its own, so one that is refused or slow holds up no other. When all is as wanted nothing is sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from konnectivity.kube.client import failures
from konnectivity.kube.collection import Object, status_of
from konnectivity.kube.watch import WatchOptions
from konnectivity.lifecycle.apply import Applier, refusal
from konnectivity.lifecycle.conditions import Conditions, Facts, conditions
from konnectivity.lifecycle.events import Recorder
from konnectivity.lifecycle.fields import Path, covers, leaves, show, value_at
from konnectivity.lifecycle.metrics import ManagerCounters
from konnectivity.lifecycle.observe import WATCHING, Observer
from konnectivity.lifecycle.pace import Pace
from konnectivity.lifecycle.plan import (
    WORKLOADS,
    Action,
    Key,
    Known,
    Reason,
    is_paused,
    key_of,
    plan,
)
from konnectivity.lifecycle.reachability import INTERVAL, TYPE, probe
from konnectivity.lifecycle.suspects import suspects
from konnectivity.net.backoff import lengthened
from konnectivity.observe import logs

if TYPE_CHECKING:
    from lightkube import AsyncClient

log = logs.get(__name__)

EVENTS: Final = {
    Reason.INSTALL: "Installed",
    Reason.ADOPT: "Installed",
    Reason.RESTORE: "Restored",
    Reason.DRIFT: "DriftReverted",
    Reason.UPGRADE: "Upgraded",
}
HEALS: Final = frozenset([Reason.RESTORE, Reason.DRIFT])


@dataclass(frozen=True, slots=True)
class ReconcileOptions:
    """Times in seconds."""

    resync: float = 600.0
    """Each object is asked for again, should a watch have missed something; 0: never."""
    probe: float = INTERVAL
    """How often the path to the nodes is tried; 0: never."""
    overrides: tuple[str, ...] = ()
    """Fields of the workload that users may change."""
    watch: WatchOptions = WATCHING


class Reconciler:
    """Keeps `desired` in the cluster of `client` while `run` runs.

    Nothing is written unless `may_write` says so; call `wake` when that may have changed.
    """

    def __init__(
        self,
        client: AsyncClient,
        desired: Sequence[Object],
        *,
        options: ReconcileOptions | None = None,
        may_write: Callable[[], bool] = lambda: True,
        counters: ManagerCounters | None = None,
    ) -> None:
        self.options = options or ReconcileOptions()
        self.counters = counters or ManagerCounters()
        self.conditions = Conditions()
        self.recorder = Recorder(client)
        self.failing: dict[Key, str] = {}
        self.paused = False
        self._client = client
        self._desired = {key_of(item): item for item in desired}
        self.observer = Observer(
            client, self._desired, changed=self.wake, options=self.options.watch
        )
        self._may_write = may_write
        self._applier = Applier(client)
        self._paces = {key: Pace() for key in self._desired}
        self._busy: set[Key] = set()
        self._seen: set[Key] = set()
        self._installed: set[Key] = set()
        self._fine: dict[Key, str] = {}
        """Version at which each object was found as wanted."""
        self._confirmed: set[Key] = set()
        self._settled: dict[Key, dict[Path, Any]] = {}
        self._woken = asyncio.Event()
        self._passed = asyncio.Event()

    def wake(self) -> None:
        """Look again."""
        self._woken.set()

    @property
    def converged(self) -> bool:
        """Whether all objects are known to be as wanted."""
        observed = self.observer.observed()
        return all(
            (item := observed.get(key)) is not None and self._fine.get(key) == _version(item)
            for key in self._desired
        )

    @property
    def stuck(self) -> dict[Key, str]:
        """Why objects can be neither seen nor written, by object."""
        return {**self.observer.troubles, **self.failing}

    async def until_settled(self) -> None:
        """Wait until all is as wanted, or nothing can be done because the workload is paused."""
        while not (self.converged or self.paused):
            self._passed.clear()
            await self._passed.wait()

    async def run(self) -> None:
        """Reconcile until cancelled."""
        async with self.observer, self.recorder, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._resync())
            tasks.create_task(self._probe())
            while True:
                self._woken.clear()
                wait = self._pass(tasks)
                self._passed.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._woken.wait()

    def _pass(self, tasks: asyncio.TaskGroup) -> float | None:
        """Begin what is to be done now; return the seconds until there may be more, if any."""
        observed = self.observer.observed()
        self._seen.update(key for key, item in observed.items() if item is not None)
        self._note_pause(observed)
        self.judge()
        if self.paused or not self._may_write() or self._may_be_paused(observed):
            return None
        now, due = time.monotonic(), []
        for action in self._planned(observed):
            pace = self._paces[action.key]
            if contested := pace.damaged(now):
                self._contested(action, contested)
            if pace.due > now:
                due.append(pace.due - now)
            else:
                self._busy.add(action.key)
                tasks.create_task(self._perform(action))
        return min(due, default=None)

    def _planned(self, observed: dict[Key, Object | None]) -> list[Action]:
        """The actions for objects that are not known to be fine, and not being written."""
        open_ = {
            key: item
            for key, item in self._desired.items()
            if key not in self._busy
            and ((live := observed.get(key)) is None or self._fine.get(key) != _version(live))
        }
        actions = plan(
            list(open_.values()),
            observed,
            overrides=self.options.overrides,
            known=Known(self._seen, self._installed, self._confirmed, self._settled),
        )
        acting = {action.key for action in actions}
        for key in open_.keys() - acting:
            live = observed.get(key)
            if live is not None and not live["metadata"].get("deletionTimestamp"):
                self._fine[key] = _version(live)
                self._confirmed.add(key)
                self._paces[key].settled()
                self.failing.pop(key, None)
        return actions

    async def _perform(self, action: Action) -> None:
        key = action.key
        try:
            item = await self._applier.perform(action)
        except failures() as error:
            self._failed(action, error)
        except Exception as error:
            log.exception("Cannot write an object", object=str(key))
            self._failed(action, error)
        else:
            self._written(action, item)
        finally:
            self._busy.discard(key)
            self.wake()

    def _written(self, action: Action, item: Object) -> None:
        key, now = action.key, time.monotonic()
        watched, pace = self.observer.watched[key], self._paces[key]
        since = watched.lost_at if action.reason is Reason.RESTORE else pace.noticed
        self._settle(action, item)
        watched.wrote(item)
        self.failing.pop(key, None)
        if action.live is not None and _version(item) == _version(action.live):
            pace.settled()
            return
        pace.mended(now)
        if action.reason is Reason.INSTALL:
            self._installed.add(key)
        seconds = now - since if since and action.reason in HEALS else None
        self.counters.healed(key.kind, action.reason.value, seconds)
        reason, message = EVENTS[action.reason], _message(action, seconds)
        log.info(message, object=str(key), event=reason)
        self.recorder.record(key, reason, message, uid=item["metadata"].get("uid") or "")

    def _settle(self, action: Action, item: Object) -> None:
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

    def _failed(self, action: Action, error: Exception) -> None:
        key = action.key
        text = refusal(key, error)
        wait = self._paces[key].failed(time.monotonic())
        status = status_of(error)
        self.counters.failures[key.kind, str(status[0] if status else 0)] += 1
        self.counters.last_failure = time.time()
        if self.failing.get(key) == text:
            return
        self.failing[key] = text
        log.warning(
            "Cannot write an object; trying again", object=str(key), error=text, wait=round(wait, 3)
        )
        if status:  # else it would not take an Event, either
            self.recorder.record(key, "WriteFailed", text, warning=True)

    def _contested(self, action: Action, how: str) -> None:
        """Somebody keeps undoing what we do: say who."""
        key = action.key
        who = "; ".join(action.writers or suspects(self.observer.watched[key].last))
        what = "changed" if action.changes else "deleted"
        message = f"It is {what} again and again, {how}. By: {who}"
        self.counters.contested[key.kind] += 1
        log.warning(message, object=str(key))
        self.recorder.record(key, "Contested", message, warning=True)

    def _may_be_paused(self, observed: dict[Key, Object | None]) -> bool:
        """Whether the workload is still to be looked at; one that may not be read is not."""
        unknown = self._desired.keys() - observed.keys() - self.observer.troubles.keys()
        return any(key.kind in WORKLOADS for key in unknown)

    def _note_pause(self, observed: dict[Key, Object | None]) -> None:
        paused = is_paused(observed)
        if paused == self.paused:
            return
        self.paused = paused
        reason = "Paused" if paused else "Resumed"
        log.info(reason)
        for each in self.observer.watched.values():
            each.lost_at = 0.0  # a pause is no time to restore
        if self._may_write():
            workload = next((key for key in self._desired if key.kind in WORKLOADS), None)
            if workload is not None:
                text = "Nothing is changed while the annotation konnectivity/paused is there"
                message = text if paused else "The annotation konnectivity/paused is gone"
                self.recorder.record(workload, reason, message)

    def judge(self) -> None:
        """Bring the conditions up to date."""
        facts = Facts(
            desired=tuple(self._desired),
            observed=self.observer.observed(),
            silence=self.observer.silence,
            troubles=self.observer.troubles,
            failing=self.failing,
            paused=self.paused,
        )
        for each in self.conditions.update(conditions(facts), time.time()):
            log.v(2, "Condition", type=each.type, status=each.word, reason=each.reason)

    async def _resync(self) -> None:
        while self.options.resync > 0:
            await asyncio.sleep(lengthened(self.options.resync, 0.1))
            for key in await self.observer.resync():
                self.counters.missed[key.kind] += 1
                log.warning("A watch has missed a change", object=str(key))

    async def _probe(self) -> None:
        while self.options.probe > 0:
            observed = self.observer.observed()
            workload = next((each for key, each in observed.items() if key.kind in WORKLOADS), None)
            if workload is not None:
                found = await probe(self._client, workload)
                self.conditions.update([found], time.time())
            known = TYPE in self.conditions.current
            await asyncio.sleep(lengthened(self.options.probe if known else 1.0, 0.1))


def _version(item: Object) -> str:
    return str(item["metadata"].get("resourceVersion") or "")


def _message(action: Action, seconds: float | None) -> str:
    within = "" if seconds is None else f" {seconds:.3f} s after it was noticed"
    match action.reason:
        case Reason.INSTALL:
            return "Created"
        case Reason.ADOPT:
            return f"Adopted; changed {'; '.join(action.lines()) or 'nothing'}"
        case Reason.RESTORE:
            return f"Restored{within}"
        case Reason.DRIFT:
            fields, by = "; ".join(action.lines()), ", ".join(action.writers)
            return f"Reverted{within}: {fields}. Written by: {by}"
        case Reason.UPGRADE:
            return f"Changed to the new specification: {'; '.join(action.lines())}"
