"""The program `konnectivity manager`: keeps the agents of one cluster, or of many, as specified."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import uuid
from asyncio import FIRST_COMPLETED
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, Self

from konnectivity.kube.client import connect
from konnectivity.lifecycle.managing import cluster_directory, fleet_report, metrics, once
from konnectivity.lifecycle.managing.cluster import Cluster
from konnectivity.lifecycle.managing.cluster_directory import ClusterDirectory
from konnectivity.lifecycle.managing.cluster_secrets import ClusterSecrets
from konnectivity.lifecycle.managing.election import Election
from konnectivity.lifecycle.managing.fleet import Fleet
from konnectivity.lifecycle.managing.metrics import ManagerCounters
from konnectivity.lifecycle.managing.options import ManagerOptions
from konnectivity.lifecycle.managing.registration import Registration
from konnectivity.lifecycle.managing.standing import mark
from konnectivity.lifecycle.reconciling.reconcile import ReconcileOptions
from konnectivity.lifecycle.rendering.render import render
from konnectivity.lifecycle.rollouts.rollout import RolloutLimits
from konnectivity.lifecycle.specification import spec_file
from konnectivity.lifecycle.specification.spec import AgentSpec
from konnectivity.lifecycle.specification.spec_watch import SpecWatch
from konnectivity.net import bind
from konnectivity.net.listen import Listener
from konnectivity.net.loop import Signals
from konnectivity.net.loop import run as run_loop
from konnectivity.observe import logs
from konnectivity.observe.admin import AdminServer
from konnectivity.observe.api import alive
from konnectivity.observe.exposition import CONTENT_TYPE
from konnectivity.observe.exposition import render as render_metrics
from konnectivity.observe.route import Request, Response, Route

if TYPE_CHECKING:
    from lightkube import AsyncClient

log = logs.get(__name__)

OK: Final = once.OK
REQUESTS_FROM: Final = 6
"""Verbosity from which each request to the API is logged."""
LOOKUPS: Final = 64
"""Names of API servers that are looked up at once, where there are many clusters."""


class Source(Protocol):
    """Where clusters are registered."""

    @property
    def synced(self) -> bool:
        """Whether all of them are known."""

    @property
    def trouble(self) -> str:
        """Why they cannot be read; empty if they can."""

    async def run(self) -> None:
        """Register what is there, and follow it, until cancelled."""


class Manager:
    """One manager. `async with manager:` keeps its clusters until the block ends.

    `management` is the client of the cluster with the lease, and with the Secrets if clusters are
    in Secrets; without one there is no election.
    """

    def __init__(
        self, options: ManagerOptions, spec: AgentSpec, *, management: AsyncClient | None = None
    ) -> None:
        self.options = options
        self.counters = ManagerCounters()
        self.fleet = Fleet(
            spec, connect=self._connect, make=self._make, concurrency=options.cluster_concurrency
        )
        self.specification = SpecWatch(options.spec, spec, changed=self.fleet.specify)
        self.source: Source | None = None
        self.election: Election | None = None
        if options.clusters:
            self.source = ClusterDirectory(options.clusters, self.fleet)
        elif options.clusters_selector and management is not None:
            self.source = ClusterSecrets(
                management,
                self.fleet,
                namespace=options.clusters_namespace,
                selector=options.clusters_selector,
            )
        if options.leader_elect and management is not None:
            own = options.clusters_namespace if options.is_fleet else spec.namespace
            self.election = Election(
                management,
                namespace=options.leader_elect_namespace or own,
                identity=f"{socket.gethostname()}_{uuid.uuid4()}",
                changed=self.fleet.wake,
            )
        self._doors = AsyncExitStack()
        self._task: asyncio.Task[None] | None = None

    @property
    def leading(self) -> bool:
        """Whether this process may write."""
        return self.election is None or self.election.leading

    async def __aenter__(self) -> Self:
        """Listen, and begin.

        Raises:
            ConfigError: the health address cannot be had; nothing stays open.
        """
        try:
            await self._listen()
            if self.election is not None:
                await self._doors.enter_async_context(self.election)
            await self._doors.enter_async_context(self.fleet)
        except BaseException:
            await self._doors.aclose()
            raise
        if self.source is None:
            place = self.options.kubeconfig or "the pod's service account"
            self.fleet.register(Registration("", place, b""))
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._doors.aclose()

    async def run(self, until: asyncio.Event) -> None:
        """Wait for `until`; a fault of ours ends it sooner, and is raised."""
        waiting = asyncio.ensure_future(until.wait())
        tasks = {waiting} | ({self._task} if self._task is not None else set())
        try:
            await asyncio.wait(tasks, return_when=FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._task is not None and self._task.done():
            self._task.result()

    async def _follow(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.specification.run())
            if self.source is not None:
                tasks.create_task(self.source.run())

    def _connect(self, registration: Registration) -> AsyncClient:
        qps, burst = self.options.kube_api_qps, self.options.kube_api_burst
        if self.options.is_fleet:
            return registration.connect(qps=qps, burst=burst)
        return connect(self.options.kubeconfig, qps=qps, burst=burst, multiplex=True)

    def _make(self, name: str, client: AsyncClient, spec: AgentSpec) -> Cluster:
        options = self.options
        return Cluster(
            name,
            client,
            spec,
            options=ReconcileOptions(
                resync=options.resync_interval,
                probe=options.probe_interval,
                scale_down_hold=options.scale_down_hold,
                rollout=RolloutLimits(stuck_after=options.rollout_stuck_after),
            ),
            may_write=lambda: self.leading,
            counters=self.counters,
            pki=Path(options.pki_directory, name) if options.pki_directory else None,
            pki_interval=options.certificate_reload_interval,
            mark=mark(
                cluster=name, lease_namespace=self.election.namespace if self.election else ""
            ),
        )

    async def _listen(self) -> None:
        options = self.options
        routes: dict[str, Route] = {
            "/healthz": alive,
            "/livez": alive,
            "/readyz": self._ready,
            "/conditions": self._conditions,
            "/metrics": self._metrics,
        }
        server = await self._doors.enter_async_context(AdminServer(routes))
        sock = bind.tcp_socket(
            options.health_server_host, options.health_server_port, flag="--health-server-port"
        )
        await self._doors.enter_async_context(Listener(sock, server.accept))

    def _ready(self, _request: Request) -> Response:
        """Ready is who knows the clusters, also who stands by."""
        if self.source is not None and not self.source.synced:
            why = f"clusters are not yet known: {self.source.trouble or 'reading'}"
        else:
            why = fleet_report.unready(self.fleet, single=self.source is None)
        return Response(f"{why}\n".encode(), status=503) if why else Response(b"ok")

    async def _conditions(self, request: Request) -> Response:
        head: dict[str, object] = {
            "leader": self.election.leader if self.election else "",
            "leading": self.leading,
        }
        troubles = [self.specification.trouble, self.source.trouble if self.source else ""]
        if found := [each for each in troubles if each]:
            head["troubles"] = found
        single = self.source is None
        return await fleet_report.conditions(self.fleet, request, single=single, head=head)

    async def _metrics(self, _request: Request) -> Response:
        figures = await fleet_report.figures(self.fleet)
        found = metrics.families(self.counters, figures, leading=self.leading)
        return Response(render_metrics(found), content_type=CONTENT_TYPE)


async def serve(options: ManagerOptions) -> int:
    """Do what the flags say; return the exit status.

    Raises:
        ConfigError: a flag or a file is wrong.
    """
    if options.v < REQUESTS_FROM:
        logging.getLogger("httpx2").setLevel(logging.WARNING)
    spec = await asyncio.to_thread(spec_file.load, options.spec)
    if options.is_fleet:
        _make_room()
    if options.clusters:
        await asyncio.to_thread(cluster_directory.check, options.clusters)
    async with AsyncExitStack() as doors:
        # For the lease a client of its own: what waits for its turn must not cost the lead.
        management = await _management(options, doors)
        if management is not None and (options.dry_run or options.once):
            act = once.show if options.dry_run else once.reconcile_once
            limit = options.timeout
            return await act(management, render(spec), overrides=spec.overrides, limit=limit)
        manager = Manager(options, spec, management=management)
        with Signals() as signals:
            async with manager:
                log.info("Manager is up", objects=len(render(spec)), pid=os.getpid())
                if options.leader_elect and manager.election is None:
                    log.info("No election: --kubeconfig names no cluster for the lease")
                await manager.run(signals.first)
    log.info("Manager stopped")
    return OK


async def _management(options: ManagerOptions, doors: AsyncExitStack) -> AsyncClient | None:
    """A client of the cluster that --kubeconfig names; None if clusters in a folder are all."""
    if options.clusters and not options.kubeconfig:
        return None
    qps, burst = options.kube_api_qps, options.kube_api_burst
    client = await asyncio.to_thread(connect, options.kubeconfig, qps=qps, burst=burst)
    doors.push_async_callback(client.close)
    return client


def _make_room() -> None:
    """For many clusters: descriptors up to what we may have, threads for names that hang."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # a system that bounds it elsewhere, too
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # libuv looks names up in these; with its default four hang all if four hang.
    os.environ.setdefault("UV_THREADPOOL_SIZE", str(LOOKUPS))


def run(options: ManagerOptions) -> int:
    """The program; returns its exit status.

    Raises:
        ConfigError: it cannot start.
    """
    return run_loop(lambda: serve(options))
