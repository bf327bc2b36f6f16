"""What happens to objects, as a watch of an onlooker tells it, and how long it took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple, Self

from tests.peers.streams import PATIENCE

from konnectivity.kube.collection import Collection, Object
from konnectivity.kube.resources import collection_path
from konnectivity.lifecycle.reconciling.plan import Key

if TYPE_CHECKING:
    from lightkube import AsyncClient

BESIDE = frozenset(["apiVersion", "kind", "metadata", "status", "secrets", "imagePullSecrets"])
"""What controllers write, or nobody."""


class Change(NamedTuple):
    at: float
    kind: str
    """`ADDED`, `MODIFIED` or `DELETED`."""
    item: Object


def essence(item: Object) -> Object:
    """What somebody wants of an object, and others do not touch."""
    found = {name: value for name, value in item.items() if name not in BESIDE}
    return {**found, "labels": item["metadata"].get("labels") or {}}


class Timeline:
    """Follows objects that are there. `async with` it."""

    def __init__(self, client: AsyncClient, keys: Iterable[Key]) -> None:
        self.last: dict[Key, Object] = {}
        self._client = client
        self._changes: dict[Key, list[Change]] = {key: [] for key in keys}
        self._news = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for key in self._changes:
            begun = asyncio.Event()
            self._tasks.append(asyncio.create_task(self._follow(key, begun)))
            await begun.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def restored(self, key: Key, damage: Callable[[], Awaitable[None]]) -> float:
        """Seconds from when the onlooker saw the damage to when it saw all as before."""
        before, begin = essence(self.last[key]), len(self._changes[key])
        await damage()
        bad = await self._first(key, begin, lambda each: _differs(each, before))
        good = await self._first(key, bad + 1, lambda each: not _differs(each, before))
        changes = self._changes[key]
        return changes[good].at - changes[bad].at

    async def _first(self, key: Key, begin: int, fits: Callable[[Change], bool]) -> int:
        changes, place = self._changes[key], begin
        async with asyncio.timeout(PATIENCE), self._news:
            while True:
                while place < len(changes):
                    if fits(changes[place]):
                        return place
                    place += 1
                await self._news.wait()

    async def _follow(self, key: Key, begun: asyncio.Event) -> None:
        path = collection_path(key.api_version, key.kind, key.namespace)
        collection = Collection(self._client, path, name=key.name)
        items, version = await collection.list()
        self.last[key] = items[0]
        async for kind, item in collection.watch("", version, limit=3600):
            if not kind:
                begun.set()
            if kind in ("ADDED", "MODIFIED", "DELETED"):
                self.last[key] = item
                async with self._news:
                    self._changes[key].append(Change(time.monotonic(), kind, item))
                    self._news.notify_all()


def _differs(change: Change, wanted: Object) -> bool:
    return change.kind == "DELETED" or essence(change.item) != wanted
