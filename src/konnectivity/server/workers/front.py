"""What stands before the workers: gives agents to them in turn, and answers for all of them.

It carries no tunnel. When it is gone for a moment, no agent can come meanwhile and nobody is told
anything, and that is all.
"""

from __future__ import annotations

import asyncio
import socket
import time
from asyncio import TaskGroup
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from http import HTTPStatus
from typing import Final, Self

from konnectivity import __version__
from konnectivity.admin import Doors
from konnectivity.net import tcp
from konnectivity.net.reload import CertificateWatch
from konnectivity.observe import logs
from konnectivity.observe.api import api, flags, health
from konnectivity.observe.events import Events
from konnectivity.observe.exposition import CONTENT_TYPE, render
from konnectivity.observe.route import Answer, Request, Response, Route, get_only
from konnectivity.observe.status import Program, ServerStatus, Time
from konnectivity.observe.status_json import from_json
from konnectivity.server import metrics
from konnectivity.server.admin import listeners
from konnectivity.server.options import ServerOptions
from konnectivity.server.workers import merged_metrics, merged_status
from konnectivity.server.workers.asking import Answered, Worker, WorkerSilent
from konnectivity.server.workers.handing import Rotation
from konnectivity.wire.keepalive import ACK_LIMIT

log = logs.get(__name__)

AGAIN: Final = 0.1
"""Seconds until a worker that does not listen is tried again."""
BURST: Final = 64
"""Connections accepted in one go."""
NOBODY: Final = "no worker answers"


