"""One agent's stream at the server: a `Connect` call that was admitted.

It answers the call, enters the agent into the exchange for as long as the call lives, and carries
packets between the call and its `PacketBackend`.

Source: upstream `pkg/server/server.go`, `Connect`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from konnectivity import __version__
from konnectivity.errors import RpcError
from konnectivity.net.channel import Channel
from konnectivity.net.grpc import Call
from konnectivity.net.throttle import Throttle
from konnectivity.observe import logs
from konnectivity.observe.journal import VERSION_KEY, PeerRecord, announced, certificate_of
from konnectivity.server.exchange import Exchange
from konnectivity.server.lifetime import LifetimeLimits, supervise
from konnectivity.tunnel.identifiers import Identifiers
from konnectivity.tunnel.server_packets import PacketBackend
from konnectivity.tunnel.server_streams import ServerStreams
from konnectivity.wire import grpc, parallel, tunnel_stream
from konnectivity.wire.events import Headers
from konnectivity.wire.grpc import Oversized
from konnectivity.wire.packet import CREDIT_KEY

log = logs.get(__name__)

WINDOW: Final = 512 << 10
"""Bytes of packets that an agent may have under way at first (wire/bandwidth.py)."""
MOST_STREAMS: Final = 100_000
"""Streams of tunnels on one agent's connection; further tunnels share the one for packets."""


@dataclass(frozen=True, slots=True)
class Applicant:
    """A `Connect` call and what it says about its agent. `token` may be empty."""

    call: Call
    agent_id: str
    identifiers: Identifiers
    token: str

    @property
    def address(self) -> str:
        """The IP address that the agent comes from."""
        transport = self.call.transport
        peer = transport.get_extra_info("peername") if transport is not None else None
        return str(peer[0]) if isinstance(peer, tuple) else ""


def _record(call: Call, agent_id: str, *, credit: bool, streams: bool) -> PeerRecord:
    """What the status says of an agent."""
    return PeerRecord(
        id=agent_id,
        address=call.peer,
        software=announced(call.headers, "user-agent"),
        version=announced(call.headers, VERSION_KEY),
        credit=credit,
        streams=streams,
        certificate=certificate_of(call.transport),
        measure=call.measure,
    )


class AgentStream:
    """One `Connect` call: the handler between the call and its `PacketBackend`.

    `answer` is the response metadata, which leaves before the agent is entered.
    """

    __slots__ = (
        "_agent_id",
        "_backend",
        "_call",
        "_exchange",
        "_life",
        "_streams",
        "_throttle",
        "keeps_tunnels",
    )

    def __init__(
        self, applicant: Applicant, exchange: Exchange, answer: list[tuple[str, str]]
    ) -> None:
        call, agent_id, identifiers = applicant.call, applicant.agent_id, applicant.identifiers
        credit = bool(grpc.metadata_values(call.headers, CREDIT_KEY))
        if grpc.metadata_values(call.headers, VERSION_KEY):
            answer = [*answer, (VERSION_KEY, __version__)]
        asked = grpc.metadata_values(call.headers, parallel.KEY)
        if asked:
            answer = [*answer, (parallel.KEY, str(parallel.decode(asked)))]
        if credit:
            answer = [*answer, (CREDIT_KEY, "1")]
        streams = (
            exchange.streams
            and bool(grpc.metadata_values(call.headers, tunnel_stream.KEY))
            and call.accept_channels(self, MOST_STREAMS)
        )
        call.respond([*answer, (tunnel_stream.KEY, "1")] if streams else answer)
        call.widen(WINDOW)
        self.keeps_tunnels = credit  # who speaks it is ours, and does
        self._call = call
        self._exchange = exchange
        self._agent_id = agent_id
        self._life: asyncio.Task[None] | None = None
        self._throttle = None if credit else Throttle(call)
        self._backend = PacketBackend(
            call,
            agent_id=agent_id,
            identifiers=identifiers,
            credit=credit,
            limits=exchange.limits,
            budget=exchange.budget,
            throttle=self._throttle,
        )
        self._backend.parallel = parallel.decode(asked)
        self._streams: ServerStreams | None = None
        if streams:
            self._streams = ServerStreams(
                self._backend, limits=exchange.limits, budget=exchange.budget
            )
        exchange.counters.open_calls["Connect"] += 1
        exchange.counters.agent_connected(self._backend)
        exchange.backends.add(self._backend)
        exchange.journal.connected(
            self._backend, _record(call, agent_id, credit=credit, streams=streams)
        )
        log.info("Agent connected", agentID=agent_id, address=call.peer)
        if identifiers.odd:
            odd = " ".join(identifiers.odd)
            log.warning("Identifiers of an agent are ignored", agentID=agent_id, identifiers=odd)

    def live(
        self,
        limits: LifetimeLimits,
        *,
        review: Callable[[], Awaitable[object]] | None,
        expires: float | None,
    ) -> None:
        """Follow the stream's age and its token from now on."""
        life = supervise(self, limits, review=review, expires=expires)
        self._life = asyncio.create_task(life)

    # Stream (lifetime.py)

    @property
    def load(self) -> int:
        """Tunnels and dials."""
        return self._backend.load

    def retire(self, cause: str) -> None:
        """Ask the agent to come again; until it has, dials go to others first."""
        log.info("Agent is asked to connect anew", agentID=self._agent_id, cause=cause)
        self._backend.draining = True
        self._call.go_away()

    def unlist(self) -> None:
        """Give it no more dials; its tunnels go on."""
        self._exchange.backends.remove(self._backend)

    def revoke(self, cause: str) -> None:
        """End the stream with all its tunnels."""
        self._exchange.counters.authentications["revoked"] += 1
        log.warning("Agent is not trusted any more", agentID=self._agent_id, cause=cause)
        self._call.abandon(grpc.UNKNOWN, cause)

    # ChannelAcceptor (net/h2.py)

    def channel_opened(self, channel: Channel, path: str) -> None:
        """The agent answers a dial with a stream."""
        names = tunnel_stream.parse_path(path)
        if names is None or self._streams is None:
            self._call.give_up(f"a stream with the path {path[:64]!r}, which names no dial")
            return
        asked = self._streams.was_asked(names[0])
        channel.handler = self._streams.opened(channel, *names)
        if channel.handler is not None:
            channel.expect()
        elif asked:
            channel.abort(tunnel_stream.DONE)
        else:
            channel.refuse()

    # CallHandler (net/grpc.py)

    def headers(self, headers: Headers) -> None:
        """Not for servers."""

    def message(self, message: memoryview | Oversized) -> None:
        """One packet of the agent."""
        self._backend.message(message)

    def writable(self) -> None:
        """The connection has room again."""
        self._backend.outbox.flow()

    def half_closed(self) -> None:
        """The agent says goodbye."""
        self._call.finish()

    def ended(self, error: RpcError | None) -> None:
        """The agent is gone: no new dials for it, an end for all its tunnels."""
        self._exchange.counters.open_calls["Connect"] -= 1
        if self._life is not None:
            self._life.cancel()
        self._exchange.backends.remove(self._backend)
        tunnels = len(self._backend.tunnels)
        self._backend.lost()
        if self._throttle is not None:
            self._throttle.close()
        self._exchange.counters.agent_gone(self._backend, error)
        cause = str(error.message if error else "it said goodbye")
        self._exchange.journal.disconnected(self._backend, cause, tunnels=tunnels)
        log.info("Agent disconnected", agentID=self._agent_id, cause=cause, tunnels=tunnels)
