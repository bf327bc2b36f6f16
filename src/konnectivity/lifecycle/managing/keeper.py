"""One cluster's place in a fleet: it is started, changed, begun anew after a fault, and let go.

What a cluster is made of may be malformed, at first or later: that is said, and what was there
before goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from konnectivity.errors import ConfigError
from konnectivity.lifecycle.managing.cluster import Cluster
from konnectivity.lifecycle.managing.registration import Registration
from konnectivity.lifecycle.specification.spec import AgentSpec
from konnectivity.net.backoff import Backoff
from konnectivity.observe import logs

if TYPE_CHECKING:
    from lightkube import AsyncClient

log = logs.get(__name__)

GRACE: Final = 2.5
"""Seconds for which what is malformed may just be half written."""
START_LIMIT: Final = 2.0
"""Seconds for which a cluster that starts holds up those that wait for their turn."""
LOOK: Final = 0.05

Connect = Callable[[Registration], "AsyncClient"]
"""Makes a client; raises ConfigError. Called in a thread."""
Make = Callable[[str, "AsyncClient", AgentSpec], Cluster]


class Keeper:
    """Keeps the cluster of a registration while `run` runs. `starts` bounds how many start at once.

    `trouble` says why what is registered cannot be used; empty if it is.
    """

    def __init__(
        self,
        registration: Registration,
        base: AgentSpec,
        *,
        connect: Connect,
        make: Make,
        starts: asyncio.Semaphore,
        grace: float = GRACE,
    ) -> None:
        self.registration = registration
        self.base = base
        self.cluster: Cluster | None = None
        self.trouble = ""
        self._connect = connect
        self._make = make
        self._starts = starts
        self._grace = grace
        self._changed = asyncio.Event()
        self._kubeconfig: bytes | None = None
        self._backoff = Backoff(1.0, 60.0)
        self._task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self.registration.name

    def change(self, registration: Registration, base: AgentSpec) -> None:
        """Something else is registered, or wanted of all, from now on."""
        self.registration, self.base = registration, base
        self._changed.set()

    async def run(self) -> None:
        """Keep the cluster until cancelled."""
        try:
            while True:
                self._changed.clear()
                try:
                    await self._follow()
                except ConfigError as error:
                    await self._malformed(error)
                except Exception:
                    log.exception("A fault of ours; trying again", cluster=self.name)
                    await self._again()
                else:
                    await self._wait()
        finally:
            await self._end()

    async def _follow(self) -> None:
        """Make of the registration what runs.

        Raises:
            ConfigError: it cannot be used; what runs goes on.
        """
        now = self.registration
        spec = now.specification(self.base)
        if self.cluster is not None and now.kubeconfig == self._kubeconfig:
            self.cluster.specify(spec)
        else:
            async with self._starts:
                client = await asyncio.to_thread(self._connect, now)
                again = self.cluster is not None
                await self._end()
                self.cluster = self._make(self.name, client, spec)
                self._kubeconfig = now.kubeconfig
                self._task = asyncio.create_task(self.cluster.run())
                if again:
                    log.info("Reaching a cluster anew, with another kubeconfig", cluster=self.name)
                await self._acquaint(self.cluster)
        if self.trouble:
            log.info("The registration of a cluster can be used", cluster=self.name)
            self.trouble = ""

    async def _acquaint(self, cluster: Cluster) -> None:
        """Wait until the cluster has answered; not long, for others wait too."""
        with suppress(TimeoutError):
            async with asyncio.timeout(START_LIMIT):
                while not cluster.acquainted:  # noqa: ASYNC110 - its watches tell the reconciler
                    await asyncio.sleep(LOOK)

    async def _malformed(self, error: ConfigError) -> None:
        text = str(error)
        if text != self.trouble:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._grace):
                    await self._changed.wait()
                    return
            self.trouble = text
            goes_on = {"until_then": "as before"} if self.cluster else {}
            log.warning(
                "The registration of a cluster cannot be used",
                cluster=self.name,
                error=text,
                **goes_on,
            )
        await self._wait()

    async def _wait(self) -> None:
        """Until something has changed; a cluster that ended by a fault of ours is made anew."""
        waiting = asyncio.ensure_future(self._changed.wait())
        tasks = {waiting} | ({self._task} if self._task else set())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        task = self._task
        if task is None or not task.done():
            return
        self._task = self.cluster = self._kubeconfig = None
        try:
            task.result()
        except Exception:
            log.exception("A fault of ours; beginning the cluster anew", cluster=self.name)
        await self._again()

    async def _again(self) -> None:
        """Wait longer each time; something else that is registered may not have that fault."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._backoff.next()):
                await self._changed.wait()

    async def _end(self) -> None:
        task, self._task = self._task, None
        self.cluster = None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
