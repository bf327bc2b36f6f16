"""The loop that keeps one cluster as wanted: observe, plan, apply; again whenever something moves.

Level-triggered: each pass looks at all that is there, whatever woke it. Each object is written on
its own, so one that is refused or slow holds up no other. When all is as wanted nothing is sent.
What is wanted may change at any time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from konnectivity.kube.client import failures
from konnectivity.kube.collection import Object, status_of
from konnectivity.kube.watch import WatchOptions
from konnectivity.lifecycle.managing.metrics import ManagerCounters
from konnectivity.lifecycle.reconciling.apply import Applier, refusal
from konnectivity.lifecycle.reconciling.conditions import Condition, Conditions, Facts, conditions
from konnectivity.lifecycle.reconciling.events import Recorder
from konnectivity.lifecycle.reconciling.ledger import Ledger, version
from konnectivity.lifecycle.reconciling.leftovers import search
from konnectivity.lifecycle.reconciling.observe import WATCHING, Observer
from konnectivity.lifecycle.reconciling.pace import Pace
from konnectivity.lifecycle.reconciling.plan import (
    WORKLOADS,
    Action,
    Key,
    Reason,
    is_paused,
    is_premature,
    plan,
)
from konnectivity.lifecycle.reconciling.prune import is_replaced, may_go, removals
from konnectivity.lifecycle.reconciling.suspects import suspects
from konnectivity.lifecycle.reconciling.telling import event, message
from konnectivity.lifecycle.reconciling.wanted import Wanted
from konnectivity.lifecycle.rollouts.reachability import INTERVAL, keep_probing
from konnectivity.lifecycle.rollouts.rollout import LIMITS, Rollout, RolloutLimits
from konnectivity.lifecycle.rollouts.steering import Steering
from konnectivity.net.backoff import lengthened
from konnectivity.observe import logs

if TYPE_CHECKING:
    from lightkube import AsyncClient

log = logs.get(__name__)

HEALS: Final = frozenset([Reason.RESTORE, Reason.DRIFT])


@dataclass(frozen=True, slots=True)
class ReconcileOptions:
    """Times in seconds."""

    resync: float = 600.0
    """Each object is asked for again, should a watch have missed something; 0: never."""
    probe: float = INTERVAL
    """How often the path to the nodes is tried; 0: never."""
    scale_down_hold: float = 0.0
    """How long more agents than wanted are kept; 0: not at all."""
    rollout: RolloutLimits = LIMITS
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
        self.wanted = Wanted(desired, self.options.overrides)
        self.steering = Steering(self.options.scale_down_hold)
        self._client = client
        self.observer = Observer(
            client, self.wanted.keys, changed=self.wake, options=self.options.watch
        )
        self.rollout = Rollout(
            client,
            self.steering,
            limits=self.options.rollout,
            probes=self.options.probe > 0,
            tell=self._tell_of_workload,
            may_act=lambda: self._may_write() and not self.paused,
            changed=self.wake,
        )
        self._may_write = may_write
        self._applier = Applier(client)
        self._paces: defaultdict[Key, Pace] = defaultdict(Pace)
        self._busy: set[Key] = set()
        self._ledger = Ledger()
        self._steered: dict[Key, Object] = {}
        """The workload as it was last to be, with its pace."""
        self._searched = False
        """Whether leftovers of an earlier specification have been looked for."""
        self._woken = asyncio.Event()
        self._passed = asyncio.Event()

    def wake(self) -> None:
        """Look again."""
        self._woken.set()

    def want(self, desired: Sequence[Object], *, overrides: Sequence[str]) -> None:
        """Keep these objects from now on; what was wanted before and is ours is removed.

        Its order is that of `prune.py`: nothing goes before what follows it is there.
        """
        before = self.wanted.objects.get(self.wanted.workload) if self.wanted.workload else None
        for key in self.wanted.change(desired, overrides):
            self._ledger.begin_anew(key)
            self.failing.pop(key, None)
            self._steered.pop(key, None)
        after = self.wanted.objects.get(self.wanted.workload) if self.wanted.workload else None
        self.steering.changed(before, after)
        self.wake()

    @property
    def applied(self) -> bool:
        """Whether all objects are known to be as wanted."""
        observed = self.observer.observed()
        return all(self._is_fine(key, observed) for key in self.wanted.objects)

    @property
    def converged(self) -> bool:
        """Whether they are, and nothing is there that is not wanted."""
        return self.applied and self._searched and not self.wanted.retired

    def _is_fine(self, key: Key, observed: Mapping[Key, Object | None]) -> bool:
        return self._ledger.is_fine(key, observed.get(key))

    @property
    def stuck(self) -> dict[Key, str]:
        """Why objects can be neither seen nor written, by object."""
        waiting = dict.fromkeys(self.wanted.retired, "it goes when all new agents are there")
        return {**waiting, **self.observer.troubles, **self.failing}

    async def until_applied(self) -> None:
        """Wait until all objects are as wanted, or nothing can be done: see `paused`."""
        await self._until(lambda: self.applied or self.paused)

    async def until_settled(self) -> None:
        """Wait until all is as wanted, or nothing can be done because the workload is paused."""
        await self._until(lambda: self.converged or self.paused)

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            self._passed.clear()
            await self._passed.wait()

    async def run(self) -> None:
        """Reconcile until cancelled."""
        async with self.observer, self.recorder, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._resync())
            tasks.create_task(self._search())
            tasks.create_task(self.rollout.run(self._live_workload))
            if self.options.probe > 0:
                tasks.create_task(
                    keep_probing(
                        self._client,
                        self._live_workload,
                        tell=self._note_condition,
                        interval=self.options.probe,
                    )
                )
            while True:
                self._woken.clear()
                await self.observer.follow(self.wanted.keys)
                wait = self._pass(tasks)
                self._passed.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._woken.wait()

    def _pass(self, tasks: asyncio.TaskGroup) -> float | None:
        """Begin what is to be done now; return the seconds until there may be more, if any."""
        observed = self.observer.observed()
        self._ledger.saw(observed)
        self._note_pause(observed)
        self.judge()
        self.rollout.moved.set()
        if self.paused or not self._may_write() or self._may_be_paused(observed):
            return None
        now, due = time.monotonic(), []
        actions = [*self._planned(observed), *self._removals(observed)]
        if self.steering.due is not None and self.steering.due > now:
            due.append(self.steering.due - now)
        for action in actions:
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
            key: self._with_pace(key, item, observed)
            for key, item in self.wanted.objects.items()
            if key not in self._busy
        }
        open_ = {key: item for key, item in open_.items() if not self._is_fine(key, observed)}
        actions = plan(
            list(open_.values()),
            observed,
            overrides=self.wanted.overrides,
            known=self._ledger.known(added=self.wanted.added),
        )
        acting = {action.key for action in actions}
        for key in open_.keys() - acting:
            live = observed.get(key)
            if live is not None and not live["metadata"].get("deletionTimestamp"):
                self._ledger.found_fine(key, live)
                self._paces[key].settled()
                self.failing.pop(key, None)
        spaces = self.wanted.spaces(observed, self.observer.troubles)
        return [each for each in actions if not is_premature(each.key, spaces)]

    def _with_pace(self, key: Key, item: Object, observed: Mapping[Key, Object | None]) -> Object:
        """The workload as it is to be now; all else as it is wanted."""
        if key.kind not in WORKLOADS or key not in observed:
            return item
        held = self.steering.held
        body = self.steering.steer(
            item, observed[key], time.monotonic(), overrides=self.wanted.overrides
        )
        if body != self._steered.get(key, item):
            self._ledger.other_pace(key)
        self._steered[key] = body
        if self.steering.held and self.steering.held != held:
            self._tell_of_workload("ScaleDownHeld", self.steering.held)
        return body

    def _removals(self, observed: Mapping[Key, Object | None]) -> list[Action]:
        """The actions for objects that are no longer wanted; those that are gone are let go."""
        retired, workload = self.wanted.retired, self.wanted.workload
        for key in [each for each in retired if each in observed and each not in self._busy]:
            live = observed[key]
            if live is None or not may_go(key, live):
                self._forget(key)
        replaced = workload is None or (
            self._is_fine(workload, observed) and is_replaced(observed.get(workload))
        )
        actions = removals(retired, observed, replaced=replaced)
        return [each for each in actions if each.key not in self._busy]

    def _forget(self, key: Key) -> None:
        self.wanted.retired.discard(key)
        self._paces.pop(key, None)
        self.wake()
        self._ledger.forget(key)
        self.failing.pop(key, None)

    async def _perform(self, action: Action) -> None:
        key, wanted = action.key, self.wanted.objects.get(action.key)
        try:
            item = await self._applier.perform(action)
        except failures() as error:
            self._failed(action, error)
        except Exception as error:
            log.exception("Cannot write an object", object=str(key))
            self._failed(action, error)
        else:
            if self.wanted.objects.get(key) is wanted:
                self._ledger.settle(action, item)
            self._written(action, item)
        finally:
            self._busy.discard(key)
            self.wake()

    def _written(self, action: Action, item: Object) -> None:
        key, now = action.key, time.monotonic()
        watched, pace = self.observer.watched[key], self._paces[key]
        since = watched.lost_at if action.reason is Reason.RESTORE else pace.noticed
        if action.reason is not Reason.REMOVE:
            watched.wrote(item)
        self.failing.pop(key, None)
        changed = action.live is None or version(item) != version(action.live)
        if not changed and action.reason is not Reason.REMOVE:
            pace.settled()
            return
        pace.mended(now)
        if action.reason is Reason.INSTALL:
            self._ledger.installed.add(key)
        seconds = now - since if since and action.reason in HEALS else None
        self.counters.healed(key.kind, action.reason.value, seconds)
        reason, text = event(action), message(action, seconds)
        log.info(text, object=str(key), event=reason)
        self.recorder.record(key, reason, text, uid=item["metadata"].get("uid") or "")

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
        text = f"It is {what} again and again, {how}. By: {who}"
        self.counters.contested[key.kind] += 1
        log.warning(text, object=str(key))
        self.recorder.record(key, "Contested", text, warning=True)

    def _may_be_paused(self, observed: dict[Key, Object | None]) -> bool:
        """Whether the workload is still to be looked at; one that may not be read is not."""
        unknown = self.wanted.keys - observed.keys() - self.observer.troubles.keys()
        return any(key.kind in WORKLOADS for key in unknown)

    def _note_pause(self, observed: dict[Key, Object | None]) -> None:
        paused = is_paused(observed)
        if paused == self.paused:
            return
        self.paused = paused
        reason = "Paused" if paused else "Resumed"
        for each in self.observer.watched.values():
            each.lost_at = 0.0  # a pause is no time to restore
        if self._may_write():
            text = "Nothing is changed while the annotation konnectivity/paused is there"
            gone = "The annotation konnectivity/paused is gone"
            self._tell_of_workload(reason, text if paused else gone)

    def _tell_of_workload(self, reason: str, text: str, *, warning: bool = False) -> None:
        """An Event of the agents' workload."""
        if self.wanted.workload is not None:
            self.recorder.record(self.wanted.workload, reason, text, warning=warning)
            log.info(text, object=str(self.wanted.workload), event=reason)

    def judge(self) -> None:
        """Bring the conditions up to date."""
        facts = Facts(
            desired=tuple(self.wanted.objects),
            observed=self.observer.observed(),
            silence=self.observer.silence,
            troubles=self.observer.troubles,
            failing=self.failing,
            paused=self.paused,
            rollout=self.rollout.condition,
        )
        for each in self.conditions.update(conditions(facts), time.time()):
            log.v(2, "Condition", type=each.type, status=each.word, reason=each.reason)

    async def _resync(self) -> None:
        wait = self.options.resync * random.random()  # noqa: S311 - many clusters, not in step
        while self.options.resync > 0:
            await asyncio.sleep(wait)
            wait = lengthened(self.options.resync, 0.1)
            for key in await self.observer.resync():
                self.counters.missed[key.kind] += 1
                log.warning("A watch has missed a change", object=str(key))

    async def _search(self) -> None:
        """Look once for what an earlier specification has left."""
        found = await search(
            self._client, self.wanted.objects, ready=lambda: self._until(self._may_write)
        )
        self.wanted.retire(found)
        self._searched = True
        self.wake()

    def _note_condition(self, found: Condition) -> None:
        self.conditions.update([found], time.time())

    def _live_workload(self) -> Object | None:
        workload = self.wanted.workload
        return self.observer.observed().get(workload) if workload is not None else None
