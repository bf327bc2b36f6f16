"""The agent program: keeps its links to the servers, answers health checks, drains and leaves."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final, Self

from konnectivity.agent import draining
from konnectivity.agent.admin import AdminListeners
from konnectivity.agent.census import Census
from konnectivity.agent.connections import Connections, SyncOptions
from konnectivity.agent.counters import AgentCounters
from konnectivity.agent.endpoint import Endpoints
from konnectivity.agent.latch import Latch
from konnectivity.agent.link import LinkOptions
from konnectivity.agent.options import AgentOptions
from konnectivity.agent.policy import Policy
from konnectivity.net import tls
from konnectivity.net.certificate import CertificateFacts
from konnectivity.net.h2 import H2Options, H2Settings
from konnectivity.net.loop import Signals
from konnectivity.net.loop import run as run_loop
from konnectivity.net.proxy import Proxy, choose_proxy
from konnectivity.net.reload import CertificateWatch, Holds, PemFile
from konnectivity.observe import logs
from konnectivity.tunnel.budget import TunnelLimits
from konnectivity.tunnel.reason import Reason
from konnectivity.wire.limits import Http2Limits

log = logs.get(__name__)

SHORTEST_KEEPALIVE: Final = 10.0

SERVER_LIMITS: Final = Http2Limits(stream_window=64 << 10, connection_window=512 << 10)
"""One call carries all tunnels and is read without waiting: a window is
what may be under way."""
LARGEST_WINDOW: Final = 16 << 20
"""As wide as grpc-go's; reached only by distant peers (wire/bandwidth.py)."""


class Agent:
    """One agent. `async with Agent(options):` keeps it connected until the block ends."""

    def __init__(
        self,
        options: AgentOptions,
        *,
        limits: TunnelLimits | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        self.options = options
        self.counters = AgentCounters()
        self.watch = CertificateWatch(options.certificate_reload_interval)
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
                streams=options.tunnel_streams,
                bare_authority=bool(options.agent_cert),
                proxy=proxy,
                connections=options.connections_per_server,
            ),
            SyncOptions(
                interval=options.sync_interval,
                interval_cap=options.sync_interval_cap,
                forever=options.sync_forever,
            ),
            context=self._context(),
            counters=self.counters,
            endpoints=Endpoints(
                self.counters, gate=self._policy(), max_tunnels=options.max_tunnels
            ),
        )
        self.connections.endpoints.access_log = options.access_log
        self.watch.tell = self.connections.endpoints.journal.certificate
        self.latch = Latch(self.connections, wait=options.ready_wait_for_all_servers)
        self.connections.counted = self.latch.look
        self._doors = AsyncExitStack()
        self._loop_task: asyncio.Task[None] | None = None

    def _policy(self) -> Policy | None:
        options = self.options
        if not (options.allow_destinations or options.cluster_destinations_only):
            return None
        return Policy(
            options.allow_destinations,
            cluster_only=options.cluster_destinations_only,
            refusals=self.counters.policy_refusals,
        )

    def _context(self) -> Callable[[], ssl.SSLContext]:
        options = self.options
        offered = (*options.alpn_proto, *(() if "h2" in options.alpn_proto else ("h2",)))
        return self.watch.add(
            lambda: tls.client_context(
                options.ca_cert,
                cert=options.agent_cert,
                key=options.agent_key,
                alpn=offered,
                insist_on_alpn=True,
            ),
            (
                PemFile("agent-cert", options.agent_cert, Holds.CHAIN),
                PemFile("agent-key", options.agent_key, Holds.KEY),
                PemFile("ca-cert", options.ca_cert, Holds.BUNDLE),
            ),
        )

    @property
    def certificates(self) -> list[CertificateFacts]:
        """The client's certificate and the CA bundle: in use, and on the disk."""
        return self.watch.certificates

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
        listeners = AdminListeners(
            self.options,
            self.connections,
            self.counters,
            watch=self.watch,
            unready=self.unready,
        )
        try:
            await self._doors.enter_async_context(listeners)
            await self._doors.enter_async_context(self.watch)
            await self._count_leases()
            await self._tell_heartbeats()
        except BaseException:
            await self._doors.aclose()
            raise
        self._loop_task = asyncio.create_task(self.connections.run())
        log.info("Agent is up", agentID=self.options.agent_id)

    async def _count_leases(self) -> None:
        if self.options.count_server_leases:
            from konnectivity.agent.lease_counter import open_counter

            counter = await open_counter(
                self.options, self.counters, changed=self.connections.recount
            )
            await self._doors.enter_async_context(counter)
            self.connections.census = Census(counter, source=self.options.server_count_source)
            self.latch.known = lambda: counter.synced

    async def _tell_heartbeats(self) -> None:
        if self.options.heartbeat_interval:
            from konnectivity.agent.heartbeat import open_writer
            from konnectivity.agent.vitals import Vitals

            vitals = Vitals(
                agent_id=self.options.agent_id,
                connections=self.connections,
                counters=self.counters,
                certificates=lambda: self.certificates,
                environ=os.environ,
                started_at=time.time(),
            )
            writer = await open_writer(self.options, vitals, environ=os.environ)
            self.connections.changed = writer.changed
            await self._doors.enter_async_context(writer)

    def unready(self) -> str:
        """Why `/readyz` fails, in upstream's words where it has some; empty when ready."""
        if self.connections.draining:
            return "draining"
        return self.latch.look() if self.connections.links else "no servers connected"

    async def drain(self) -> None:
        """Ask the servers to prefer other agents; wait for tunnels, up to `--drain-timeout`."""
        self.connections.drain()
        await draining.until_idle(self.connections, limit=self.options.drain_timeout)

    async def stop(self, *, at_once: bool = False) -> None:
        """End tunnels, in order unless `at_once`; close links, endpoints and listeners."""
        if self._loop_task is not None and not at_once:
            await draining.end_tunnels(self.connections)
        task, self._loop_task = self._loop_task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait({task})
        await self._doors.aclose()
        cut = self.counters.tunnels_ended[Reason.SHUTDOWN.value]
        log.info("Agent stopped", agentID=self.options.agent_id, tunnelsCut=cut)


async def serve(options: AgentOptions) -> int:
    """Serve; the first SIGTERM or SIGINT drains, the second one ends at once. Status 0 both."""
    with Signals() as signals:
        proxy = choose_proxy(os.environ, options.proxy_server_host, options.proxy_server_port)
        async with Agent(options, proxy=proxy) as agent:
            await signals.first.wait()
            log.info("Draining", tunnels=agent.connections.tunnels, limit=options.drain_timeout)
            leaving = asyncio.ensure_future(_leave(agent))
            impatient = asyncio.ensure_future(signals.second.wait())
            await asyncio.wait({leaving, impatient}, return_when=asyncio.FIRST_COMPLETED)
            leaving.cancel()
            impatient.cancel()
            await asyncio.wait({leaving, impatient})
            await agent.stop(at_once=True)
            if not leaving.cancelled():
                leaving.result()
    return 0


async def _leave(agent: Agent) -> None:
    await agent.drain()
    await draining.end_tunnels(agent.connections)


def run(options: AgentOptions) -> int:
    """The program; returns its exit status.

    Raises:
        ConfigError: it cannot start.
    """
    return run_loop(lambda: serve(options))
