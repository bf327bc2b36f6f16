"""What is there of the objects that a manager owns: one filtered watch for each of them.

A write of ours counts as seen at once, from the API's answer, until the watch has caught up: so
nothing is written twice because a watch is slow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Set
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from konnectivity.kube.client import failures
from konnectivity.kube.collection import Collection, Object, status_of
from konnectivity.kube.resources import collection_path, rule
from konnectivity.kube.watch import Reflector, WatchOptions
from konnectivity.lifecycle.reconciling.plan import Key
from konnectivity.observe.histogram import RequestCounts

if TYPE_CHECKING:
    from lightkube import AsyncClient

VERBS: Final = ("get", "list", "watch")
WATCHING: Final = WatchOptions(first_wait=0.05, length=1200.0, silence=180.0)
"""A watch that ended is begun anew almost at once; failures wait longer and longer all the same.

An API server sends a bookmark each minute, so one that is silent for longer may be dead; where
nothing happens, nothing but that is to cost anything.
"""
REQUEST_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Watched:
    """One object: as the API last told, or as we last wrote it."""

    def __init__(
        self,
        client: AsyncClient,
        key: Key,
        *,
        changed: Callable[[], None],
        lists: RequestCounts,
        watches: RequestCounts,
        options: WatchOptions = WATCHING,
    ) -> None:
        self.key = key
        self.lost_at = 0.0
        """When its deletion was told, by the monotonic clock; 0 while it is there."""
        self.last: Object | None = None
        """As it was when it was last there."""
        path = collection_path(key.api_version, key.kind, key.namespace)
        self.collection = Collection(client, path, name=key.name)
        self.reflector = Reflector(
            self.collection,
            "",
            what=str(key),
            remedy=rule(VERBS, key.api_version, key.kind, key.namespace),
            changed=self._changed,
            lists=lists,
            watches=watches,
            options=options,
        )
        self._tell = changed
        self._written: Object | None = None
        self._was_there = False

    @property
    def live(self) -> Object | None:
        """The object, or None if there is none. Ask only when there has been a list."""
        if self._written is not None:
            if not _has_reached(self.reflector.version, self._written):
                return self._written
            self._written = None
        return self.reflector.objects.get(self.key.name)

    def wrote(self, item: Object) -> None:
        """Note what the API answered to a write of ours."""
        self._written = item
        self._was_there = True
        self.lost_at = 0.0

    def corrected(self, item: Object | None) -> None:
        """Note that the API told otherwise than the watch."""
        self._written = None
        if item is None:
            self.reflector.objects.pop(self.key.name, None)
        else:
            self.reflector.objects[self.key.name] = item
        self._changed()

    def _changed(self) -> None:
        live = self.live
        there = live is not None
        self.last = live or self.last
        if self._was_there and not there:
            self.lost_at = time.monotonic()
        self._was_there = there
        self._tell()


class Observer:
    """All objects of one cluster. `async with observer:` follows them until the block ends.

    `changed` is called after each change.
    """

    def __init__(
        self,
        client: AsyncClient,
        keys: Iterable[Key],
        *,
        changed: Callable[[], None],
        options: WatchOptions = WATCHING,
    ) -> None:
        self.lists = RequestCounts(REQUEST_BOUNDS)
        self.watches = RequestCounts(REQUEST_BOUNDS)
        self._new = partial(
            Watched,
            client,
            changed=changed,
            lists=self.lists,
            watches=self.watches,
            options=options,
        )
        self.watched = {key: self._new(key) for key in keys}

    async def __aenter__(self) -> Self:
        for each in self.watched.values():
            await each.reflector.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in self.watched.values():
            await each.reflector.__aexit__()

    async def follow(self, keys: Set[Key]) -> None:
        """Follow these objects from now on, and no others."""
        for key in keys - self.watched.keys():
            self.watched[key] = each = self._new(key)
            await each.reflector.__aenter__()
        for key in self.watched.keys() - keys:
            await self.watched.pop(key).reflector.__aexit__()

    def observed(self) -> dict[Key, Object | None]:
        """What is known: objects, and None for those that are known not to be there."""
        return {key: each.live for key, each in self.watched.items() if each.reflector.synced}

    @property
    def troubles(self) -> dict[Key, str]:
        """Why objects cannot be followed."""
        return {key: text for key, each in self.watched.items() if (text := each.reflector.trouble)}

    @property
    def silence(self) -> str:
        """Why the API does not answer at all, or empty: it answers, be it with refusals."""
        silent = [
            each.reflector.trouble
            for each in self.watched.values()
            if each.reflector.trouble and not each.reflector.refused
        ]
        return silent[0] if silent and len(silent) == len(self.watched) else ""

    def lags(self) -> dict[Key, float]:
        """Seconds since each copy was last known to be right; about 0 while its watch is up."""
        now = time.time()
        return {
            key: max(0.0, now - each.reflector.as_of)
            for key, each in self.watched.items()
            if each.reflector.synced
        }

    async def resync(self) -> list[Key]:
        """Ask for each object again; return those of which the watch had told otherwise.

        A watch may just be late, so it is given a second.
        """
        odd = []
        for key, each in list(self.watched.items()):
            if not each.reflector.synced:
                continue
            try:
                item = await _current(each)
                if _version(item) != _version(each.live):
                    await asyncio.sleep(1.0)
                    item = await _current(each)
            except failures():
                continue  # the watch meets the same, and says so
            if _version(item) != _version(each.live):
                odd.append(key)
                each.corrected(item)
        return odd


async def _current(watched: Watched) -> Object | None:
    try:
        return await watched.collection.get(watched.key.name)
    except failures() as error:
        if (status := status_of(error)) and status[0] == 404:
            return None
        raise


def _version(item: Object | None) -> str:
    return "" if item is None else str(item["metadata"].get("resourceVersion") or "")


def _has_reached(version: str, item: Object) -> bool:
    """Whether a watch that is up to `version` has told of `item`.

    Versions are compared as numbers, as the API allows within one resource; one that is no
    number cannot be judged, and the watch is believed.

    Source: KEP-5504, comparable resource versions.
    """
    wanted = _version(item)
    return not (version.isdecimal() and wanted.isdecimal()) or int(version) >= int(wanted)
