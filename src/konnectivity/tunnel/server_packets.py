"""The packet carrier at the server: all tunnels of one agent on one gRPC stream.

Dials and tunnels are kept per stream, never per agent id: ids of two streams cannot collide (W14)
and an agent can answer only what it was asked (W16). Ending one tunnel touches one entry (W63).
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from konnectivity.errors import PacketError
from konnectivity.tunnel.budget import Budget, TunnelLimits
from konnectivity.tunnel.identifiers import Identifiers
from konnectivity.tunnel.intake import Intake, Throttling
from konnectivity.tunnel.outbox import Lane, Link, Outbox
from konnectivity.tunnel.reason import Failure, Reason, Refusal
from konnectivity.tunnel.server import ServerTunnel
from konnectivity.wire import packet
from konnectivity.wire.grpc import Oversized
from konnectivity.wire.packet import Packet

LEAVING: Final = 4096
"""Closed tunnels whose CLOSE_RSP is awaited; beyond, the agent is taken not to answer."""

GIVEN_UP: Final = 4096
"""Given up dials that are remembered, so that a late answer to one is not taken for misuse."""

BUSY: Final = (
    "too many dials pending",
    "limit of tunnels",
    "too many open files",
    "the agent is stopping",
)
"""What agents say, ours and stock ones, that have no room for a dial that others may have."""


class AgentLink(Link, Protocol):
    """The agent's stream and the connection below, as the shell offers them."""

    @property
    def silence(self) -> float | None:
        """Seconds for which the connection owes a sign of life; None: it owes none."""

    def probe(self) -> None:
        """Ask for one, unless it is owed."""

    def give_up(self, cause: str) -> None:
        """End the connection now; `PacketBackend.lost` follows."""


