"""A server's and an agent's end of one gRPC stream, joined in memory: all protocols, no sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from konnectivity.net.h2 import WRITE_CHUNK
from konnectivity.tunnel.agent import AgentTunnel
from konnectivity.tunnel.agent_packets import PacketLink
from konnectivity.tunnel.budget import Budget, TunnelLimits
from konnectivity.tunnel.reason import Failure, Reason, Refusal
from konnectivity.tunnel.server import ServerTunnel
from konnectivity.tunnel.server_packets import PacketBackend
from konnectivity.wire import grpc
from konnectivity.wire.events import DataReceived
from konnectivity.wire.grpc import MessageReader, Oversized
from konnectivity.wire.http2 import Connection
from konnectivity.wire.limits import Http2Limits

LIMITS = Http2Limits(stream_window=512 << 10, connection_window=512 << 10)
TUNNELS = TunnelLimits()
REQUEST = grpc.request_headers(grpc.CONNECT, authority="127.0.0.1:8091", metadata=[])
READ_EACH = 0.1
"""Seconds by the connection's clock: rates of peers that flood are never met."""


class End:
    """One end of the stream, as a tunnel's carrier sees it. `take` gets each message."""

    full = False
    silence: float | None = None
    unsent = 0

    def __init__(self, *, client: bool) -> None:
        self.core = Connection(client=client, limits=LIMITS)
        self.stream_id = 1
        self.take: Callable[[memoryview | Oversized], None] = lambda message: None
        self._reader = MessageReader()
        self._now = 0.0

    def send(self, message: bytes) -> None:
        """Queue one message."""
        self.core.send_data(self.stream_id, message)

    def receive(self, data: bytes) -> None:
        """Take what the other end has written."""
        self._now += READ_EACH
        for event in self.core.receive_data(data, self._now):
            if type(event) is DataReceived:
                for message in self._reader.feed(event.data):
                    self.take(message)
                self.core.consume(event.stream_id, event.size)

    def probe(self) -> None:
        """Nobody is silent here."""

    def give_up(self, cause: str) -> None:
        """Nobody gives up."""

    def pause_reading(self) -> None:
        """Nothing waits."""

    def resume_reading(self) -> None:
        """Nothing has waited."""


def joined() -> tuple[End, End]:
    """Return the server's and the agent's end of a stream that both have opened."""
    server, agent = End(client=False), End(client=True)
    agent.core.open_stream(REQUEST)
    exchange(server, agent)
    server.core.send_headers(1, grpc.response_headers())
    exchange(server, agent)
    return server, agent


def exchange(one: End, other: End) -> None:
    """Carry bytes both ways until neither end has any."""
    busy = True
    while busy:
        busy = False
        for source, sink in ((one, other), (other, one)):
            while data := source.core.data_to_send(WRITE_CHUNK):
                sink.receive(data)
                busy = True


class Quiet:
    """A frontend, an endpoint, and whoever watches a tunnel: takes all, does nothing."""

    slow = False
    unsent = 0

    def write(self, data: bytes | memoryview) -> None:
        """Bytes have arrived."""

    def pause_reading(self) -> None:
        """The way is full."""

    def resume_reading(self) -> None:
        """It is not any more."""

    def end_writing(self) -> Any:
        """The other side sends no more; nobody here has a half."""
        return False

    def finish(self) -> None:
        """The tunnel is over."""

    def abort(self) -> None:
        """The same, at once."""

    def opened(self, connect_id: int) -> None:
        """The dial went well."""

    def refused(self, refusal: Refusal) -> None:
        """It did not."""

    def closed(self, reason: Reason, error: str) -> None:
        """The tunnel is over."""

    def retry(self, tunnel: ServerTunnel) -> bool:
        """There is no other agent."""
        return False

    def dialed(self, tunnel: ServerTunnel, failure: Failure | None, text: str) -> None:
        """The dial has ended."""

    def ended(self, tunnel: ServerTunnel, error: str) -> None:
        """The tunnel has."""


class Line:
    """A server and an agent that carry tunnels in packets; every dial is answered at once."""

    def __init__(self) -> None:
        self.server, self.agent = joined()
        self.backend = PacketBackend(
            self.server,
            agent_id="agent",
            credit=True,
            limits=TUNNELS,
            budget=Budget(TUNNELS.process),
        )
        self.link = PacketLink(
            self.agent, self, credit=True, limits=TUNNELS, budget=Budget(TUNNELS.process)
        )
        self.server.take, self.agent.take = self.backend.message, self.link.message
        self.endpoint: AgentTunnel | None = None
        """The agent's half of the tunnel that was dialled last."""
        self._dials = 0
        self._quiet = Quiet()

    def dial(self, tunnel: AgentTunnel) -> None:
        """Be the agent's dialer."""
        self.endpoint = tunnel
        tunnel.connected(self._quiet)

    def open(self) -> ServerTunnel:
        """Open a tunnel."""
        self._dials += 1
        tunnel = ServerTunnel(
            self._quiet,
            self.backend,
            random=self._dials,
            protocol="tcp",
            address="10.0.0.1:10250",
            watcher=self._quiet,
            limits=TUNNELS,
        )
        self.backend.dial(tunnel)
        self.carry()
        return tunnel

    def carry(self) -> None:
        """Carry bytes until there are none."""
        exchange(self.server, self.agent)
