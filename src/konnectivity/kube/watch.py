"""A copy of a collection that follows the API: list, watch, and list again when that is needed.

It never gives up and never blocks anybody: what goes wrong is logged when it begins, with the
remedy where rights are missing, and tried again with growing waits. The labels are sent to the
API, so nothing else is transferred (W60).

Source: client-go's reflector (`tools/cache/reflector.go`), for the sequence of requests.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Self

from konnectivity.kube.client import describe, failures
from konnectivity.kube.collection import Collection, Object, is_named, status_of, timed
from konnectivity.net.backoff import Backoff
from konnectivity.observe import logs
from konnectivity.observe.histogram import RequestCounts

log = logs.get(__name__)

GONE: Final = 410
FORBIDDEN: Final = 403


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """Times in seconds."""

    first_wait: float = 0.8
    longest_wait: float = 30.0
    """After failures, as client-go waits."""
    length: float = 300.0
    """Of one watch, up to twice that: the API server ends it, another follows."""
    silence: float = 60.0
    """Without any event a watch is given up and begun anew: it may be dead."""


class Reflector:
    """The copy. `async with reflector:` keeps it up to date until the block ends.

    `what` and `remedy` go into log lines; the remedy follows a 403. `changed` is called after
    each change and each new trouble. `lists` and `watches` count requests by the status of their
    answers.
    """

    def __init__(
        self,
        collection: Collection,
        selector: str,
        *,
        what: str,
        remedy: str,
        changed: Callable[[], None],
        lists: RequestCounts,
        watches: RequestCounts,
        options: WatchOptions | None = None,
    ) -> None:
        self.objects: dict[str, Object] = {}
        """By name."""
        self.synced = False
        """Whether there has been a list."""
        self._collection = collection
        self._selector = selector
        self._what = what
        self._remedy = remedy
        self._changed = changed
        self._lists = lists
        self._watches = watches
        self._options = options or WatchOptions()
        self._backoff = Backoff(
            self._options.first_wait, self._options.longest_wait, factor=2.0, jitter=1.0
        )
        self._version = ""
        self._watching = False
        self._heard = 0.0
        self._trouble = ""
        self._status = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    @property
    def as_of(self) -> float:
        """When the copy was last known to be right, Unix seconds: now, while a watch is up."""
        return time.time() if self._watching else self._heard

    @property
    def version(self) -> str:
        """The resourceVersion that the copy is up to; empty before the first list."""
        return self._version

    @property
    def trouble(self) -> str:
        """Why the API cannot be followed now, with the remedy if known; empty if it can."""
        forbidden = self._trouble and self._status == FORBIDDEN
        return f"{self._trouble}; {self._remedy}" if forbidden else self._trouble

    @property
    def refused(self) -> bool:
        """Whether `trouble` is the API's own answer, and not its silence."""
        return bool(self._trouble and self._status)

    async def _follow(self) -> None:
        wrong = failures()
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except wrong as error:
                status = status_of(error)
                if status and status[0] == GONE:
                    self._version = ""
                else:
                    self._complain(error)
            await asyncio.sleep(self._backoff.next())

    async def _list(self) -> None:
        items, self._version = await timed(
            self._collection.list(self._selector, version="0"), self._lists
        )
        self.objects = {item["metadata"]["name"]: item for item in items}
        self.synced = True
        self._note()
        self._changed()

    async def _watch(self) -> None:
        """Follow changes until the watch ends, or is silent for too long."""
        length = self._options.length * (1 + random.random())  # noqa: S311 - jitter
        watch = self._collection.watch(self._selector, self._version, limit=length)
        async with aclosing(watch) as events:
            await timed(anext(events), self._watches)
            self._watching = True
            began = time.monotonic()
            try:
                while True:
                    self._note()
                    async with asyncio.timeout(self._options.silence):
                        kind, item = await anext(events)
                    self._backoff.reset()
                    self._take(kind, item)
            except StopAsyncIteration:
                self._heard = time.time()
            except TimeoutError:
                log.v(4, f"A watch of {self._what} was silent; beginning another")
            finally:
                self._watching = False
                if time.monotonic() - began > self._options.longest_wait:
                    self._backoff.reset()  # it was a good one, even if nothing happened

    def _take(self, kind: str, item: Object) -> None:
        meta = item.get("metadata")
        if isinstance(meta, dict):
            self._version = str(meta.get("resourceVersion") or self._version)
        if not is_named(item):  # a bookmark has no name
            return
        name = item["metadata"]["name"]
        if kind in ("ADDED", "MODIFIED"):
            self.objects[name] = item
        elif kind == "DELETED":
            self.objects.pop(name, None)
        self._changed()

    def _note(self) -> None:
        """The API has just spoken."""
        self._heard = time.time()
        if self._trouble:
            self._trouble = ""
            log.info(f"Following {self._what} again")
            self._changed()

    def _complain(self, error: Exception) -> None:
        """One line for each new trouble, however often it is met."""
        text = describe(error)
        if text == self._trouble:
            return
        self._trouble = text
        status = status_of(error)
        self._status = status[0] if status else 0
        hint = {"remedy": self._remedy} if self._status == FORBIDDEN else {}
        log.warning(f"Cannot follow {self._what}; trying again", error=text, **hint)
        self._changed()
