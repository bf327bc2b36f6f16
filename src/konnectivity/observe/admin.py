"""Health, metrics, status: exact paths over HTTP/1.1, for few and untrusted peers.

A few requests per minute from probes, scrapers and operators, on h11. Nothing here may cost the
data path memory or time: connections, heads, bodies and waits are all bounded. It listens nowhere
itself; `accept` makes the protocol of a connection that a listener took.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Self, cast

from konnectivity.observe.admin_connection import AdminConnection
from konnectivity.observe.route import BROKEN, NOT_FOUND, Answer, Request, Response, Route

log = logging.getLogger(__name__)

Guard = Callable[[Request], Awaitable[Response | None]]
"""Asked before each route: a refusal, or None to let the request pass."""


@dataclass(frozen=True, slots=True)
class AdminLimits:
    """What one admin listener spends on its peers. Differs: upstream has few such limits."""

    connections: int = 64  # at once; one more ends the one that was silent for longest
    head: int = 16 << 10  # bytes; upstream 1 MiB
    body: int = 64 << 10  # bytes of a request's body, which is read and dropped
    request_timeout: float = 10.0  # seconds from a request's first byte to its last; upstream 60
    idle_timeout: float = 90.0  # seconds between requests; scrapers come each 15 to 60
    write_timeout: float = 10.0  # seconds for a peer that does not read
    linger: float = 1.0  # seconds for the peer to read the last answer and close


class AdminServer:
    """Serves `routes`, by exact path, to the connections that a listener accepts.

    A route is called on the event loop and must not block. What takes time is awaited in a task
    of its connection and ends with it.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        *,
        guard: Guard | None = None,
        limits: AdminLimits | None = None,
    ) -> None:
        self.limits = limits or AdminLimits()
        self._routes = routes
        self._guard = guard
        # In the order of their last sign of life.
        self._connections: dict[AdminConnection, None] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def accept(self) -> AdminConnection:
        """The protocol of a new connection."""
        return AdminConnection(self, self.limits)

    async def close(self) -> None:
        """End all connections and what they wait for. Safe to repeat."""
        for connection in list(self._connections):
            connection.abort()
        await self._empty.wait()

    def answer(self, request: Request) -> Response | None:
        """The answer that is at hand; None: wait for `later`."""
        route = self._find(request)
        if self._guard is not None or inspect.iscoroutinefunction(route):
            return None
        try:
            return cast(Response, route(request))
        except Exception:
            return _broken(request)

    async def later(self, request: Request) -> Answer:
        """The answer that takes time, if only to ask the guard. Raises nothing."""
        try:
            refusal = await self._guard(request) if self._guard is not None else None
            if refusal is not None:
                return refusal
            found = self._find(request)(request)
            return await found if inspect.isawaitable(found) else found
        except Exception:
            return _broken(request)

    def _find(self, request: Request) -> Route:
        # A CONNECT that is granted would turn the connection into a tunnel.
        known = request.method != "CONNECT"
        return self._routes.get(request.path, _not_found) if known else _not_found

    def enter(self, connection: AdminConnection) -> None:
        """Take `connection` in, or note that it is alive."""
        self._connections.pop(connection, None)
        if len(self._connections) >= self.limits.connections:
            next(iter(self._connections)).abort()
        self._connections[connection] = None
        self._empty.clear()

    def leave(self, connection: AdminConnection) -> None:
        """Forget a connection that is closed."""
        self._connections.pop(connection, None)
        if not self._connections:
            self._empty.set()


def _not_found(_request: Request) -> Response:
    return NOT_FOUND


def _broken(request: Request) -> Response:
    log.exception("Request failed path=%s", request.path)
    return BROKEN
