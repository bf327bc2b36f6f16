"""The server program: opens every listener or none, serves, stops in order.

Stopping is bounded (W35): first no new connections, then up to `--graceful-shutdown-timeout` for
open tunnels, then everything is closed.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from konnectivity.errors import ConfigError
from konnectivity.net import bind
from konnectivity.net.certificate import CertificateFacts
from konnectivity.net.h2 import H2Options, H2Settings
from konnectivity.net.listen import AcceptingSocket, Listener, ListenerLimits
from konnectivity.net.loop import Signals
from konnectivity.net.loop import run as run_loop
from konnectivity.net.reload import CertificateWatch
from konnectivity.observe import logs
from konnectivity.server import authentication, tls
from konnectivity.server.admin import AdminListeners
from konnectivity.server.backend import Agents
from konnectivity.server.certificates import CertificateGate
from konnectivity.server.exchange import Exchange
from konnectivity.server.frontend import Frontends
from konnectivity.server.lifetime import LifetimeLimits
from konnectivity.server.options import ServerOptions
from konnectivity.server.stopping import Farewell, bid, wind_down
from konnectivity.tunnel.budget import TunnelLimits
from konnectivity.wire.keepalive import ACK_LIMIT, AGENT_PINGS, FRONTEND_PINGS
from konnectivity.wire.limits import Http2Limits

if TYPE_CHECKING:
    from konnectivity.server.lease_controller import LeaseController

log = logs.get(__name__)

SHORTEST_KEEPALIVE: Final = 1.0

GRPC_LISTENER: Final = ListenerLimits(user_timeout=ACK_LIMIT)
"""A peer that stops acknowledging data is given up as soon as one that answers no pings."""
AGENT_LIMITS: Final = Http2Limits(
    stream_window=64 << 10, connection_window=512 << 10, max_streams=64, resets_burst=200
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
        limits = replace(
            limits or TunnelLimits(),
            tunnels=options.max_tunnels,
            dials=options.max_pending_dials,
        )
        self.exchange = Exchange(
            dial_timeout=options.dial_timeout,
            limits=limits,
            strategies=options.strategies,
            selection=options.agent_selection,
            retry_dials=options.retry_dials,
        )
        self.exchange.access_log = options.access_log
        self.exchange.streams = options.tunnel_streams
        self.stopping = False
        self.farewells: list[Farewell] = []
        """What to tell others when the server begins to stop, such as the deletion of its lease."""
        self._frontends = Frontends(
            self.exchange,
            modes=options.modes,
            gate=CertificateGate(options.frontend_certificate_identities),
            h2=H2Settings(
                H2Options(
                    limits=FRONTEND_LIMITS,
                    keepalive=max(options.frontend_keepalive_time, SHORTEST_KEEPALIVE),
                    policy=FRONTEND_PINGS,
                )
            ),
        )
        self._authentication = authentication.from_options(options)
        self._agents = Agents(
            self.exchange,
            server_id=options.server_id,
            server_count=lambda: options.server_count,
            announce=lambda: self._leases.announce() if self._leases else [],
            authentication=self._authentication,
            lifetime=LifetimeLimits(
                recheck=options.authentication_recheck_interval,
                max_age=options.max_agent_connection_age,
            ),
            h2=H2Settings(
                H2Options(
                    limits=AGENT_LIMITS,
                    keepalive=max(options.keepalive_time, SHORTEST_KEEPALIVE),
                    policy=AGENT_PINGS,
                    largest_window=LARGEST_WINDOW,
                )
            ),
        )
        self._leases: LeaseController | None = None
        self.watch = CertificateWatch(options.certificate_reload_interval)
        self.watch.tell = self.exchange.journal.certificate
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
            self._admin.push_async_callback(self._authentication.close)
            await self._admin.enter_async_context(self.watch)
            await _all_or_every_reason(
                self._open_leases, self._start_frontend, self._start_agents, self._start_admin
            )
        except BaseException:
            await self._doors.aclose()
            await self._admin.aclose()
            raise
        if self._leases is not None:
            self._leases.start()
        log.info("Server is up", serverID=self.options.server_id, mode=self.options.mode)

    async def _open_leases(self) -> None:
        if self.options.enable_lease_controller:
            from konnectivity.server.lease_controller import open_controller

            self._leases = await open_controller(self.options, self.exchange.counters)
            await self._admin.enter_async_context(self._leases)
            self.farewells.append(self._leases.leave)

    async def _start_frontend(self) -> None:
        context = tls.for_frontends(self.options, self.watch)
        listener = self._frontend_listener(self._frontend_socket(), context)
        await self._doors.enter_async_context(listener)
        log.info("Listening for frontends", address=listener.address)

    def _frontend_listener(
        self,
        sock: AcceptingSocket,
        context: Callable[[], ssl.SSLContext] | None,
        *,
        shared: bool = False,
    ) -> Listener:
        # Not where CONNECT is served: the kernel counts a paused reader as one that is gone.
        limits = GRPC_LISTENER if self.options.modes == {"grpc"} else None
        return Listener(sock, self._frontends.accept, context=context, limits=limits, shared=shared)

    def _frontend_socket(self) -> AcceptingSocket:
        return frontend_socket(self.options)

    def _agent_socket(self) -> AcceptingSocket:
        return agent_socket(self.options)

    async def _start_agents(self) -> None:
        context = tls.for_agents(self.options, self.watch)
        listener = Listener(
            self._agent_socket(),
            self._agents.accept,
            context=context,
            limits=GRPC_LISTENER,
            tell=partial(self.exchange.journal.turned_away, "handshake_failed"),
        )
        await self._doors.enter_async_context(listener)
        log.info("Listening for agents", address=listener.address)
        authentication.warn_of_open_door(self.options)

    async def _start_admin(self) -> None:
        await self._admin.enter_async_context(self._admin_listeners())

    def _admin_listeners(self) -> AdminListeners:
        return AdminListeners(
            self.options,
            self.exchange,
            watch=self.watch,
            unready=self.unready,
            stopping=lambda: self.stopping,
        )

    @property
    def certificates(self) -> list[CertificateFacts]:
        """The files of both listeners: in use, and on the disk."""
        return self.watch.certificates

    def unready(self) -> str:
        """Why `/readyz` fails, in upstream's words where it has some; empty when ready."""
        if self.stopping:
            return "stopping"
        return self.exchange.backends.unready_reason

    async def stop(self) -> None:
        """Close everything, in order and within bounds; health answers to the end (W38)."""
        if self.stopping:
            return
        self.stopping = True
        self.exchange.events.publish("stopping", tunnels=self.exchange.counters.established)
        limit = self.options.graceful_shutdown_timeout
        try:
            async with asyncio.TaskGroup() as farewells:
                for farewell in self.farewells:
                    farewells.create_task(bid(farewell))
                await self._doors.aclose()
                await wind_down(self.exchange, self._frontends, self._agents, limit=limit)
        finally:
            await self._admin.aclose()
        log.info("Server stopped")


