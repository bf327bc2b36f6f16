"""The stream carrier at the server: each open tunnel on an HTTP/2 stream of its own.

Dials travel as packets, and `PacketBackend` keeps the tables. An agent of ours answers a dial by
opening a stream that names it; from then on the tunnel's bytes, its end and its flow control are
HTTP/2's (docs/stream-carrier.md).
"""

from __future__ import annotations

from typing import Final

from konnectivity.tunnel.budget import Budget, TunnelLimits
from konnectivity.tunnel.carrier import Channel
from konnectivity.tunnel.intake import Intake
from konnectivity.tunnel.reason import Reason
from konnectivity.tunnel.server import ServerTunnel
from konnectivity.tunnel.server_packets import PacketBackend
from konnectivity.tunnel.stream_lane import StreamLane
from konnectivity.wire import packet, tunnel_stream

# What our RST_STREAM says, when it is not that the frontend is done.
_CODES: Final = {
    Reason.OVERFLOW: tunnel_stream.TOO_SLOW,
    Reason.SHUTDOWN: tunnel_stream.STOPPING,
}
# What the agent's RST_STREAM says: the reason, and words for the frontend. They are few, because
# upstream's client makes an error of any (W12).
_ENDS: Final = {
    tunnel_stream.DONE: (Reason.ENDPOINT_CLOSE, ""),
    tunnel_stream.BROKEN: (Reason.ENDPOINT_RESET, ""),
    tunnel_stream.TOO_SLOW: (Reason.OVERFLOW, "endpoint reads too slowly"),
    tunnel_stream.STOPPING: (Reason.SHUTDOWN, ""),
}


class ServerStreams:
    """Opens tunnels on streams, for one agent."""

    def __init__(self, backend: PacketBackend, *, limits: TunnelLimits, budget: Budget) -> None:
        self._backend = backend
        self._limits = limits
        self._budget = budget

    def was_asked(self, dial_id: int) -> bool:
        """Whether there is such a dial, or was one that was given up."""
        return dial_id in self._backend.pending or dial_id in self._backend.given_up

    def opened(self, channel: Channel, dial_id: int, connect_id: int) -> ServerStream | None:
        """The agent reached an endpoint; None: nobody waits for it, the channel is not wanted."""
        backend = self._backend
        backend.given_up.pop(dial_id, None)
        tunnel = backend.pending.pop(dial_id, None)
        if tunnel is None or tunnel.frontend is None:
            backend.unrecognized += 1
            return None
        backend.received[packet.DIAL_RSP] += 1
        if connect_id == 0 or connect_id in backend.tunnels:
            backend.refuse_id(tunnel, connect_id)
            return None
        stream = ServerStream(backend, channel, tunnel)
        intake = Intake(
            tunnel.frontend,
            limits=self._limits,
            budget=self._budget,
            grant=channel.consume,
            tunnel=tunnel,
            streamed=True,
        )
        backend.tunnels[connect_id] = tunnel
        tunnel.opened(connect_id, intake, stream, stream)
        return stream


class ServerStream(StreamLane[ServerTunnel]):
    """One tunnel on its stream: its `Way`, its `Lane`, and the channel's handler."""

    __slots__ = ()

    # Way, as far as `StreamLane` is not

    def close(self, tunnel: ServerTunnel) -> None:
        """RST_STREAM; the agent has nothing to answer."""
        self.abandon(tunnel)
        tunnel.ended(Reason.FRONTEND_CLOSE, "")

    def abandon(self, tunnel: ServerTunnel) -> None:
        """The same, without a word to the tunnel."""
        self._tables.outbox.sent[packet.CLOSE_REQ] += 1
        self._tables.received[packet.CLOSE_RSP] += 1
        code = _CODES.get(tunnel.reason, tunnel_stream.DONE) if tunnel.reason else 0
        if self._channel.leave(code):
            self._forget()

    def cut(self, tunnel: ServerTunnel) -> None:
        """The endpoint has not taken the tunnel's last bytes in time."""
        self._channel.abort(tunnel_stream.UNWANTED)
        self._forget()

    # ChannelHandler (net/channel.py)

    def received(self, data: memoryview) -> None:
        """Bytes of the endpoint."""
        self._tables.received[packet.DATA] += 1
        tunnel = self._tunnel
        if tunnel is None or tunnel.frontend is None:
            self._channel.consume(len(data))
        else:
            tunnel.received(data)

    def writable(self) -> None:
        """There is room again, or the end was sent."""
        tunnel = self._tunnel
        if tunnel is None or tunnel.frontend is None:
            if not self._channel.backlog:
                self._forget()
        elif self.paused:
            self.paused = False
            tunnel.resume()

    def half_closed(self) -> None:
        """The endpoint sends no more."""
        if self._tunnel is not None:
            self._tunnel.endpoint_ended()

    def was_reset(self, code: int, text: str) -> None:
        """The agent ended the tunnel."""
        tunnel = self._tunnel
        self._forget()
        if tunnel is not None:
            reason, error = _ENDS.get(code, (Reason.AGENT_LOST, ""))
            tunnel.ended(reason, error)