class PacketBackend:
    """One agent stream at the server. `credit` says whether the agent speaks CREDIT."""

    def __init__(
        self,
        link: AgentLink,
        *,
        agent_id: str,
        credit: bool,
        limits: TunnelLimits,
        budget: Budget,
        identifiers: Identifiers | None = None,
        throttle: Throttling | None = None,
    ) -> None:
        self.agent_id = agent_id
        self.identifiers = identifiers or Identifiers()
        self.draining = False
        self.parallel = 1
        self.pending: dict[int, ServerTunnel] = {}
        self.tunnels: dict[int, ServerTunnel] = {}
        """Open ones and those whose end is under way, by connectID."""
        self.given_up: dict[int, None] = {}
        """Dials that nobody waits for any more, and that may still be answered, oldest first."""
        self.received = packet.counts()
        """Packets received, by type."""
        self.unrecognized = 0
        """Answers to dials that nobody waits for."""
        self.outbox = Outbox(link)
        self._link = link
        self._credit = credit
        self._limits = limits
        self._budget = budget
        self._throttle = throttle
        self._leaving: deque[int] = deque()

    # Backend (carrier.py)

    @property
    def load(self) -> int:
        """Tunnels and dials under way."""
        return len(self.tunnels) + len(self.pending)

    @property
    def silence(self) -> float | None:
        """Seconds for which a sign of life has been awaited; None: none is."""
        return self._link.silence

    @property
    def waiting(self) -> ServerTunnel | None:
        """The dial that has waited longest for its answer."""
        return next(iter(self.pending.values()), None)

    def probe(self) -> None:
        """Ask for a sign of life, unless one is awaited."""
        self._link.probe()

    def give_up(self, cause: str) -> None:
        """End the connection of an agent that does not answer (W53).

        One that carries tunnels is left to HTTP/2's keepalive, which waits longer: what TCP may
        still repair is not cut. Only its dials go to others, where there are others.
        """
        if not self.tunnels:
            self._link.give_up(cause)
        else:
            for tunnel in list(self.pending.values()):
                tunnel.move()

    def dial(self, tunnel: ServerTunnel) -> None:
        """Send DIAL_REQ; a `random` already under way is refused, not replaced."""
        if len(self.pending) >= self._limits.pending_dials:
            text = f"too many dials pending at agent {self.agent_id}"
            tunnel.refused(Refusal(Failure.LIMIT, text, by_agent=True))
        elif tunnel.random in self.pending:
            tunnel.refused(Refusal(Failure.DUPLICATE, "a dial with this id is pending already"))
        else:
            self.pending[tunnel.random] = tunnel
            self.outbox.control(
                Packet(
                    packet.DIAL_REQ,
                    protocol=tunnel.protocol,
                    address=tunnel.address,
                    random=tunnel.random,
                )
            )

    def cancel(self, tunnel: ServerTunnel) -> None:
        """Forget a dial and tell the agent (W23); a late success is answered with CLOSE_REQ."""
        if self.pending.get(tunnel.random) is tunnel:
            del self.pending[tunnel.random]
            self.given_up[tunnel.random] = None
            if len(self.given_up) > GIVEN_UP:
                del self.given_up[next(iter(self.given_up))]
            self.outbox.control(Packet(packet.DIAL_CLS, random=tunnel.random))

    # Way (carrier.py)

    def send(self, tunnel: ServerTunnel, data: bytes) -> bool:
        """DATA packets of a bounded size."""
        lane, size = tunnel.lane, self._limits.packet
        if not isinstance(lane, Lane):
            return True
        if len(data) <= size:
            return self.outbox.data(lane, data)
        go_on = True
        for at in range(0, len(data), size):
            go_on = self.outbox.data(lane, data[at : at + size])
        return go_on

    def end_sending(self, tunnel: ServerTunnel) -> bool:
        """No packet says it (W2)."""
        return False

    def close(self, tunnel: ServerTunnel) -> None:
        """CLOSE_REQ behind the tunnel's data."""
        if isinstance(tunnel.lane, Lane) and self.tunnels.get(tunnel.connect_id) is tunnel:
            item = Packet(packet.CLOSE_REQ, connect_id=tunnel.connect_id)
            self.outbox.finish(tunnel.lane, item)

    def abandon(self, tunnel: ServerTunnel) -> None:
        """CLOSE_REQ unless it is on its way; the entry stays, as a drain for late DATA."""
        connect_id = tunnel.connect_id
        if self.tunnels.get(connect_id) is not tunnel:
            return
        if isinstance(tunnel.lane, Lane) and not tunnel.lane.closing:
            self.close(tunnel)
        self._leaving.append(connect_id)
        if len(self._leaving) > LEAVING:
            self.tunnels.pop(self._leaving.popleft(), None)

    def cut(self, tunnel: ServerTunnel) -> None:
        """CLOSE_REQ now: the endpoint has not taken the tunnel's last bytes in time."""
        if isinstance(tunnel.lane, Lane) and self.tunnels.get(tunnel.connect_id) is tunnel:
            self.outbox.cut(tunnel.lane)

    # From the agent

    def message(self, message: memoryview | Oversized) -> None:
        """One message of the agent stream.

        Raises:
            PacketError: it is no packet; the stream cannot be trusted further.
        """
        if isinstance(message, Oversized):
            self._oversized(message)
            return
        hot = packet.peek_data(message)
        if hot is not None:
            connect_id, start = hot
            self.received[packet.DATA] += 1
            tunnel = self.tunnels.get(connect_id)
            if tunnel is None:
                self._unknown(connect_id)
            else:
                tunnel.received(bytes(message[start:]))
            return
        self._packet(packet.decode(message))

    def _packet(self, item: Packet) -> None:
        kind = item.type if item.type in packet.NAMES else packet.UNKNOWN
        self.received[kind] += 1
        match item.type:
            case packet.DATA:
                tunnel = self.tunnels.get(item.connect_id)
                if tunnel is None:
                    self._unknown(item.connect_id)
                elif item.data:  # empty DATA reads as end of file at konnectivity-client (W5)
                    tunnel.received(item.data)
            case packet.DIAL_RSP:
                self._dial_response(item)
            case packet.CLOSE_RSP:
                tunnel = self.tunnels.pop(item.connect_id, None)
                if tunnel is not None:
                    tunnel.ended(Reason.ENDPOINT_CLOSE, item.error)
            case packet.DIAL_CLS:
                pending = self.pending.pop(item.random, None)
                if pending is not None:
                    text = "the agent closed the dial"
                    pending.refused(
                        Refusal(Failure.BACKEND_CLOSE, text, by_packet=True, by_agent=True)
                    )
            case packet.DRAIN:
                self.draining = True
            case packet.CREDIT if self._credit:
                tunnel = self.tunnels.get(item.connect_id)
                if tunnel is not None and isinstance(tunnel.lane, Lane):
                    self.outbox.grant(tunnel.lane, item.size)
            case _:
                pass  # upstream ignores what an agent has no business to send

    def _dial_response(self, item: Packet) -> None:
        tunnel = self.pending.pop(item.random, None)
        if tunnel is None:
            self.unrecognized += 1
            if item.connect_id:
                self.outbox.control(Packet(packet.CLOSE_REQ, connect_id=item.connect_id))
        elif item.error:
            busy = any(text in item.error for text in BUSY)
            tunnel.refused(Refusal(Failure.ERROR_RESPONSE, item.error, by_agent=busy))
        elif item.connect_id == 0 or item.connect_id in self.tunnels:
            self.refuse_id(tunnel, item.connect_id)
        else:
            self._open(tunnel, item.connect_id)

    def refuse_id(self, tunnel: ServerTunnel, connect_id: int) -> None:
        """The agent gave two tunnels the same number."""
        text = f"agent answered the dial with connectID {connect_id}, which is not free"
        tunnel.refused(Refusal(Failure.ERROR_RESPONSE, text))

    def _open(self, tunnel: ServerTunnel, connect_id: int) -> None:
        frontend = tunnel.frontend
        if frontend is None:  # left without `cancel`; cannot happen, but must not leak (W21)
            self.outbox.control(Packet(packet.CLOSE_REQ, connect_id=connect_id))
            return

        def grant(size: int) -> None:
            self.outbox.control(Packet(packet.CREDIT, connect_id=connect_id, size=size))

        intake = Intake(
            frontend,
            limits=self._limits,
            budget=self._budget,
            grant=grant if self._credit else None,
            tunnel=tunnel,
            throttle=self._throttle,
        )
        credit = self._limits.credit if self._credit else None
        self.tunnels[connect_id] = tunnel
        tunnel.opened(connect_id, intake, Lane(connect_id, credit, tunnel.resume), self)

    def _unknown(self, connect_id: int) -> None:
        if connect_id:
            self.outbox.control(Packet(packet.CLOSE_REQ, connect_id=connect_id))

    def _oversized(self, message: Oversized) -> None:
        connect_id = packet.peek_tunnel(message.head)
        tunnel = self.tunnels.get(connect_id) if connect_id else None
        if tunnel is None:
            raise PacketError(f"a packet of {message.size} bytes that belongs to no tunnel")
        tunnel.fail(Reason.VIOLATION, f"a packet of {message.size} bytes is too large")

    def shut_down(self) -> None:
        """This process is stopping: end all dials and tunnels, and tell both sides."""
        for tunnel in (*self.pending.values(), *self.tunnels.values()):
            tunnel.shut_down()

    def lost(self) -> None:
        """The agent stream is over: end all its dials and tunnels, and only these (W22)."""
        pending, self.pending = self.pending, {}
        tunnels, self.tunnels = self.tunnels, {}
        for tunnel in pending.values():
            tunnel.ended(Reason.AGENT_LOST, "context canceled")
        for tunnel in tunnels.values():
            tunnel.ended(Reason.AGENT_LOST, "")
            if tunnel.way is not None:
                tunnel.way.abandon(tunnel)
