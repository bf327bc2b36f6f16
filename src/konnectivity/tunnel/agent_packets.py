"""The packet carrier at the agent: all tunnels of one server on one gRPC stream.

Nothing here waits: a dial runs in the shell, an endpoint that does not read fills its own intake,
and the loop goes on with the next packet (W7).
"""

from __future__ import annotations

from typing import Final, Protocol

from konnectivity.errors import PacketError
from konnectivity.tunnel.agent import AgentTunnel
from konnectivity.tunnel.agent_streams import OpenChannel, open_stream
from konnectivity.tunnel.budget import Budget, TunnelLimits
from konnectivity.tunnel.intake import Intake, Throttling
from konnectivity.tunnel.outbox import Lane, Link, Outbox
from konnectivity.tunnel.reason import Reason
from konnectivity.wire import packet
from konnectivity.wire.grpc import Oversized
from konnectivity.wire.packet import Packet

# What CLOSE_RSP says when it is not the plain end that upstream always reports (W12).
_ERRORS: Final = {
    Reason.OVERFLOW: "endpoint reads too slowly",
    Reason.VIOLATION: "packet too large",
}


class EndpointDialer(Protocol):
    """The shell's part of a dial."""

    def dial(self, tunnel: AgentTunnel) -> None:
        """Reach `tunnel.address`, then call `tunnel.connected` or `tunnel.failed`."""


