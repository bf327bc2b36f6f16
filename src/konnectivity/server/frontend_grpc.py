"""Frontend mode `grpc`: one `Proxy` call is one tunnel.

A call may use only the connectID its own dial got (W15) and dial only once (W17). The call stays
open after the tunnel until the frontend ends it, as upstream's clients expect.

Source: upstream `pkg/server/server.go`, `Proxy`.
"""

from __future__ import annotations

from konnectivity.errors import RpcError
from konnectivity.net.grpc import Call
from konnectivity.observe import logs
from konnectivity.server.exchange import Exchange
from konnectivity.server.first_bytes import FirstBytes
from konnectivity.tunnel.reason import Reason, Refusal
from konnectivity.tunnel.server import ServerTunnel, State
from konnectivity.wire import grpc, packet
from konnectivity.wire.events import Headers
from konnectivity.wire.grpc import Oversized
from konnectivity.wire.packet import DATA, Packet

log = logs.get(__name__)

MISMATCH = "mismatched connection IDs"


class GrpcFrontend:
    """One `Proxy` call. It is the call's handler and the tunnel's `Frontend`."""

    __slots__ = (
        "_call",
        "_dial_id",
        "_exchange",
        "_first",
        "_prefix",
        "_received",
        "_sent",
        "_tunnel",
        "_waiting",
        "slow",
    )

    mode = "grpc"

    def __init__(self, call: Call, exchange: Exchange) -> None:
        self.slow = False
        self._call = call
        self._exchange = exchange
        self._received = exchange.counters.packets_from_clients
        self._sent = exchange.counters.packets_to_clients
        self._waiting = 0.0
        self._tunnel: ServerTunnel | None = None
        self._dial_id: int | None = None
        self._prefix = b""
        self._first: FirstBytes | None = None
        exchange.counters.open_calls["Proxy"] += 1
        call.respond()

    # CallHandler (net/grpc.py)

    def headers(self, headers: Headers) -> None:
        """Not for servers."""

    def message(self, message: memoryview | Oversized) -> None:
        """One packet of the frontend."""
        if isinstance(message, Oversized):
            self._oversized(message)
            return
        hot = packet.peek_data(message)
        if hot is not None:
            connect_id, start = hot
            self._received[DATA] += 1
            self._data(connect_id, bytes(message[start:]))
            return
        item = packet.decode(message)
        self._received[item.type if item.type in packet.NAMES else packet.UNKNOWN] += 1
        match item.type:
            case packet.DATA:
                self._data(item.connect_id, item.data)
            case packet.DIAL_REQ:
                self._dial(item)
            case packet.CLOSE_REQ:
                self._close(item.connect_id)
            case packet.DIAL_CLS:
                self._cancel(item.random)
            case _:
                pass  # upstream ignores what a frontend has no business to send

    def writable(self) -> None:
        """The frontend took what waited."""
        self.slow = False
        self._wait_over()
        if self._tunnel is not None:
            self._tunnel.caught_up()

    def half_closed(self) -> None:
        """The frontend is done: a full tear-down, not a half-close of the tunnel."""
        self._leave()
        self._call.finish()

    def ended(self, error: RpcError | None) -> None:
        """The call is over."""
        counters, tunnel = self._exchange.counters, self._tunnel
        counters.open_calls["Proxy"] -= 1
        if error is not None:
            if tunnel is not None and tunnel.reason is Reason.OVERFLOW:
                counters.stream_error("to_client", error, "DATA")
            else:
                counters.stream_error("from_client", error)
        self._wait_over()
        self._leave()

    def _leave(self) -> None:
        if self._first is not None:
            self._first.drop()
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            tunnel.leave()

    # Packets

    def _dial(self, item: Packet) -> None:
        if self._dial_id is not None:
            text = "this stream has dialed already; open another stream for another tunnel"
            self._send(Packet(packet.DIAL_RSP, random=item.random, error=text))
            return
        self._dial_id = item.random
        self._tunnel = self._exchange.dial(
            self, address=item.address, protocol=item.protocol, dial_id=item.random
        )

    def _data(self, connect_id: int, data: bytes) -> None:
        tunnel = self._tunnel
        if tunnel is None:
            if self._dial_id is None:
                self._send_closed(connect_id, "backend not initialized")
        elif connect_id != tunnel.connect_id or not connect_id:
            if connect_id:
                self._mismatch(tunnel, connect_id)
        elif data:
            if self._first is not None and not self._first.open:
                self._first.let_pass()
            tunnel.send(data)

    def _mismatch(self, tunnel: ServerTunnel, connect_id: int) -> None:
        """Upstream closes both ids; ours closes only the one that this call owns (W15)."""
        log.summarised(
            "foreign id",
            "Frontend used a foreign connectID",
            connectionID=connect_id,
            own=tunnel.connect_id,
            address=tunnel.address,
        )
        self._send_closed(connect_id, MISMATCH)
        if tunnel.state is State.DIALING:
            self._tunnel = None
            tunnel.leave(Reason.VIOLATION)
        else:
            tunnel.fail(Reason.VIOLATION, MISMATCH)

    def _close(self, connect_id: int) -> None:
        tunnel = self._tunnel
        if self._dial_id is None:
            self._send_closed(connect_id, "backend uninitialized")
        elif tunnel is None or tunnel.state is State.CLOSED:
            lost = tunnel is not None and tunnel.reason is Reason.AGENT_LOST
            if lost and tunnel is not None and connect_id == tunnel.connect_id:
                self._send_closed(connect_id, "CLOSE_REQ to backend failed")
        elif connect_id != tunnel.connect_id:
            self._mismatch(tunnel, connect_id)
        else:
            if self._first is not None:
                self._first.drop()
            tunnel.close()

    def _cancel(self, dial_id: int) -> None:
        tunnel = self._tunnel
        if tunnel is not None and tunnel.random == dial_id and tunnel.state is State.DIALING:
            self._tunnel = None
            tunnel.leave()

    def _oversized(self, message: Oversized) -> None:
        """End this tunnel with a clear error; other calls of the connection go on (W13)."""
        text = f"a packet of {message.size} bytes, the limit is {grpc.MAX_MESSAGE}"
        log.summarised("oversized", "Frontend sent an oversized packet", bytes=message.size)
        self._leave()
        self._call.finish(grpc.RESOURCE_EXHAUSTED, text)

    # Caller (exchange.py), Frontend (tunnel/server.py)

    @property
    def peer(self) -> str:
        """The address of the call's connection."""
        return self._call.peer

    @property
    def unsent(self) -> int:
        """Bytes the frontend has not taken."""
        return self._call.unsent + (self._first.held if self._first is not None else 0)

    def opened(self, connect_id: int) -> None:
        """Tell the frontend; hold the endpoint's first bytes a moment (W4)."""
        self._prefix = packet.data_prefix(connect_id)
        self._send(Packet(packet.DIAL_RSP, random=self._dial_id or 0, connect_id=connect_id))
        self._first = FirstBytes(self._release)

    def write(self, data: bytes | memoryview) -> None:
        """Bytes of the endpoint."""
        first = self._first
        if first is None or first.open:
            self._write(data)
        else:
            self.slow = True  # what is held back here must not earn the agent new credit
            first.hold(data)

    def _release(self, held: bytes) -> None:
        self.slow = False
        size = self._exchange.limits.packet  # held bytes may be many, a message may not
        for at in range(0, len(held), size):
            self._write(held[at : at + size])
        if not self.slow and self._tunnel is not None:
            self._tunnel.caught_up()

    def _write(self, data: bytes | memoryview) -> None:
        call = self._call
        self._sent[DATA] += 1
        call.send(packet.data_head(self._prefix, len(data)) + data)
        if call.full:
            self._wait()

    def _wait(self) -> None:
        self.slow = True
        if not self._waiting:
            self._waiting = self._exchange.counters.waits.begin()

    def _wait_over(self) -> None:
        if self._waiting:
            self._exchange.counters.waits.end(self._waiting)
            self._waiting = 0.0

    def refused(self, refusal: Refusal) -> None:
        """DIAL_RSP with the error, or the agent's DIAL_CLS passed on."""
        if refusal.by_packet:
            self._send(Packet(packet.DIAL_CLS, random=self._dial_id or 0))
        else:
            self._send(Packet(packet.DIAL_RSP, random=self._dial_id or 0, error=refusal.text))

    def closed(self, reason: Reason, error: str) -> None:
        """CLOSE_RSP behind all bytes; for bytes that it does not read, a status instead."""
        if reason is Reason.OVERFLOW:
            self._call.abandon(grpc.RESOURCE_EXHAUSTED, error)
            return
        tunnel = self._tunnel
        if tunnel is not None and self._first is not None:
            self._first.finish(lambda: self._send_closed(tunnel.connect_id, error))

    def end_writing(self) -> bool:
        """No packet says it (W2)."""
        return False

    def pause_reading(self) -> None:
        """Withhold the call's flow-control credit."""
        self._call.pause_reading()

    def resume_reading(self) -> None:
        """Give it back."""
        self._call.resume_reading()

    def _send(self, item: Packet) -> None:
        self._sent[item.type] += 1
        self._call.send(grpc.message(packet.encode(item)))

    def _send_closed(self, connect_id: int, error: str) -> None:
        self._send(Packet(packet.CLOSE_RSP, connect_id=connect_id, error=error))
