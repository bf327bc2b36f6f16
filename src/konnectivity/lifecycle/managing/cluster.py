"""Everything that keeps one cluster as specified: its client, and what works with it.

What is told of a cluster, its conditions and problems, is read here too, so that the process
around it needs to know nothing of how it is kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from konnectivity.kube.collection import Object
from konnectivity.lifecycle.managing.metrics import ClusterFigures, ManagerCounters
from konnectivity.lifecycle.managing.standing import marked
from konnectivity.lifecycle.reconciling.conditions import Condition, Conditions
from konnectivity.lifecycle.reconciling.reconcile import ReconcileOptions, Reconciler
from konnectivity.lifecycle.rendering.render import render
from konnectivity.lifecycle.rollouts import mesh
from konnectivity.lifecycle.specification.spec import AgentSpec
from konnectivity.observe import logs

if TYPE_CHECKING:
    from lightkube import AsyncClient

    from konnectivity.lifecycle.credentials.certificates import AgentCertificates


class Cluster:
    """One cluster, kept as `spec` says while `run` runs. The client is closed at its end.

    With a directory `pki` its agents get their certificates from there; the files are looked at
    every `pki_interval` seconds. Nothing is written unless `may_write` says so; call `wake` when
    that may have changed. `mark` tells others of the manager, see `standing.py`.
    """

    def __init__(
        self,
        name: str,
        client: AsyncClient,
        spec: AgentSpec,
        *,
        options: ReconcileOptions,
        may_write: Callable[[], bool],
        counters: ManagerCounters,
        pki: Path | None = None,
        pki_interval: float = 10.0,
        mark: str = "",
    ) -> None:
        self.name = name
        self.spec = spec
        self.certificates: AgentCertificates | None = None
        self._mark = mark
        self._may_write = may_write
        if pki is not None:
            self.certificates = self._certificates(pki, pki_interval, counters)
        self.reconciler = Reconciler(
            client,
            self._objects(),
            options=replace(options, overrides=spec.overrides),
            may_write=self._may_reconcile,
            counters=counters,
        )
        self._client = client
        self._look_interval = options.probe

    async def run(self) -> None:
        """Keep the cluster until cancelled; a fault of ours ends it sooner, and is raised."""
        if self.name:
            logs.about(cluster=self.name)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.reconciler.run())
                if self.certificates is not None:
                    tasks.create_task(self.certificates.run())
                if self._look_interval > 0:
                    tasks.create_task(
                        mesh.keep_looking(
                            self._client,
                            lambda: self.spec.heartbeat_namespace if self.spec.heartbeats else "",
                            tell=self._note,
                            interval=self._look_interval,
                        )
                    )
        finally:
            await self._client.close()

    def specify(self, spec: AgentSpec) -> None:
        """Something else is wanted from now on."""
        if spec != self.spec:
            self.spec = spec
            if self.certificates is not None:
                self.certificates.spec = spec
            self._want()

    def _note(self, condition: Condition) -> None:
        self.reconciler.conditions.update([condition], time.time())

    def _want(self) -> None:
        self.reconciler.want(self._objects(), overrides=self.spec.overrides)

    def _objects(self) -> list[Object]:
        found = self.certificates.objects() if self.certificates else render(self.spec)
        return marked(found, self._mark) if self._mark else found

    def _may_reconcile(self) -> bool:
        """Not before it is known which certificates are wanted."""
        return self._may_write() and (self.certificates is None or self.certificates.known)

    def _certificates(
        self, path: Path, interval: float, counters: ManagerCounters
    ) -> AgentCertificates:
        # It brings cryptography along, 13 MB of memory.
        from konnectivity.lifecycle.credentials.certificates import AgentCertificates

        return AgentCertificates(
            path,
            self.spec,
            observed=lambda: self.reconciler.observer.observed(),
            troubles=lambda: self.reconciler.observer.troubles,
            changed=self._want,
            may_write=self._may_write,
            recorder=lambda: self.reconciler.recorder,
            counters=counters,
            interval=interval,
        )

    def wake(self) -> None:
        """Look again."""
        self.reconciler.wake()

    @property
    def conditions(self) -> Conditions:
        """Brought up to date."""
        self.reconciler.judge()
        if self.certificates is not None:
            now = time.time()
            self.reconciler.conditions.update(self.certificates.conditions(now), now)
        return self.reconciler.conditions

    @property
    def problems(self) -> dict[str, str]:
        """Why objects can be neither seen nor written, by object."""
        return {str(key): text for key, text in self.reconciler.stuck.items()}

    @property
    def unknown(self) -> list[str]:
        """Objects of which it is not known yet whether they are there."""
        watched = self.reconciler.observer.watched
        return [str(key) for key, each in watched.items() if not each.reflector.synced]

    @property
    def acquainted(self) -> bool:
        """Whether the API has answered, or is known not to."""
        return bool(self.reconciler.observer.troubles) or not self.unknown

    def figures(self, conditions: tuple[Condition, ...]) -> ClusterFigures:
        """What the metrics tell of it; `conditions` are its own and those of its registration."""
        reconciler = self.reconciler
        observer = reconciler.observer
        return ClusterFigures(
            lags=observer.lags(),
            lists=observer.lists,
            watches=observer.watches,
            failing=len(reconciler.failing),
            dropped=reconciler.recorder.dropped,
            rollout=reconciler.rollout.progress,
            stopped=reconciler.rollout.stuck,
            conditions=conditions,
            ends=self.certificates.ends if self.certificates else {},
        )
