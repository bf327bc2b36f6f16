"""Follows a rollout of the agents while one is under way, and stops one that does harm.

Kubernetes' own rolling update paces it: the next agent is replaced when the one before has been
on all servers, so that it is ready, and for `minReadySeconds`. In these seconds the API server is
asked for a log line of the new agent's pod. If there is none, and there is one of an old pod, the
rollout is stopped (`steering.py`), until the line can be had or something else is specified.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from konnectivity.kube.client import failures
from konnectivity.kube.collection import Collection, Object
from konnectivity.kube.resources import collection_path, rule
from konnectivity.kube.watch import Reflector, WatchOptions
from konnectivity.lifecycle.reconciling.conditions import Condition
from konnectivity.lifecycle.rollouts.availability import selector_of, trouble
from konnectivity.lifecycle.rollouts.generations import is_new, is_ready, mark
from konnectivity.lifecycle.rollouts.progress import Progress, progress
from konnectivity.lifecycle.rollouts.reachability import LogAnswer, log_of
from konnectivity.lifecycle.rollouts.said import lacking
from konnectivity.lifecycle.rollouts.steering import Steering
from konnectivity.observe import logs
from konnectivity.observe.histogram import RequestCounts

if TYPE_CHECKING:
    from lightkube import AsyncClient

log = logs.get(__name__)

TYPE: Final = "RolledOut"
TAIL: Final = 50  # lines of a log in which an agent says what it lacks


class Tell(Protocol):
    """Makes an Event of the workload."""

    def __call__(self, reason: str, text: str, *, warning: bool = False) -> None: ...


@dataclass(frozen=True, slots=True)
class RolloutLimits:
    """Times in seconds."""

    stuck_after: float = 0.0
    """Without one more new agent, a rollout is stopped after this; 0: never."""
    log_limit: float = 2.5
    """How long a log line of a new pod may take; there are two tries."""
    again: float = 15.0
    """How often a pod that had no log line is asked again."""
    look: float = 1.0
    """Between two looks, at least."""


LIMITS: Final = RolloutLimits()


class Rollout:
    """Follows the rollouts of one workload while `run` runs. `moved` is set when it has changed.

    `condition` is what it has found; `progress` the numbers, None before the first look.
    """

    def __init__(
        self,
        client: AsyncClient,
        steering: Steering,
        *,
        limits: RolloutLimits,
        probes: bool,
        tell: Tell,
        may_act: Callable[[], bool],
        changed: Callable[[], None],
    ) -> None:
        self.condition = Condition(TYPE, status=None, reason="NoStatus")
        self.progress: Progress | None = None
        self.moved = asyncio.Event()
        self._client = client
        self._steering = steering
        self._limits = limits
        self._probes = probes
        self._tell = tell
        self._may_act = may_act
        self._changed = changed
        self._proved: set[str] = set()
        """New pods, by uid, of which a log line was read."""
        self._suspect = ""
        """The pod for which the rollout was stopped."""
        self._asked_at = float("-inf")
        self._best: tuple[int, ...] = ()
        self._since = time.monotonic()
        self._told_stuck = False
        self._rolling = False
        self._chance = 0
        self._lacks: tuple[str, float, str] = ("", float("-inf"), "")
        self._marks: tuple[tuple[str, str], tuple[str, str]] = (("", ""), ("", ""))

    @property
    def stuck(self) -> bool:
        return self.condition.reason in ("Stuck", "Stopped")

    async def run(self, workload: Callable[[], Object | None]) -> None:
        """Follow until cancelled; `workload` is the one that is there now."""
        while True:
            self.moved.clear()
            item = workload()
            if item is not None and self._is_under_way(item):
                async with self._pods(item) as pods:
                    while (item := workload()) is not None and self._is_under_way(item):
                        self.moved.clear()
                        if pods.synced or pods.trouble:
                            await self._look(item, list(pods.objects.values()))
                        await self._pause(self._limits.look)
            self._over(item)
            await self.moved.wait()

    async def _pause(self, seconds: float) -> None:
        """Wait for a move, and that long at most; `seconds` / 4 at least."""
        await asyncio.sleep(seconds / 4)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.moved.wait()

    def _is_under_way(self, workload: Object) -> bool:
        """Whether its controller has work left; one that has said nothing yet is not asked."""
        self.progress = found = progress(workload)
        told = "observedGeneration" in (workload.get("status") or {})
        self._rolling = told and (found.replacing or (self._rolling and not found.done))
        return self._rolling or (told and bool(self._steering.stopped))

    def _over(self, workload: Object | None) -> None:
        self._proved.clear()
        self._best, self._suspect = (), ""
        found = self.progress
        if workload is not None and found is not None and found.seen and not found.replacing:
            text = f"{found.updated} agents are as specified, {found.available} are available"
            self.condition = Condition(TYPE, status=True, reason="Complete", message=text)
        else:
            self.condition = Condition(TYPE, status=None, reason="NoStatus")

    def _pods(self, workload: Object) -> Reflector:
        namespace = workload["metadata"].get("namespace") or ""
        return Reflector(
            Collection(self._client, collection_path("v1", "Pod", namespace)),
            selector_of(workload),
            what="pods of agents",
            remedy=rule(("list", "watch"), "v1", "Pod", namespace),
            changed=self.moved.set,
            lists=RequestCounts(()),
            watches=RequestCounts(()),
            options=WatchOptions(first_wait=0.1),
        )

    async def _look(self, workload: Object, pods: list[Object]) -> None:
        self._chance = self._steering.chances
        at = await self._mark(workload)
        pods.sort(key=lambda each: str(each["metadata"].get("creationTimestamp")))
        new = [each for each in pods if is_new(each, at)]
        old = [each for each in pods if not is_new(each, at)]
        if self._may_act():
            await self._prove(workload, new, old)
        found = self.progress or progress(workload)
        ready = sum(map(is_ready, new))
        generation = int(workload["metadata"].get("generation") or 0)
        self._note_moves(
            (self._steering.chances, generation, found.updated, found.available, ready)
        )
        if not found.seen:
            text = f"the controller of {workload['kind']}s has not looked at it yet"
        else:
            waits = await self._waits_for(workload, [*new, *old])
            text = f"{found.updated} of {found.wanted} new, {found.available} available{waits}"
        self.condition = self._judged(text)

    def _note_moves(self, counts: tuple[int, ...]) -> None:
        if counts != self._best:
            self._best, self._since, self._told_stuck = counts, time.monotonic(), False

    def _judged(self, text: str) -> Condition:
        if cause := self._steering.stopped:
            message = f"{cause}; {text}"
            return Condition(TYPE, status=False, reason="Stopped", message=message)
        waited = time.monotonic() - self._since
        if not self._limits.stuck_after or waited < self._limits.stuck_after:
            return Condition(TYPE, status=False, reason="Progressing", message=text)
        if self._may_act() and not self._told_stuck:
            self._told_stuck = True
            cause = f"no further agent within {self._limits.stuck_after:g} s: {text}"
            if self.progress is not None and self.progress.replacing:
                self._stop("RolloutStuck", cause)
            else:  # there is none to be replaced; the last new ones do not come up
                self._tell("RolloutStuck", cause, warning=True)
        return Condition(TYPE, status=False, reason="Stuck", message=text)

    async def _mark(self, workload: Object) -> tuple[str, str]:
        """What new pods bear; ReplicaSets are listed once for each version of a Deployment."""
        if workload["kind"] == "DaemonSet":
            return mark(workload, ())
        meta = workload["metadata"]
        status = (workload.get("status") or {}).get("observedGeneration")
        version = (str(meta.get("uid")), f"{meta.get('generation')}/{status}")
        if self._marks[0] != version or not self._marks[1][1]:
            path = collection_path("apps/v1", "ReplicaSet", meta.get("namespace") or "")
            try:
                sets, _ = await Collection(self._client, path).list(selector_of(workload))
            except failures() as error:
                log.v(2, "Cannot list ReplicaSets", error=str(error))
                sets = []
            self._marks = (version, mark(workload, sets))
        return self._marks[1]

    async def _waits_for(self, workload: Object, pods: list[Object]) -> str:
        """The pod that is waited for, on which node, and why."""
        for pod in pods:
            if is_ready(pod):
                continue
            why = trouble(pod) or "is not ready"
            if (pod.get("status") or {}).get("phase") == "Running" and (
                said := await self._lacking(workload, pod)
            ):
                why = f"is not ready: {said}"
            node = (pod.get("spec") or {}).get("nodeName")
            where = f" on node {node}" if node else ""
            return f"; waits for pod {pod['metadata']['name']}{where}: {why}"
        seconds = workload["spec"].get("minReadySeconds") or 0
        return f"; each must stay ready for {seconds:g} s" if seconds else ""

    async def _lacking(self, workload: Object, pod: Object) -> str:
        """What a running agent lacks, in its own words, if its log can be had."""
        name, now = pod["metadata"]["name"], time.monotonic()
        known, at, text = self._lacks
        if known == name and now - at < self._limits.again:
            return text
        answer = await self._log(workload, name, lines=TAIL)
        text = lacking(answer.text)
        self._lacks = (name, now, text)
        return text

    async def _prove(self, workload: Object, new: list[Object], old: list[Object]) -> None:
        """Ask for a log line of each new pod that is ready; stop, or go on again."""
        if self._steering.stopped:
            await self._prove_again(workload, new)
            return
        for pod in filter(is_ready, new if self._probes else ()):
            uid, name = pod["metadata"].get("uid") or "", pod["metadata"]["name"]
            if uid in self._proved:
                continue
            answer = await self._log(workload, name)
            if answer.failed:
                answer = await self._log(workload, name)
            if not answer.failed:
                self._proved.add(uid)
            elif await self._any_answers(workload, old):
                self._suspect = name
                text = f"no log line of the new pod {name}, while old pods have one"
                self._stop("RolloutStopped", f"{text}: {answer.error}")
                return

    async def _prove_again(self, workload: Object, new: list[Object]) -> None:
        ready = [each["metadata"]["name"] for each in new if is_ready(each)]
        now = time.monotonic()
        if not ready or now - self._asked_at < self._limits.again:
            return
        self._asked_at = now
        name = self._suspect if self._suspect in ready else ready[-1]
        answer = await self._log(workload, name, lines=TAIL)
        if answer.read and not lacking(answer.text):
            self._steering.stopped = ""
            self._since = now
            self._tell("RolloutResumed", f"Pod {name} is ready and its log can be read")
            self._changed()

    async def _any_answers(self, workload: Object, old: list[Object]) -> bool:
        """Whether a log line of an old pod can be had; the first that is ready tells."""
        for pod in filter(is_ready, old):
            return (await self._log(workload, pod["metadata"]["name"])).read
        return False

    def _stop(self, reason: str, cause: str) -> None:
        if self._chance != self._steering.chances:
            return  # something else is wanted meanwhile
        self._steering.stopped = cause
        self._asked_at = time.monotonic()
        self._tell(reason, cause, warning=True)
        self._changed()

    async def _log(self, workload: Object, name: str, *, lines: int = 1) -> LogAnswer:
        return await log_of(self._client, workload, name, lines=lines, limit=self._limits.log_limit)