async def _all_or_every_reason(*steps: Callable[[], Awaitable[None]]) -> None:
    """Take all steps of the start, so that what is wrong is known at once.

    Raises:
        ConfigError: with everything that is wrong.
    """
    problems: list[str] = []
    for step in steps:
        try:
            await step()
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("; ".join(problems))


def frontend_socket(options: ServerOptions) -> socket.socket:
    """The listening socket for frontends.

    Raises:
        ConfigError: the address or the path cannot be had.
    """
    if options.uds_name:
        return bind.unix_socket(options.uds_name, delete_existing=options.delete_existing_uds_file)
    return bind.tcp_socket(options.server_bind_address, options.server_port, flag="--server-port")


def agent_socket(options: ServerOptions) -> socket.socket:
    """The listening socket for agents.

    Raises:
        ConfigError: the address cannot be had.
    """
    return bind.tcp_socket(options.agent_bind_address, options.agent_port, flag="--agent-port")


async def serve(make: Callable[[], Server]) -> int:
    """Serve until SIGTERM or SIGINT; a second one ends the process at once, with status 1."""
    with Signals() as signals:
        server = make()
        async with server:
            await signals.first.wait()
            log.info("Stopping", gracefully=server.options.graceful_shutdown_timeout)
            stopping = asyncio.ensure_future(server.stop())
            impatient = asyncio.ensure_future(signals.second.wait())
            await asyncio.wait({stopping, impatient}, return_when=asyncio.FIRST_COMPLETED)
            impatient.cancel()
            if stopping.done():
                stopping.result()
                return 0
            stopping.cancel()
            return 1


def run(options: ServerOptions) -> int:
    """The program; returns its exit status.

    Raises:
        ConfigError: it cannot start.
    """
    if options.workers > 1:
        from konnectivity.server.workers import supervisor

        return supervisor.run(options)
    return run_loop(lambda: serve(lambda: Server(options)))
