"""The agent's two HTTP listeners: health for probes and scrapers, admin for operators.

Health is plain and open, because kubelets and scrapers come without credentials; admin may have
TLS, client certificates and bearer tokens (W50).
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Self

from konnectivity.agent import metrics
from konnectivity.agent.connections import Connections
from konnectivity.agent.counters import AgentCounters
from konnectivity.agent.options import AgentOptions
from konnectivity.agent.status import AgentReport
from konnectivity.net import bind
from konnectivity.net.address import join_host_port
from konnectivity.net.admin_tls import for_admin
from konnectivity.net.listen import Listener
from konnectivity.net.reload import CertificateWatch
from konnectivity.observe import status
from konnectivity.observe.admin import AdminServer, Guard
from konnectivity.observe.api import alive, api
from konnectivity.observe.exposition import CONTENT_TYPE, render
from konnectivity.observe.protection import BearerTokens, warn_of_plain_text
from konnectivity.observe.route import Request, Response, Route


class AdminListeners:
    """Both listeners of one agent. `unready` says why it is not ready; empty when it is."""

    def __init__(
        self,
        options: AgentOptions,
        connections: Connections,
        counters: AgentCounters,
        *,
        watch: CertificateWatch,
        unready: Callable[[], str],
    ) -> None:
        self._options = options
        self._connections = connections
        self._counters = counters
        self._watch = watch
        self._unready = unready
        self._report = AgentReport(
            options=options,
            connections=connections,
            counters=counters,
            unready=unready,
            certificates=lambda: watch.certificates,
            listeners=lambda: list(_listeners(options)),
            started_at=time.time(),
        )
        self._doors = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Open both.

        Raises:
            ConfigError: a file is wrong or an address cannot be had; nothing stays open.
        """
        options = self._options
        try:
            await self._open(
                options.health_server_host,
                options.health_server_port,
                self._health(),
                flag="--health-server-port",
            )
            await self._open(
                options.admin_bind_address,
                options.admin_server_port,
                await self._admin(),
                flag="--admin-server-port",
                context=for_admin(
                    self._watch,
                    cert=options.admin_cert,
                    key=options.admin_key,
                    client_ca=options.admin_client_ca,
                ),
                tokens=options.admin_token_file,
            )
        except BaseException:
            await self._doors.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._doors.aclose()

    async def _open(
        self,
        host: str,
        port: int,
        routes: dict[str, Route],
        *,
        flag: str,
        context: Callable[[], ssl.SSLContext] | None = None,
        tokens: str = "",
    ) -> None:
        guard: Guard | None = None
        if tokens:
            warn_of_plain_text(host, encrypted=context is not None)
            guard = (await asyncio.to_thread(BearerTokens, tokens)).refusal
        server = await self._doors.enter_async_context(AdminServer(routes, guard=guard))
        sock = bind.tcp_socket(host, port, flag=flag)
        listener = Listener(sock, server.accept, context=context)
        await self._doors.enter_async_context(listener)

    def _health(self) -> dict[str, Route]:
        return {
            "/healthz": alive,
            "/livez": alive,
            "/readyz": self._ready,
            "/ready": self._ready,
            "/metrics": self._metrics,
        }

    async def _admin(self) -> dict[str, Route]:
        events = self._connections.endpoints.events
        routes = {"/metrics": self._redirect, **api(self._report.take, events)}
        if self._options.enable_profiling:
            routes |= await self._debug()
        return routes

    async def _debug(self) -> dict[str, Route]:
        from konnectivity.observe.lag import LagWatch  # memory for those who ask for it
        from konnectivity.observe.profiling import Profiling

        if not self._options.enable_contention_profiling:
            return Profiling().routes
        return Profiling(await self._doors.enter_async_context(LagWatch())).routes

    def _ready(self, request: Request) -> Response:
        cause = self._unready()
        if cause:
            text = f"[+]ping ok\n[-]server-connected failed: {cause}\n"
            return Response(text.encode(), status=503)
        if request.asks("verbose"):
            return Response(b"[+]ping ok\n[+]server-connected ok\ncheck passed\n")
        return Response(b"ok")

    def _metrics(self, request: Request) -> Response:
        certificates = self._watch.certificates
        page = render(metrics.families(self._connections, self._counters, certificates))
        return Response(page, content_type=CONTENT_TYPE)

    def _redirect(self, request: Request) -> Response:
        """Metrics live on the health port; scheme-relative, as upstream redirects."""
        host = request.host.rpartition(":")[0] or request.host
        query = f"?{request.query}" if request.query else ""
        where = f"//{host}:{self._options.health_server_port}/metrics{query}"
        return Response(b"", status=301, location=where)


def _listeners(options: AgentOptions) -> Iterator[status.Listener]:
    health = join_host_port(options.health_server_host, options.health_server_port)
    admin = join_host_port(options.admin_bind_address, options.admin_server_port)
    yield status.Listener("health", health, tls=False)
    yield status.Listener("admin", admin, tls=bool(options.admin_cert))
