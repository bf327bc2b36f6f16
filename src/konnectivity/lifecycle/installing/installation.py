"""Installs or upgrades agents once, for somebody who waits for it: apply, keep, follow, clear up.

The loop of the manager does the work, so everything is written as a manager would write it; here
stands what comes before it is over.
"""

from __future__ import annotations

import asyncio
import math
from asyncio import FIRST_COMPLETED
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from konnectivity.errors import ClusterError
from konnectivity.gotext import format_duration
from konnectivity.kube.client import describe, failures
from konnectivity.kube.collection import Collection as Objects
from konnectivity.kube.collection import status_of
from konnectivity.kube.resources import collection_path
from konnectivity.lifecycle.reconciling.plan import PAUSED, WORKLOADS, Key, key_of
from konnectivity.lifecycle.reconciling.reconcile import ReconcileOptions, Reconciler
from konnectivity.lifecycle.rendering.render import render
from konnectivity.lifecycle.rollouts.availability import Availability, follow, workloads_of
from konnectivity.lifecycle.rollouts.rollout import RolloutLimits
from konnectivity.lifecycle.specification import stored_spec
from konnectivity.lifecycle.specification.spec import AgentSpec

if TYPE_CHECKING:
    from lightkube import AsyncClient

INTERVAL: Final = 0.5
"""Seconds between two looks at what is on its way out."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`availability`: the last look at the agents, None where nobody waited for them."""

    availability: Availability | None
    stored: bool
    """Whether the specification is kept in the cluster, for an upgrade to start from."""


class Installation:
    """One go at making a cluster as `spec` says. `tell` gets how far it is."""

    def __init__(
        self, client: AsyncClient, spec: AgentSpec, *, tell: Callable[[str], None]
    ) -> None:
        desired = render(spec)
        self._client = client
        self._spec = spec
        self._tell = tell
        self._key = next(key for key in map(key_of, desired) if key.kind in WORKLOADS)
        self._latest = ""
        self._reconciler = Reconciler(
            client,
            desired,
            options=ReconcileOptions(
                resync=0,
                probe=0,
                # What takes longer than we are here must not be begun: nobody would end it.
                scale_down_hold=0,
                rollout=RolloutLimits(stuck_after=math.inf),
                overrides=spec.overrides,
            ),
        )

    async def run(self, *, leftovers: Collection[Key], wait: bool, limit: float) -> Outcome:
        """Apply; with `wait` until all agents are available and `leftovers` are gone.

        Raises:
            ClusterError: not within `limit` seconds, and what was in the way.
        """
        self._reconciler.wanted.retire(leftovers)
        keeping = asyncio.create_task(self._reconciler.run())
        work = asyncio.create_task(self._carry_out(leftovers, wait=wait))
        try:
            await asyncio.wait({keeping, work}, timeout=limit, return_when=FIRST_COMPLETED)
            if keeping.done():
                keeping.result()
            if not work.done():
                span = format_duration(limit)
                raise ClusterError(f"not done within {span}; {self._obstacles()}")
            await self._reconciler.recorder.flush()
            return work.result()
        except failures() as error:
            raise ClusterError(describe(error)) from error
        finally:
            for task in (keeping, work):
                task.cancel()
            await asyncio.wait({keeping, work})

    async def _carry_out(self, leftovers: Collection[Key], *, wait: bool) -> Outcome:
        self._note("writing the objects")
        before = await self._kept()
        await self._reconciler.until_applied()
        if self._reconciler.paused:
            raise ClusterError(
                f"the workload has the annotation {PAUSED}: nothing is changed while it is there"
            )
        kept = await stored_spec.keep(self._client, self._key, self._spec, before=before)
        found = None
        if wait:
            async for found in follow(self._client, self._key):
                self._note(str(found))
            for key in leftovers:
                await self._gone(key)
        return Outcome(found, kept)

    async def _kept(self) -> str | None:
        """The specification that the cluster keeps so far, be it at a workload that is to go."""
        name, namespace = self._key.name, self._key.namespace
        there = await workloads_of(self._client, name=name, namespace=namespace)
        texts = [stored_spec.kept(item) for key, item in there if key == self._key]
        texts += [stored_spec.kept(item) for key, item in there if key != self._key]
        return next((text for text in texts if text is not None), None)

    async def _gone(self, key: Key) -> None:
        while True:
            try:
                await self._objects(key).get(key.name)
            except failures() as error:
                if (status := status_of(error)) and status[0] == 404:
                    return
                raise
            self._note(f"{key} is to go, and is still there")
            await asyncio.sleep(INTERVAL)

    def _objects(self, key: Key) -> Objects:
        return Objects(self._client, collection_path(key.api_version, key.kind, key.namespace))

    def _note(self, text: str) -> None:
        self._latest = text
        self._tell(text)

    def _obstacles(self) -> str:
        retired = self._reconciler.wanted.retired
        stuck = self._reconciler.stuck.items()
        found = [f"{key}: {why}" for key, why in stuck if key not in retired]
        if self._reconciler.rollout.stuck:
            found.append(self._reconciler.rollout.condition.message)
        return "; ".join([*found, self._latest])
