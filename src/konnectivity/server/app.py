"""The server program: opens every listener or none, serves, stops in order.

Stopping is bounded (W35): first no new connections, then up to `--graceful-shutdown-timeout` for
open tunnels, then everything is closed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final, Self

from konnectivity.net import bind, tls
from konnectivity.net.h2 import H2Options, H2Settings
from konnectivity.net.listen import Listener, ListenerLimits
from konnectivity.net.loop import Signals
from konnectivity.net.loop import run as run_loop
from konnectivity.observe import logs
from konnectivity.observe.admin import AdminServer, Request, Response
from konnectivity.observe.exposition import CONTENT_TYPE, render
from konnectivity.server import metrics
from konnectivity.server.backend import Agents
from konnectivity.server.exchange import Exchange
from konnectivity.server.frontend import Frontends
from konnectivity.server.options import ServerOptions
from konnectivity.tunnel.budget import TunnelLimits
from konnectivity.wire.keepalive import ACK_LIMIT, AGENT_PINGS, FRONTEND_PINGS
from konnectivity.wire.limits import Http2Limits

log = logs.get(__name__)

SHORTEST_KEEPALIVE: Final = 1.0
IDLE_CHECK: Final = 0.02
"""Seconds between looks at whether tunnels are left, while stopping gracefully."""
LAST_WORDS: Final = 0.5
"""Seconds for what was written last to leave, at the very end."""

GRPC_LISTENER: Final = ListenerLimits(user_timeout=ACK_LIMIT)
"""A peer that stops acknowledging data is given up as soon as one that answers no pings."""
AGENT_LIMITS: Final = Http2Limits(
    stream_window=512 << 10, connection_window=512 << 10, max_streams=64, resets_burst=200
)
"""One call carries all tunnels of an agent and is read without waiting: a window is
what may be under way."""
LARGEST_WINDOW: Final = 16 << 20
"""As wide as grpc-go's; reached only by distant peers (wire/bandwidth.py)."""
FRONTEND_LIMITS: Final = Http2Limits(
    stream_window=256 << 10,
    connection_window=4 << 20,
    max_streams=100_000,
    resets_burst=20_000,
    resets_per_second=5_000.0,
    max_control_backlog=16 << 20,
)
"""kube-apiserver opens and cancels a call for each tunnel; it is the one peer we exist for."""


