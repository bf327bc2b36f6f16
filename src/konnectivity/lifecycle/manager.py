"""The program `konnectivity manager`: keeps the agents of one cluster as specified."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
import uuid
from asyncio import FIRST_COMPLETED
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

from konnectivity.kube.client import connect
from konnectivity.kube.collection import Object
from konnectivity.lifecycle import metrics, spec_file
from konnectivity.lifecycle.election import Election
from konnectivity.lifecycle.metrics import ManagerCounters
from konnectivity.lifecycle.options import ManagerOptions
from konnectivity.lifecycle.plan import PAUSED
from konnectivity.lifecycle.preview import preview
from konnectivity.lifecycle.reconcile import ReconcileOptions, Reconciler
from konnectivity.lifecycle.render import render
from konnectivity.lifecycle.spec import AgentSpec
from konnectivity.net import bind
from konnectivity.net.listen import Listener
from konnectivity.net.loop import Signals
from konnectivity.net.loop import run as run_loop
from konnectivity.observe import logs
from konnectivity.observe.admin import AdminServer
from konnectivity.observe.api import alive
from konnectivity.observe.exposition import CONTENT_TYPE
from konnectivity.observe.exposition import render as render_metrics
from konnectivity.observe.route import JSON, Request, Response, Route

if TYPE_CHECKING:
    from lightkube import AsyncClient

log = logs.get(__name__)

OK, FAILED = 0, 1
REQUESTS_FROM: Final = 6
"""Verbosity from which each request to the API is logged."""


class Manager:
    """One manager. `async with Manager(...):` keeps a cluster as `desired` until the block ends."""

    def __init__(
        self,
        options: ManagerOptions,
        client: AsyncClient,
        desired: Sequence[Object],
        *,
        overrides: Sequence[str] = (),
        namespace: str = "kube-system",
        election_client: AsyncClient | None = None,
    ) -> None:
        self.options = options
        self.counters = ManagerCounters()
        self.election: Election | None = None
        self.reconciler = Reconciler(
            client,
            desired,
            options=ReconcileOptions(
                resync=options.resync_interval,
                probe=options.probe_interval,
                overrides=tuple(overrides),
            ),
            may_write=lambda: self.leading,
            counters=self.counters,
        )
        if options.leader_elect:
            self.election = Election(
                election_client or client,
                namespace=options.leader_elect_namespace or namespace,
                identity=f"{socket.gethostname()}_{uuid.uuid4()}",
                changed=self.reconciler.wake,
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
        except BaseException:
            await self._doors.aclose()
            raise
        self._task = asyncio.create_task(self.reconciler.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._doors.aclose()

    async def run(self, until: asyncio.Event) -> None:
        """Wait for `until`; a fault of ours ends it sooner, and is raised."""
        task = self._task = self._task or asyncio.create_task(self.reconciler.run())
        waiting = asyncio.ensure_future(until.wait())
        try:
            await asyncio.wait({waiting, task}, return_when=FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if task.done():
            task.result()

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
        """Ready is who knows the cluster, also who stands by."""
        observer = self.reconciler.observer
        unknown = [str(key) for key, each in observer.watched.items() if not each.reflector.synced]
        if unknown:
            return Response(f"not yet listed: {', '.join(unknown)}\n".encode(), status=503)
        return Response(b"ok")

    def _conditions(self, _request: Request) -> Response:
        conditions = self.reconciler.conditions
        self.reconciler.judge()
        page = {
            "leader": self.election.leader if self.election else "",
            "leading": self.leading,
            "conditions": [
                {
                    "type": each.type,
                    "status": each.word,
                    "reason": each.reason,
                    "message": each.message,
                    "lastTransitionTime": _time(conditions.since[each.type]),
                }
                for each in conditions.current.values()
            ],
            "problems": {str(key): text for key, text in self.reconciler.stuck.items()},
        }
        return Response(json.dumps(page, indent=2).encode() + b"\n", content_type=JSON)

    def _metrics(self, _request: Request) -> Response:
        reconciler = self.reconciler
        reconciler.judge()
        found = metrics.families(
            self.counters,
            lags=reconciler.observer.lags(),
            lists=reconciler.observer.lists,
            watches=reconciler.observer.watches,
            failing=len(reconciler.failing),
            dropped=reconciler.recorder.dropped,
            leading=self.leading,
            conditions=reconciler.conditions.current.values(),
        )
        return Response(render_metrics(found), content_type=CONTENT_TYPE)


async def serve(options: ManagerOptions) -> int:
    """Do what the flags say; return the exit status.

    Raises:
        ConfigError: a flag or a file is wrong.
    """
    if options.v < REQUESTS_FROM:
        logging.getLogger("httpx2").setLevel(logging.WARNING)
    spec = await asyncio.to_thread(spec_file.load, options.spec)
    desired = render(spec)
    async with AsyncExitStack() as doors:
        client = await _client(options, doors)
        if options.dry_run:
            return await _show(options, client, desired, spec)
        if options.once:
            return await _once(options, client, desired, spec)
        manager = Manager(
            options,
            client,
            desired,
            overrides=spec.overrides,
            namespace=spec.namespace,
            # One of its own: what waits for its turn must not cost the lead.
            election_client=await _client(options, doors),
        )
        with Signals() as signals:
            async with manager:
                log.info("Manager is up", objects=len(desired), pid=os.getpid())
                await manager.run(signals.first)
    log.info("Manager stopped")
    return OK


async def _client(options: ManagerOptions, doors: AsyncExitStack) -> AsyncClient:
    qps, burst = options.kube_api_qps, options.kube_api_burst
    client = await asyncio.to_thread(connect, options.kubeconfig, qps=qps, burst=burst)
    doors.push_async_callback(client.close)
    return client


async def _show(
    options: ManagerOptions, client: AsyncClient, desired: Sequence[Object], spec: AgentSpec
) -> int:
    status = OK
    lines = preview(client, desired, overrides=spec.overrides, limit=options.timeout)
    async for line in lines:
        sys.stdout.write(f"{line}\n")
        if line.startswith("!"):
            status = FAILED
    return status


async def _once(
    options: ManagerOptions, client: AsyncClient, desired: Sequence[Object], spec: AgentSpec
) -> int:
    """Reconcile until all is as specified, or nothing is left but what is refused."""
    reconciler = Reconciler(
        client,
        desired,
        options=ReconcileOptions(resync=0, probe=0, overrides=spec.overrides),
    )
    task = asyncio.create_task(reconciler.run())
    ending = asyncio.ensure_future(reconciler.until_settled())
    await asyncio.wait({task, ending}, timeout=options.timeout, return_when=FIRST_COMPLETED)
    if ending.done():
        await reconciler.recorder.flush()
    for each in (ending, task):
        each.cancel()
    await asyncio.wait({task, ending})
    if not task.cancelled():
        task.result()
    if reconciler.converged:
        return OK
    reasons = [f"{key}: {text}" for key, text in reconciler.stuck.items()]
    if reconciler.paused:
        reasons = [f"the workload has the annotation {PAUSED}"]
    for reason in reasons or [f"not as specified within {options.timeout:g} s"]:
        sys.stderr.write(f"Error: {reason}\n")
    return FAILED


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def run(options: ManagerOptions) -> int:
    """The program; returns its exit status.

    Raises:
        ConfigError: it cannot start.
    """
    return run_loop(lambda: serve(options))
