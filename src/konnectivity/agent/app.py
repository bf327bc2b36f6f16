"""The agent program: keeps its links to the servers, answers health checks, drains and leaves."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack
from typing import Final, Self

from konnectivity.agent import metrics
from konnectivity.agent.connections import Connections, SyncOptions
from konnectivity.agent.counters import AgentCounters
from konnectivity.agent.link import LinkOptions
from konnectivity.agent.options import AgentOptions
from konnectivity.net import bind, tls
from konnectivity.net.h2 import H2Options, H2Settings
from konnectivity.net.loop import Signals
from konnectivity.net.loop import run as run_loop
from konnectivity.observe import logs
from konnectivity.observe.admin import AdminServer, Request, Response
from konnectivity.observe.exposition import CONTENT_TYPE, render
from konnectivity.tunnel.budget import TunnelLimits
from konnectivity.wire.limits import Http2Limits

log = logs.get(__name__)

SHORTEST_KEEPALIVE: Final = 10.0
SHORTEST_DRAIN: Final = 10.0
"""Seconds a draining agent stays at least: it may be the only one, and servers need to notice."""
IDLE_CHECK: Final = 0.25

SERVER_LIMITS: Final = Http2Limits(stream_window=512 << 10, connection_window=512 << 10)
"""One call carries all tunnels and is read without waiting: a window is
what may be under way."""
LARGEST_WINDOW: Final = 16 << 20
"""As wide as grpc-go's; reached only by distant peers (wire/bandwidth.py)."""


class Agent:
    """One agent. `async with Agent(options):` keeps it connected until the block ends."""

    def __init__(self, options: AgentOptions, *, limits: TunnelLimits | None = None) -> None:
        self.options = options
        self.counters = AgentCounters()
        context = self._context()
        self.connections = Connections(
            LinkOptions(
                host=options.proxy_server_host,
                port=options.proxy_server_port,
                agent_id=options.agent_id,
                identifiers=options.agent_identifiers,
                token_path=options.service_account_token_path,
                h2=H2Settings(
                    H2Options(
                        limits=SERVER_LIMITS,
                        keepalive=max(options.keepalive_time, SHORTEST_KEEPALIVE),
                        largest_window=LARGEST_WINDOW,
                    )
                ),
                limits=limits or TunnelLimits(),
            ),
            SyncOptions(
                interval=options.sync_interval,
                interval_cap=options.sync_interval_cap,
                forever=options.sync_forever,
            ),
            context=lambda: context,
            counters=self.counters,
        )
        self._doors = AsyncExitStack()
        self._loop_task: asyncio.Task[None] | None = None

    def _context(self) -> ssl.SSLContext:
        options = self.options
        offered = (*options.alpn_proto, *(() if "h2" in options.alpn_proto else ("h2",)))
        return tls.client_context(
            options.ca_cert,
            cert=options.agent_cert,
            key=options.agent_key,
            alpn=offered,
            insist_on_alpn=True,
        )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open the health listeners and begin to connect.

        Raises:
            ConfigError: an address cannot be had; nothing stays open.
        """
        options = self.options
        try:
            health = bind.tcp_socket(options.health_server_host, options.health_server_port)
            await self._doors.enter_async_context(
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
            admin = bind.tcp_socket(options.admin_bind_address, options.admin_server_port)
            await self._doors.enter_async_context(AdminServer(admin, {"/metrics": self._redirect}))
        except BaseException:
            await self._doors.aclose()
            raise
        self._loop_task = asyncio.create_task(self.connections.run())
        log.info("Agent is up", agentID=options.agent_id)

    def _ready(self, request: Request) -> Response:
        connected = bool(self.connections.links)
        if not connected:
            return Response(
                b"[+]ping ok\n[-]server-connected failed: no servers connected\n", status=503
            )
        if request.asks("verbose"):
            return Response(b"[+]ping ok\n[+]server-connected ok\ncheck passed\n")
        return Response(b"ok")

    def _metrics(self, request: Request) -> Response:
        page = render(metrics.families(self.connections, self.counters))
        return Response(page, content_type=CONTENT_TYPE)

    def _redirect(self, request: Request) -> Response:
        """Metrics live on the health port; scheme-relative, as upstream redirects."""
        host = request.host.rpartition(":")[0] or request.host
        query = f"?{request.query}" if request.query else ""
        where = f"//{host}:{self.options.health_server_port}/metrics{query}"
        return Response(b"", status=301, location=where)

    def drain(self) -> None:
        """Ask the servers to prefer other agents."""
        self.connections.drain()

    async def drained(self) -> None:
        """Wait until no tunnel is left, at least `SHORTEST_DRAIN` seconds."""
        await asyncio.sleep(SHORTEST_DRAIN)
        while self.connections.tunnels:  # noqa: ASYNC110 - a count over many owners
            await asyncio.sleep(IDLE_CHECK)

    async def stop(self) -> None:
        """Close links, endpoints and listeners."""
        task, self._loop_task = self._loop_task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        await self._doors.aclose()
        log.info("Agent stopped", agentID=self.options.agent_id)


async def serve(options: AgentOptions) -> int:
    """Serve; the first SIGTERM or SIGINT drains, the second one ends at once. Status 0 both."""
    with Signals() as signals:
        async with Agent(options) as agent:
            await signals.first.wait()
            log.info("Draining", tunnels=agent.connections.tunnels)
            agent.drain()
            waits = {
                asyncio.create_task(agent.drained()),
                asyncio.create_task(signals.second.wait()),
            }
            _, left = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in left:
                task.cancel()
    return 0


def run(options: AgentOptions) -> int:
    """The program; returns its exit status.

    Raises:
        ConfigError: it cannot start.
    """
    return run_loop(lambda: serve(options))