class Front:
    """The front of one server. `async with Front(...):` serves until the block ends.

    `givings` are the giving ends of all workers, `paths` where they answer, both by number.
    """

    def __init__(
        self,
        options: ServerOptions,
        *,
        agents: socket.socket,
        givings: Sequence[socket.socket],
        paths: Sequence[str],
    ) -> None:
        self.events = Events()
        self.up: set[int] = set()
        self._taking: set[int] = set()
        """Those of `up` that are not about to stop."""
        self.restarts = 0
        self._options = options
        self._sock = agents
        self._rotation = Rotation(givings)
        self._workers = [Worker(path) for path in paths]
        self._watch = CertificateWatch(options.certificate_reload_interval)
        self._doors = Doors()
        self._tasks = AsyncExitStack()
        self._resumption: asyncio.TimerHandle | None = None
        self._started_at = time.time()

    async def __aenter__(self) -> Self:
        """Open health and admin, and begin to accept agents.

        Raises:
            ConfigError: a file is wrong or an address cannot be had; nothing stays open.
        """
        options = self._options
        merged: dict[str, Route] = {
            "/metrics": self._metrics,
            **api(self._status, self.events),
            **flags(options),
        }
        try:
            await self._doors.open(
                options.health_bind_address,
                options.health_port,
                health(self._ready, self._metrics),
                flag="--health-port",
            )
            routes = {path: self._of_one_or_all(route) for path, route in merged.items()}
            routes["/api/v1/events"] = get_only(self.events.follow)  # each names its worker
            await self._doors.open_admin(
                options, options.admin_port, routes, flag="--admin-port", watch=self._watch
            )
            await self._tasks.enter_async_context(self._watch)
        except BaseException:
            await self._doors.close()
            raise
        follower = asyncio.create_task(self._follow_all())
        self._tasks.push_async_callback(asyncio.wait, {follower})
        self._tasks.callback(follower.cancel)
        tcp.tune(self._sock, user_timeout=ACK_LIMIT)  # accepted sockets inherit the options
        self._accept_on()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._accept_off()
        await self._tasks.aclose()
        await self._doors.close()

    # Agents

    def _accept_on(self) -> None:
        self._resumption = None
        asyncio.get_running_loop().add_reader(self._sock, self._accept)

    def _accept_off(self) -> None:
        if self._resumption is not None:
            self._resumption.cancel()
        asyncio.get_running_loop().remove_reader(self._sock)

    def _accept(self) -> None:
        """Give what has come to workers; while none is up, peers wait in the accept queue."""
        for _ in range(BURST):
            if not self._taking:
                self._rest()
                return
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                log.summarised("accept", "Cannot accept agents for now", cause=str(error))
                self._rest()
                return
            with sock:  # the worker has its own descriptor of it
                if self._rotation.give(sock, str(peer[0]), among=self._taking) is None:
                    log.summarised("give", "All workers are busy, an agent was sent away")

    def _rest(self) -> None:
        self._accept_off()
        self._resumption = asyncio.get_running_loop().call_later(AGAIN, self._accept_on)

    # Workers

    async def _follow_all(self) -> None:
        async with TaskGroup() as group:
            for number in range(len(self._workers)):
                group.create_task(self._follow(number))

    async def _follow(self, number: int) -> None:
        """Tell what a worker tells, whenever it is there."""
        times = 0
        while True:
            try:
                async for event in self._workers[number].events():
                    if event is None:
                        self.up.add(number)
                        self._taking.add(number)
                        if times:
                            self.restarts += 1
                            self._rotation.prefer(number)
                        times += 1
                        log.info("Worker is up", worker=number)
                    else:
                        self.events.publish(event.kind, **dict(event.facts), worker=number)
                        if event.kind == "stopping":
                            self._taking.discard(number)
            except WorkerSilent as error:
                if number in self.up:
                    self.up.discard(number)
                    self._taking.discard(number)
                    log.warning("Worker is gone", worker=number, cause=str(error))
                    self.events.publish("worker_lost", worker=number)
            await asyncio.sleep(AGAIN)

    async def _ask_all(self, target: str) -> dict[int, Answered]:
        """What each worker that is up answers; those that do not are left out."""

        async def ask(number: int) -> None:
            try:
                answers[number] = await self._workers[number].get(target)
            except WorkerSilent as error:
                log.summarised(f"ask{number}", "No answer", worker=number, cause=str(error))

        answers: dict[int, Answered] = {}
        await asyncio.gather(*(ask(number) for number in sorted(self.up)))
        return dict(sorted(answers.items()))

    # Answers

    def _of_one_or_all(self, merged: Route) -> Route:
        """`?worker=N` asks that worker, everything else the server as a whole."""

        async def route(request: Request) -> Answer:
            if request.asks("worker"):
                return await self._of_one(request)
            answer = merged(request)
            return await answer if isinstance(answer, Awaitable) else answer

        return route

    async def _of_one(self, request: Request) -> Response:
        text = request.value("worker")
        if not (text.isdecimal() and int(text) < len(self._workers)):
            known = f"worker must be 0 to {len(self._workers) - 1}\n"
            return Response(known.encode(), status=400)
        try:
            answer = await self._workers[int(text)].get(f"{request.path}?{request.query}")
        except WorkerSilent as error:
            return Response(f"worker {text}: {error}\n".encode(), status=503)
        return Response(answer.body, status=answer.status, content_type=answer.content_type)

    async def _ready(self, request: Request) -> Response:
        """Ready is a server of which a worker is."""
        answers = await self._ask_all(f"/readyz?{request.query}")
        ready = [each for each in answers.values() if each.status == HTTPStatus.OK]
        best = next(iter(ready or answers.values()), None)
        if best is None:
            return Response(NOBODY.encode(), status=500)
        return Response(best.body, status=best.status)

    async def _status(self, most: int) -> ServerStatus:
        pages = await self._ask_all(f"/api/v1/status?tunnels={most}")
        statuses = {
            number: status
            for number, page in pages.items()
            if page.status == HTTPStatus.OK
            and isinstance(status := from_json(page.body), ServerStatus)
        }
        return merged_status.merge(
            statuses,
            program=self._program(),
            last_event=self.events.last_id,
            most=most,
        )

    def _program(self) -> Program:
        """The server as a whole, before a worker has said anything."""
        return Program(
            id=self._options.server_id,
            version=__version__,
            started_at=Time(self._started_at),
            state="running",
            ready=False,
            unready=NOBODY,
            modes=tuple(sorted(self._options.modes)),
            strategies=tuple(self._options.strategies),
            listeners=tuple(listeners(self._options)),
            limits=(),
            certificates=(),
            workers=self._options.workers,
        )

    async def _metrics(self, _request: Request) -> Response:
        pages = await self._ask_all("/metrics")
        own = render(metrics.of_workers(up=len(self.up), restarts=self.restarts))
        page = merged_metrics.merge([*(each.body for each in pages.values()), own])
        return Response(page, content_type=CONTENT_TYPE)