class PacketLink:
    """One server stream at the agent. `credit` says whether the server speaks CREDIT.

    With `open_channel`, tunnels get streams of their own as long as the connection takes them.
    """

    def __init__(
        self,
        link: Link,
        dialer: EndpointDialer,
        *,
        credit: bool,
        limits: TunnelLimits,
        budget: Budget,
        throttle: Throttling | None = None,
        open_channel: OpenChannel | None = None,
    ) -> None:
        self.outbox = Outbox(link)
        self.pending: dict[int, AgentTunnel] = {}
        """Dials under way, by `random`."""
        self.tunnels: dict[int, AgentTunnel] = {}
        """Open tunnels, by connectID."""
        self.received = packet.counts()
        """Packets received, by type."""
        self._dialer = dialer
        self._credit = credit
        self._limits = limits
        self._budget = budget
        self._throttle = throttle
        self._open_channel = open_channel
        self._last_id = 0
        self._stopping = False

    # AgentCarrier (carrier.py)

    def opened(self, tunnel: AgentTunnel) -> None:
        """Enter the tunnel, then say so: DATA may follow the answer at once."""
        self._forget_dial(tunnel)
        self.tunnels[tunnel.connect_id] = tunnel
        stream = None
        if self._open_channel is not None:
            stream = open_stream(self, tunnel, self._open_channel)
        if stream is None or tunnel.endpoint is None:
            self._open_on_packets(tunnel)
            return
        self.outbox.sent[packet.DIAL_RSP] += 1
        tunnel.way = tunnel.lane = stream
        tunnel.intake = Intake(
            tunnel.endpoint,
            limits=self._limits,
            budget=self._budget,
            grant=stream.consume,
            tunnel=tunnel,
            streamed=True,
        )

    def _open_on_packets(self, tunnel: AgentTunnel) -> None:
        connect_id = tunnel.connect_id

        def grant(size: int) -> None:
            self.outbox.control(Packet(packet.CREDIT, connect_id=connect_id, size=size))

        if tunnel.endpoint is not None:
            tunnel.intake = Intake(
                tunnel.endpoint,
                limits=self._limits,
                budget=self._budget,
                grant=grant if self._credit else None,
                tunnel=tunnel,
                throttle=self._throttle,
            )
        credit = self._limits.credit if self._credit else None
        tunnel.lane = Lane(connect_id, credit, tunnel.resume)
        self.outbox.control(
            Packet(packet.DIAL_RSP, random=tunnel.random, connect_id=tunnel.connect_id)
        )

    def refused(self, tunnel: AgentTunnel, text: str) -> None:
        """Answer a dial with its error."""
        self._forget_dial(tunnel)
        self.outbox.control(Packet(packet.DIAL_RSP, random=tunnel.random, error=text))

    def send(self, tunnel: AgentTunnel, data: memoryview) -> bool:
        """DATA packets of a bounded size."""
        lane, size = tunnel.lane, self._limits.packet
        if not isinstance(lane, Lane):
            return True
        go_on = True
        for at in range(0, len(data), size):
            go_on = self.outbox.data(lane, data[at : at + size])
        return go_on

    def end_sending(self, tunnel: AgentTunnel) -> bool:
        """No packet says it (W2)."""
        return False

    def ended(self, tunnel: AgentTunnel, reason: Reason) -> None:
        """CLOSE_RSP behind the tunnel's data; the entry goes when it is sent."""
        if not isinstance(tunnel.lane, Lane):
            return
        item = Packet(packet.CLOSE_RSP, connect_id=tunnel.connect_id, error=_ERRORS.get(reason, ""))
        self.outbox.finish(tunnel.lane, item, lambda: self._forget(tunnel))

    def _forget(self, tunnel: AgentTunnel) -> None:
        self.tunnels.pop(tunnel.connect_id, None)

    def _forget_dial(self, tunnel: AgentTunnel) -> None:
        if self.pending.get(tunnel.random) is tunnel:
            del self.pending[tunnel.random]

    # From the server

    def message(self, message: memoryview | Oversized) -> None:
        """One message of the server's stream.

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
                self._unknown(connect_id, "unrecognized connectID")
            else:
                tunnel.received(bytes(message[start:]))
            return
        self._packet(packet.decode(message))

    def _packet(self, item: Packet) -> None:
        kind = item.type if item.type in packet.NAMES else packet.UNKNOWN
        self.received[kind] += 1
        match item.type:
            case packet.DIAL_REQ:
                self._dial(item)
            case packet.DATA:
                tunnel = self.tunnels.get(item.connect_id)
                if tunnel is None:
                    self._unknown(item.connect_id, "unrecognized connectID")
                elif item.data:
                    tunnel.received(item.data)
            case packet.CLOSE_REQ:
                tunnel = self.tunnels.get(item.connect_id)
                if tunnel is None:
                    error = "Unknown connectID"
                    self.outbox.control(
                        Packet(packet.CLOSE_RSP, connect_id=item.connect_id, error=error)
                    )
                else:
                    if isinstance(tunnel.lane, Lane):
                        self.outbox.waive(tunnel.lane)
                    tunnel.close()
            case packet.DIAL_CLS:  # upstream ignores it and dials on (W23)
                cancelled = self.pending.pop(item.random, None)
                if cancelled is not None:
                    cancelled.lost(Reason.FRONTEND_CLOSE)
            case packet.CREDIT if self._credit:
                tunnel = self.tunnels.get(item.connect_id)
                if tunnel is not None and isinstance(tunnel.lane, Lane):
                    self.outbox.grant(tunnel.lane, item.size)
            case _:
                pass  # upstream ignores what a server has no business to send

    def _dial(self, item: Packet) -> None:
        self._last_id += 1  # for failed dials too, as upstream counts
        if len(self.pending) >= self._limits.pending_dials or item.random in self.pending:
            busy = item.random not in self.pending
            error = "too many dials pending" if busy else "a dial with this id is pending already"
            self.outbox.control(Packet(packet.DIAL_RSP, random=item.random, error=error))
            return
        tunnel = AgentTunnel(
            self,
            connect_id=self._last_id,
            random=item.random,
            protocol=item.protocol,
            address=item.address,
        )
        self.pending[item.random] = tunnel
        if self._stopping:
            tunnel.shut_down()
        else:
            self._dialer.dial(tunnel)

    def _unknown(self, connect_id: int, error: str) -> None:
        if connect_id:
            self.outbox.control(Packet(packet.CLOSE_RSP, connect_id=connect_id, error=error))

    def _oversized(self, message: Oversized) -> None:
        connect_id = packet.peek_tunnel(message.head)
        tunnel = self.tunnels.get(connect_id) if connect_id else None
        if tunnel is None:
            raise PacketError(f"a packet of {message.size} bytes that belongs to no tunnel")
        tunnel.fail(Reason.VIOLATION)

    def drain(self) -> None:
        """Tell the server to prefer other agents."""
        self.outbox.control(Packet(packet.DRAIN))

    def shut_down(self) -> None:
        """This process is stopping: answer all dials, also those to come, and end all tunnels."""
        self._stopping = True
        for tunnel in (*self.pending.values(), *self.tunnels.values()):
            tunnel.shut_down()

    def lost(self) -> None:
        """The stream is over: cancel its dials, finish its endpoints."""
        pending, self.pending = self.pending, {}
        tunnels, self.tunnels = self.tunnels, {}
        for tunnel in (*pending.values(), *tunnels.values()):
            tunnel.lost()