class Server:
    """One server. `async with Server(options):` serves until the block ends."""

    def __init__(self, options: ServerOptions, *, limits: TunnelLimits | None = None) -> None:
        self.options = options
        self.exchange = Exchange(dial_timeout=options.dial_timeout, limits=limits)
        self.stopping = False
        self._frontends = Frontends(
            self.exchange,
            modes=options.modes,
            h2=H2Settings(
                H2Options(
                    limits=FRONTEND_LIMITS,
                    keepalive=max(options.frontend_keepalive_time, SHORTEST_KEEPALIVE),
                    policy=FRONTEND_PINGS,
                )
            ),
        )
        self._agents = Agents(
            self.exchange,
            server_id=options.server_id,
            server_count=options.server_count,
            h2=H2Settings(
                H2Options(
                    limits=AGENT_LIMITS,
                    keepalive=max(options.keepalive_time, SHORTEST_KEEPALIVE),
                    policy=AGENT_PINGS,
                    largest_window=LARGEST_WINDOW,
                )
            ),
        )
        self._doors = AsyncExitStack()
        self._admin = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open all listeners.

        Raises:
            ConfigError: a file is wrong or an address cannot be had; nothing stays open.
        """
        try:
            await self._start_frontend()
            await self._start_agents()
            await self._start_admin()
        except BaseException:
            await self._doors.aclose()
            await self._admin.aclose()
            raise
        log.info("Server is up", serverID=self.options.server_id, mode=self.options.mode)

    async def _start_frontend(self) -> None:
        options = self.options
        context: Callable[[], ssl.SSLContext] | None = None
        if options.uds_name:
            sock = bind.unix_socket(
                options.uds_name, delete_existing=options.delete_existing_uds_file
            )
        else:
            made = self._frontend_context()
            context = lambda: made  # noqa: E731
            sock = bind.tcp_socket(options.server_bind_address, options.server_port)
        # Not where CONNECT is served: the kernel counts a paused reader as one that is gone.
        limits = GRPC_LISTENER if options.modes == {"grpc"} else None
        listener = Listener(sock, self._frontends.accept, context=context, limits=limits)
        await self._doors.enter_async_context(listener)
        log.info("Listening for frontends", address=listener.address)

    def _frontend_context(self) -> ssl.SSLContext:
        options = self.options
        alpn = [
            name
            for mode, name in (("grpc", "h2"), ("http-connect", "http/1.1"))
            if mode in options.modes
        ]
        only_http = options.modes == {"http-connect"}
        return tls.server_context(
            options.server_cert,
            options.server_key,
            client_ca=options.server_ca_cert,
            alpn=alpn,
            insist_on_alpn=options.modes == {"grpc"},
            min_version=options.tls_min_version,
            cipher_suites=options.cipher_suites,
            default_suites=tuple(tls.HTTP_SUITES if only_http else tls.GRPC_SUITES),
        )

    async def _start_agents(self) -> None:
        options = self.options
        context = tls.server_context(
            options.cluster_cert,
            options.cluster_key,
            client_ca=options.cluster_ca_cert,
            alpn=["h2"],
            insist_on_alpn=True,
            min_version=options.tls_min_version,
            cipher_suites=options.cipher_suites,
        )
        sock = bind.tcp_socket(options.agent_bind_address, options.agent_port)
        listener = Listener(
            sock, self._agents.accept, context=lambda: context, limits=GRPC_LISTENER
        )
        await self._doors.enter_async_context(listener)
        log.info("Listening for agents", address=listener.address)
        if not options.cluster_ca_cert:
            log.warning("Any agent may connect: --cluster-ca-cert is not set")

    async def _start_admin(self) -> None:
        options = self.options
        health = bind.tcp_socket(options.health_bind_address, options.health_port)
        await self._admin.enter_async_context(
            AdminServer(
                health,
                {
                    "/healthz": lambda _: Response(b"ok"),
                    "/readyz": self._ready,
                    "/ready": self._ready,
                    "/metrics": self._metrics,
                },
            )
        )
        admin = bind.tcp_socket(options.admin_bind_address, options.admin_port)
        await self._admin.enter_async_context(AdminServer(admin, {"/metrics": self._metrics}))

    def _ready(self, request: Request) -> Response:
        if self.stopping:
            return Response(b"stopping", status=500)
        if not len(self.exchange.backends):
            return Response(b"no connection to any proxy agent", status=500)
        return Response(b"ok")

    def _metrics(self, request: Request) -> Response:
        return Response(render(metrics.families(self.exchange)), content_type=CONTENT_TYPE)

    async def stop(self) -> None:
        """Close everything, in order and within bounds."""
        if self.stopping:
            return
        self.stopping = True
        await self._doors.aclose()
        await self._wait_for_tunnels(self.options.graceful_shutdown_timeout)
        self._frontends.close()
        self._agents.close()
        await self._wait_for(lambda: not (self._frontends.count or self._agents.count), LAST_WORDS)
        await self._admin.aclose()
        log.info("Server stopped")

    async def _wait_for_tunnels(self, limit: float) -> None:
        if limit:
            self._frontends.go_away()
            await self._wait_for(lambda: self.exchange.counters.established == 0, limit)
        left = self.exchange.counters.established
        if left:
            log.warning("Stopping with open tunnels", tunnels=left)

    async def _wait_for(self, done: Callable[[], bool], limit: float) -> None:
        """Look at counts of many owners until they agree; an event for each would be wiring."""
        deadline = asyncio.get_running_loop().time() + limit
        while not done() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(IDLE_CHECK)


async def serve(options: ServerOptions) -> int:
    """Serve until SIGTERM or SIGINT; a second one ends the process at once, with status 1."""
    with Signals() as signals:
        server = Server(options)
        async with server:
            await signals.first.wait()
            log.info("Stopping", gracefully=options.graceful_shutdown_timeout)
            stopping = asyncio.ensure_future(server.stop())
            impatient = asyncio.ensure_future(signals.second.wait())
            await asyncio.wait({stopping, impatient}, return_when=asyncio.FIRST_COMPLETED)
            impatient.cancel()
            if stopping.done():
                return 0
            stopping.cancel()
            return 1


def run(options: ServerOptions) -> int:
    """The program; returns its exit status.

    Raises:
        ConfigError: it cannot start.
    """
    return run_loop(lambda: serve(options))
