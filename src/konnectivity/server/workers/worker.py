"""One worker: a server of its own in the agents' eyes, behind doors that others hold.

Frontends' connections it accepts itself, from the socket that all workers share; agents' are given
to it. While it has no agent, and others may have some, it leaves the frontends to them.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from konnectivity.net import bind
from konnectivity.net.listen import AcceptingSocket, Listener
from konnectivity.observe.admin import AdminServer
from konnectivity.server import tls
from konnectivity.server.app import Server
from konnectivity.server.options import ServerOptions
from konnectivity.server.workers.handing import HandedSocket

LOOK: Final = 0.05
"""Seconds between looks at whether there is an agent."""
PATIENCE: Final = 5.0
"""Seconds without an agent after which frontends are taken nevertheless, and told so."""


@dataclass(frozen=True, slots=True)
class Place:
    """What worker `number` (from 0) gets: the doors that it shares, and where it is asked."""

    number: int
    frontends: socket.socket
    agents: HandedSocket
    admin: str


class Worker(Server):
    """A `Server` at its `Place`: with an id of its own, and each worker counts as a server."""

    def __init__(self, options: ServerOptions, place: Place) -> None:
        self._place = place
        super().__init__(
            replace(
                options,
                server_id=f"{options.server_id}-{place.number}",
                server_count=options.server_count * options.workers,
            )
        )

    def _agent_socket(self) -> AcceptingSocket:
        return self._place.agents

    async def _start_frontend(self) -> None:
        context = tls.for_frontends(self.options, self.watch)
        gate = asyncio.create_task(self._open_and_close(context))

        async def end() -> None:
            gate.cancel()
            await asyncio.wait({gate})

        self._doors.push_async_callback(end)

    async def _open_and_close(self, context: Callable[[], ssl.SSLContext] | None) -> None:
        """Take frontends while there is an agent, and when there has been none for a while."""
        backends = self.exchange.backends
        while True:
            await _until(lambda: backends.ready, limit=PATIENCE)
            sock = self._place.frontends.dup()
            async with self._frontend_listener(sock, context, shared=True):
                await _until(lambda: backends.ready)
                await _until(lambda: not backends.ready)

    async def _start_admin(self) -> None:
        listeners = self._admin_listeners()
        routes = listeners.health | listeners.admin
        server = await self._admin.enter_async_context(AdminServer(routes))
        sock = bind.unix_socket(self._place.admin, delete_existing=True)
        await self._admin.enter_async_context(Listener(sock, server.accept))


async def _until(done: Callable[[], bool], *, limit: float = float("inf")) -> None:
    clock = asyncio.get_running_loop().time
    deadline = clock() + limit
    while not done() and clock() < deadline:  # noqa: ASYNC110 - strategies have no event
        await asyncio.sleep(LOOK)
