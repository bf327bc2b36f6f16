"""Writes the agent's heartbeat to the Kubernetes API (`--heartbeat-interval`), for diagnosis.

As an ordinary client of the API, never through a tunnel: it is there while no server is. What
cannot be written is dropped, the next one comes soon. All times follow from the interval, so that
a large cluster asks less of its API with one flag.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Self

from konnectivity.agent.options import AgentOptions
from konnectivity.agent.vitals import Vitals
from konnectivity.kube.client import connect, describe, failures
from konnectivity.kube.collection import LEASES, Collection, Object
from konnectivity.kube.heartbeat import SELECTOR, lease_name, lease_of, renewed_at
from konnectivity.kube.leases import access_rule, name_of
from konnectivity.observe import logs

if TYPE_CHECKING:
    from lightkube import AsyncClient

log = logs.get(__name__)

FIELD_MANAGER: Final = "konnectivity-agent"
VERBS: Final = ("create", "patch", "list", "delete")
JITTER: Final = 0.2
"""Part of the interval by which a heartbeat may come early or late."""
SOON: Final = 1 / 6
"""Part of the interval within which a change is told, and at least between two heartbeats."""
ABANDONED: Final = 7200.0
"""Seconds after which a heartbeat is taken away: its agent had no time to do so itself."""
GOODBYE: Final = 2.0
"""Seconds for taking the own one away when the agent stops."""


class HeartbeatWriter:
    """Writes one lease. `async with writer:` keeps it fresh until the block ends.

    The lease is deleted and the client closed then. `environ` tells of the pod we run in.
    """

    def __init__(
        self,
        client: AsyncClient,
        vitals: Vitals,
        *,
        namespace: str,
        interval: float,
        environ: Mapping[str, str],
    ) -> None:
        self._client = client
        self._vitals = vitals
        self._leases = Collection(client, LEASES.format(namespace=namespace))
        self._interval = interval
        self._name = lease_name(vitals.agent_id)
        self._owner = _owner(environ) if environ.get("POD_NAMESPACE") == namespace else None
        self._remedy = access_rule(VERBS, namespace)
        self._news = asyncio.Event()
        self._sweep_at = time.monotonic() + interval * random.uniform(1, 60)  # noqa: S311
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        with contextlib.suppress(TimeoutError, *failures()):
            async with asyncio.timeout(GOODBYE):
                await self._leases.delete(self._name)
        await self._client.close()

    def changed(self) -> None:
        """Something is other than the last heartbeat said: the next one comes soon."""
        self._news.set()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval * SOON * random.random())  # noqa: S311 - jitter
            self._news.clear()
            await self._write()
            await self._sweep()
            await asyncio.sleep(self._interval * SOON)
            rest = 1 - SOON * 1.5 + random.uniform(-JITTER, JITTER)  # noqa: S311 - jitter
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval * rest):
                    await self._news.wait()

    async def _write(self) -> None:
        lease = lease_of(
            self._vitals.take(), name=self._name, interval=self._interval, owner=self._owner
        )
        try:
            await self._leases.apply(lease, manager=FIELD_MANAGER, force=True)
        except failures() as error:
            text = describe(error)
            log.summarised(text, "Cannot write the heartbeat", error=text, remedy=self._remedy)

    async def _sweep(self) -> None:
        """Now and then take abandoned heartbeats away.

        Each agent waits longer the more there are, so that all of them together list about once
        in an interval.
        """
        if time.monotonic() < self._sweep_at:
            return
        self._sweep_at = time.monotonic() + self._interval * 60
        with contextlib.suppress(*failures()):
            mean = self._interval * max(await sweep(self._leases), 60)
            self._sweep_at = time.monotonic() + random.expovariate(1 / mean)


async def open_writer(
    options: AgentOptions, vitals: Vitals, *, environ: Mapping[str, str]
) -> HeartbeatWriter:
    """A writer with a client of its own; requests begin when it is entered.

    Raises:
        ConfigError: the flags give no way to the API.
    """
    client = await asyncio.to_thread(connect, options.kubeconfig)  # in a thread: imports, files
    return HeartbeatWriter(
        client,
        vitals,
        namespace=options.heartbeat_namespace,
        interval=options.heartbeat_interval,
        environ=environ,
    )


async def sweep(leases: Collection) -> int:
    """Delete abandoned heartbeats among `leases`; how many heartbeats there were.

    One that is written meanwhile stays. Raises one of `client.failures()`.
    """
    found, _ = await leases.list(SELECTOR, version="0")
    for lease in found:
        if _is_abandoned(lease):
            version = str(lease["metadata"].get("resourceVersion") or "")
            await leases.delete(name_of(lease), version=version)
    return len(found)


def _owner(environ: Mapping[str, str]) -> Mapping[str, str] | None:
    """The pod, so that the lease goes with it; only in its own namespace, else it goes at once."""
    name, uid = environ.get("POD_NAME"), environ.get("POD_UID")
    if not name or not uid:
        return None
    return {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}


def _is_abandoned(lease: Object) -> bool:
    renewed = renewed_at(lease)
    return renewed is None or time.time() - renewed > ABANDONED
