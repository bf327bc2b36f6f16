"""Keeps the agent connected to every server: one attempt at a time, with back-off.

Upstream's rules and constants (`pkg/agent/clientset.go`): until as many distinct servers are
connected as there are (census.py) the loop tries again each sync interval, and a connection that a
server has no use for, because there is one already, is closed. A link leaves the table by identity,
so a dying connection never removes its replacement (W30).

differs: attempts that meet none but known servers are spaced like failures (W58); servers whose
own address is known are dialled there, and rarely elsewhere (targets.py); a lost link is replaced
at once; links to servers that are gone are closed when nothing is in them; servers of ours may get
several connections each (`--connections-per-server`), whose number they grant in their answer
(wire/parallel.py).
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from konnectivity.agent.attempts import Attempts, Outcome
from konnectivity.agent.census import Census
from konnectivity.agent.counters import AgentCounters
from konnectivity.agent.endpoint import Endpoints
from konnectivity.agent.link import LinkOptions, ServerLink, Target
from konnectivity.agent.targets import Targets
from konnectivity.errors import KonnectivityError, LinkError
from konnectivity.net.backoff import Backoff, lengthened
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
    gone_after: float = 60.0
    """A server without a lease is gone after this: two leases of a server whose API is away."""


class Connections:
    """All links of one agent. `context` is asked for each attempt, `census` how many are wanted."""

    def __init__(
        self,
        link: LinkOptions,
        sync: SyncOptions,
        *,
        context: Callable[[], ssl.SSLContext],
        counters: AgentCounters,
        endpoints: Endpoints | None = None,
        census: Census | None = None,
    ) -> None:
        self.links: list[ServerLink] = []
        self.draining = False
        self.endpoints = endpoints or Endpoints(counters)
        self.budget = Budget(link.limits.process)
        self.census = census or Census()
        self.attempts = Attempts()
        self.changed: Callable[[], None] = lambda: None
        """Called when a server is connected or lost, or cannot be reached for another reason."""
        self._link = link
        self._sync = sync
        self._context = context
        self._counters = counters
        self._targets = Targets(link.host, link.port)
        self._wanted = 1
        self.counted: Callable[[], object] = lambda: None
        """Called when the number of servers, reached or wanted, may be another."""
        self._wake = asyncio.Event()
        self._spread = 0.0
        """Seconds within which to act when woken: other agents are woken by the same event."""
        self._backoff = Backoff(
            sync.interval, sync.interval_cap, factor=BACKOFF_FACTOR, jitter=JITTER
        )
        self._after_drops = Backoff(
            sync.interval, sync.interval_cap, factor=BACKOFF_FACTOR, jitter=JITTER
        )
        self._not_before = 0.0
        """The loop's time; until then no attempt, because servers drop what they accept."""
        self._leaving: set[ServerLink] = set()
        self._gone: dict[str, float] = {}
        """Since when servers have had no lease, by id, in the loop's time."""

    @property
    def tunnels(self) -> int:
        """Open tunnels and dials of all links."""
        return sum(link.tunnels for link in self.links)

    @property
    def usable(self) -> list[ServerLink]:
        """The links that neither their server nor we are about to leave."""
        return [each for each in self.links if not each.going_away and each not in self._leaving]

    @property
    def servers(self) -> dict[str, list[ServerLink]]:
        """The usable links by the id of their server, oldest first."""
        found: dict[str, list[ServerLink]] = {}
        for link in self.usable:
            found.setdefault(link.server_id, []).append(link)
        return found

    @property
    def reached(self) -> int:
        """How many servers we are on."""
        return len(self.servers)

    @property
    def wanted(self) -> int:
        """How many servers there are."""
        return self._wanted

    async def run(self) -> None:
        """Connect and reconnect until cancelled; then close everything."""
        try:
            while True:
                self._wake.clear()
                self.recount()
                self._let_go()
                await self._pause(await self._sync_once())
        finally:
            await self._close()

    def recount(self) -> None:
        """Look how many servers there are; further ones are looked for within an interval."""
        before, self._wanted = self._wanted, self.census.wanted(self.usable)
        self._counters.known_servers = self._wanted
        self.counted()
        if self._wanted > before:
            self._look_again(within=self._sync.interval)

    def _look_again(self, *, within: float) -> None:
        self._backoff.reset()
        self._spread = within
        self._wake.set()

    async def _pause(self, seconds: float) -> None:
        """Wait for so long, or until there is reason to look again."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
            await asyncio.sleep(random.random() * self._spread)  # noqa: S311 - jitter
        except TimeoutError:
            pass
        await asyncio.sleep(self._not_before - asyncio.get_running_loop().time())

    def _let_go(self) -> None:
        """Leave servers that no tunnel of ours is at: those that say they go, those that are gone.

        A server that is going waits for us. One that is gone has no lease, while others have;
        its links are kept as long as we are not connected to more servers than there are.
        """
        for link in self.links:
            if link.going_away and not link.tunnels:
                link.close()
        now = asyncio.get_running_loop().time()
        servers = self.servers
        gone = filter(self.census.is_gone, servers)
        self._gone = {server_id: self._gone.get(server_id, now) for server_id in gone}
        surplus = len(servers) - self._wanted
        for server_id, links in servers.items():
            since = self._gone.get(server_id, now)
            idle = not any(link.tunnels for link in links)
            if surplus > 0 and since <= now - self._sync.gone_after and idle:
                log.info("Leaving a server that has no lease", serverID=server_id)
                self._leaving.update(links)
                for link in links:
                    link.close()
                surplus -= 1

    def _lacking(self) -> list[ServerLink]:
        """A link to each server that wants more of them."""
        return [links[-1] for links in self.servers.values() if len(links) < links[-1].parallel]

    async def _sync_once(self) -> float:
        """Make an attempt if a link is missing; the seconds until the next look."""
        made = True
        if self._sync.forever or len(self.servers) < self._wanted:
            made = await self._find()
        if lacking := self._lacking():
            made = await self._reinforce(random.choice(lacking))  # noqa: S311 - any of them
        if not made:
            return self._backoff.next()
        self._backoff.reset()
        # Where a server is that wants more, it is known: no reason to wait.
        return lengthened(self._sync.interval * (JITTER if self._lacking() else 1.0), JITTER)

    async def _find(self) -> bool:
        """Whether an attempt to find a server that is missing has made a link."""
        return await self._attempt_at(
            self.census.missing(self.usable),
            self._targets.balanced(avoid={each.address for each in self.usable}),
            lacking=self._wanted - self.reached,
        )

    async def _reinforce(self, link: ServerLink) -> bool:
        """Whether an attempt to have one more link beside this one has made one."""
        own = {
            server_id: address
            for server_id, address in self.census.addresses(self.usable).items()
            if server_id == link.server_id
        }
        common = self._targets.balanced(prefer=link.address)
        return await self._attempt_at(own, common, lacking=1)

    async def _attempt_at(self, own: Mapping[str, str], common: Target, *, lacking: int) -> bool:
        """Try one of the servers' own addresses, and the common name where it may lead further.

        It may if one of the `lacking` has no own address to be looked for at, or none is connected.
        """
        direct = self._targets.direct(own)
        blind = lacking > len(direct) or not self.servers
        if direct:
            began = asyncio.get_running_loop().time()
            outcome = await self._attempt(direct[0])
            took = asyncio.get_running_loop().time() - began
            if outcome is Outcome.MADE:
                self._targets.led(direct[0])
                return True
            if outcome is Outcome.MET_AGAIN:
                self._targets.set_aside(direct[0])
            elif not self._targets.failed(direct[0], took) and not blind:
                return False
        return await self._attempt(common) is Outcome.MADE

    async def _attempt(self, target: Target) -> Outcome:
        try:
            link = await ServerLink.connect(
                self._link, self._context(), self.endpoints, self.budget, target=target
            )
        except KonnectivityError as error:
            stage = error.stage if isinstance(error, LinkError) else "http2"
            self._counters.link_failures[stage] += 1
            text = str(error)
            log.summarised(text, "Cannot connect to a server", stage=stage, error=text)
            self.endpoints.events.publish("connection_failed", stage=stage, error=str(error))
            if self.attempts.fail(str(target), stage, text):
                self.changed()
            return Outcome.FAILED
        known = self.servers.get(link.server_id, [])
        for each in known:  # the newest word of a server counts
            each.server_count, each.announced = link.server_count, link.announced
        if known and len(known) >= link.parallel:
            log.v(4, "Connected to this server already", serverID=link.server_id)
            self.attempts.met_again += 1
            link.close()
            return Outcome.MET_AGAIN
        self.attempts.succeed(str(target))
        self._add(link)
        return Outcome.MADE

    def _add(self, link: ServerLink) -> None:
        self.links.append(link)
        self.endpoints.journal.connected(link.packets, link.record())
        log.info(
            "Connected to a server",
            serverID=link.server_id,
            serverCount=link.server_count,
            connections=len(self.links),
        )
        link.closed.add_done_callback(lambda done: self._remove(link, done.result()))
        if self.draining:
            link.drain()
        self.recount()
        self.changed()

    def _remove(self, link: ServerLink, cause: str) -> None:
        self.links.remove(link)
        self._leaving.discard(link)
        if link.packets is not None:
            self._counters.link_gone(link.packets, link.error)
        self.endpoints.journal.disconnected(link.packets, cause)
        self.changed()
        log.info("Lost a server", serverID=link.server_id, cause=cause, connections=len(self.links))
        now = asyncio.get_running_loop().time()
        if now - link.since < self._sync.interval_cap:
            # It may be one that drops whatever it accepts.
            self._not_before = now + self._after_drops.next()
        else:
            self._after_drops.reset()
        self._look_again(within=self._sync.interval * JITTER)

    def drain(self) -> None:
        """Ask every server, also those to come, to prefer other agents."""
        self.draining = True
        self.changed()
        self.endpoints.events.publish("draining", tunnels=self.tunnels)
        for link in self.links:
            link.drain()

    async def _close(self) -> None:
        links = list(self.links)
        for link in links:
            link.close()
        if links:
            await asyncio.wait([link.closed for link in links], timeout=3.0)
        await self.endpoints.close()
