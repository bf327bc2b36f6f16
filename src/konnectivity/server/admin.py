"""The server's two HTTP listeners: health for probes and scrapers, admin for operators.

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
from konnectivity.server import metrics
from konnectivity.server.exchange import Exchange
from konnectivity.server.options import ServerOptions
from konnectivity.server.status import ServerReport


class AdminListeners:
    """Both listeners of one server. `unready` says why it is not ready; empty when it is."""

    def __init__(
        self,
        options: ServerOptions,
        exchange: Exchange,
        *,
        watch: CertificateWatch,
        unready: Callable[[], str],
        stopping: Callable[[], bool],
    ) -> None:
        self._options = options
        self._exchange = exchange
        self._watch = watch
        self._unready = unready
        self._report = ServerReport(
            options=options,
            exchange=exchange,
            unready=unready,
            stopping=stopping,
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
                options.health_bind_address,
                options.health_port,
                self._health(),
                flag="--health-port",
            )
            await self._open(
                options.admin_bind_address,
                options.admin_port,
                await self._admin(),
                flag="--admin-port",
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
        routes = {"/metrics": self._metrics, **api(self._report.take, self._exchange.events)}
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
        """Upstream's words; with `?verbose` in Kubernetes' form, as its agent has it."""
        cause = self._unready()
        if not request.asks("verbose"):
            return Response(cause.encode(), status=500) if cause else Response(b"ok")
        if cause:
            text = f"[+]ping ok\n[-]agent-connected failed: {cause}\ncheck failed\n"
            return Response(text.encode(), status=500)
        return Response(b"[+]ping ok\n[+]agent-connected ok\ncheck passed\n")

    def _metrics(self, request: Request) -> Response:
        page = render(metrics.families(self._exchange, self._watch.certificates))
        return Response(page, content_type=CONTENT_TYPE)


def _listeners(options: ServerOptions) -> Iterator[status.Listener]:
    frontend = options.uds_name or join_host_port(options.server_bind_address, options.server_port)
    agent = join_host_port(options.agent_bind_address, options.agent_port)
    health = join_host_port(options.health_bind_address, options.health_port)
    admin = join_host_port(options.admin_bind_address, options.admin_port)
    yield status.Listener("frontend", frontend, tls=not options.uds_name)
    yield status.Listener("agent", agent, tls=True)
    yield status.Listener("health", health, tls=False)
    yield status.Listener("admin", admin, tls=bool(options.admin_cert))
