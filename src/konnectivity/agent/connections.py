"""Keeps the agent connected to every server: one attempt at a time, with back-off.

Upstream's rules and constants (`pkg/agent/clientset.go`): the first answer tells how many servers
there are; until that many distinct ids are connected the loop tries again each sync interval, and a
second connection to the same server is closed. A link leaves the table by identity, so a dying
connection never removes its replacement (W30).
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from konnectivity.agent.counters import AgentCounters
from konnectivity.agent.endpoint import Endpoints
from konnectivity.agent.link import LinkOptions, ServerLink
from konnectivity.errors import KonnectivityError, LinkError
from konnectivity.observe import logs
from konnectivity.tunnel.budget import Budget

log = logs.get(__name__)

BACKOFF_FACTOR: Final = 1.5
JITTER: Final = 0.1


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """Times in seconds."""

    interval: float
    interval_cap: float
    forever: bool


class Connections:
    """All links of one agent. `context` is asked for each attempt."""

    def __init__(
        self,
        link: LinkOptions,
        sync: SyncOptions,
        *,
        context: Callable[[], ssl.SSLContext],
        counters: AgentCounters,
    ) -> None:
        self.links: list[ServerLink] = []
        self.draining = False
        self.endpoints = Endpoints(counters)
        self.budget = Budget(link.limits.process)
        self._link = link
        self._sync = sync
        self._context = context
        self._counters = counters
        self._server_count = 1

    @property
    def tunnels(self) -> int:
        """Open tunnels and dials of all links."""
        return sum(link.tunnels for link in self.links)

    async def run(self) -> None:
        """Connect and reconnect until cancelled; then close everything."""
        wait = self._sync.interval
        try:
            while True:
                self._let_go()
                try:
                    await self._sync_once()
                    wait = self._sync.interval
                    pause = wait
                except KonnectivityError as error:
                    stage = error.stage if isinstance(error, LinkError) else "http2"
                    self._counters.link_failures[stage] += 1
                    log.warning("Cannot connect to a server", stage=stage, error=str(error))
                    pause = wait
                    wait = min(wait * BACKOFF_FACTOR, self._sync.interval_cap)
                await asyncio.sleep(pause * (1 + random.random() * JITTER))  # noqa: S311 - jitter
        finally:
            await self._close()

    def _let_go(self) -> None:
        """Leave servers that say they are going and carry none of our tunnels: they wait for it."""
        for link in list(self.links):
            if link.going_away and not link.tunnels:
                link.close()

    async def _sync_once(self) -> None:
        wanted = max(self._server_count, 1)
        self._counters.known_servers = wanted
        usable = [link for link in self.links if not link.going_away]
        if not self._sync.forever and len(usable) >= wanted:
            return
        link = await ServerLink.connect(self._link, self._context(), self.endpoints, self.budget)
        if any(other.server_id == link.server_id for other in usable):
            log.v(4, "Connected to this server already", serverID=link.server_id)
            link.close()
            return
        self._add(link)

    def _add(self, link: ServerLink) -> None:
        self._server_count = link.server_count
        self.links.append(link)
        log.info(
            "Connected to a server",
            serverID=link.server_id,
            serverCount=link.server_count,
            connections=len(self.links),
        )
        link.closed.add_done_callback(lambda done: self._remove(link, done.result()))
        if self.draining:
            link.drain()

    def _remove(self, link: ServerLink, cause: str) -> None:
        self.links.remove(link)
        if link.packets is not None:
            self._counters.packets_sent.update(link.packets.outbox.sent)
            self._counters.packets_received.update(link.packets.received)
        log.info("Lost a server", serverID=link.server_id, cause=cause, connections=len(self.links))

    def drain(self) -> None:
        """Ask every server, also those to come, to prefer other agents."""
        self.draining = True
        for link in self.links:
            link.drain()

    async def _close(self) -> None:
        links = list(self.links)
        for link in links:
            link.close()
        if links:
            await asyncio.wait([link.closed for link in links], timeout=3.0)
        await self.endpoints.close()
