"""Clusters that come, change and go while the manager runs, each kept on its own.

Each has a client, a rate limit and back-offs of its own, so one that is broken, slow or flapping
costs the others nothing. What they share is bounded: how many there are, how many start at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Final

from konnectivity.lifecycle.managing.cluster import Cluster
from konnectivity.lifecycle.managing.keeper import GRACE, Connect, Keeper, Make
from konnectivity.lifecycle.managing.registration import Registration
from konnectivity.lifecycle.specification.spec import AgentSpec
from konnectivity.observe import logs

log = logs.get(__name__)

CONCURRENCY: Final = 32
MOST_CLUSTERS: Final = 10_000
"""The next one is refused, with a line in the log."""


class Fleet:
    """All clusters of one manager. `async with fleet:` keeps them until the block ends.

    All want `base`, but for what each wants of its own. `concurrency` clusters start at once;
    `grace` is how long, in seconds, what is malformed may just be half written.
    """

    def __init__(
        self,
        base: AgentSpec,
        *,
        connect: Connect,
        make: Make,
        concurrency: int = CONCURRENCY,
        most: int = MOST_CLUSTERS,
        grace: float = GRACE,
    ) -> None:
        self.base = base
        self.keepers: dict[str, Keeper] = {}
        """By name."""
        self._connect = connect
        self._make = make
        self._starts = asyncio.Semaphore(concurrency)
        self._most = most
        self._grace = grace
        self._full = False
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Fleet:
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = {*self._tasks.values(), *self._leaving}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def clusters(self) -> Iterator[Cluster]:
        """Those that have been reached for."""
        return (each.cluster for each in self.keepers.values() if each.cluster is not None)

    def register(self, registration: Registration) -> None:
        """A cluster is there, or is registered with other content than before."""
        name = registration.name
        if (known := self.keepers.get(name)) is not None:
            if registration != known.registration:
                known.change(registration, self.base)
            return
        if len(self.keepers) >= self._most:
            if not self._full:
                log.error("There are too many clusters", most=self._most, refused=name)
            self._full = True
            return
        self.keepers[name] = keeper = Keeper(
            registration,
            self.base,
            connect=self._connect,
            make=self._make,
            starts=self._starts,
            grace=self._grace,
        )
        if name:
            log.info("A cluster is registered", cluster=name)
        self._tasks[name] = asyncio.create_task(keeper.run())

    def dismiss(self, name: str) -> None:
        """A cluster is not ours any more; nothing is deleted in it."""
        if self.keepers.pop(name, None) is None:
            return
        self._full = False
        log.info("A cluster is let go; what is installed in it stays", cluster=name)
        task = self._tasks.pop(name)
        task.cancel()
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def replace(self, registrations: Mapping[str, Registration]) -> None:
        """These are all there are."""
        for name in self.keepers.keys() - registrations.keys():
            self.dismiss(name)
        for each in registrations.values():
            self.register(each)

    def specify(self, base: AgentSpec) -> None:
        """All want something else from now on, but for what each wants of its own."""
        self.base = base
        for each in self.keepers.values():
            each.change(each.registration, base)

    def wake(self) -> None:
        """Look again in all of them."""
        for each in self.clusters():
            each.wake()
