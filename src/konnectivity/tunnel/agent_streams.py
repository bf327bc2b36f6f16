"""The stream carrier at the agent: each open tunnel on an HTTP/2 stream of its own.

Dials and their failures travel as packets, and `PacketLink` keeps the tables (`server_streams.py`
is the other end).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from konnectivity.errors import ConnectionFault
from konnectivity.tunnel.carrier import Channel
from konnectivity.tunnel.reason import Reason
from konnectivity.tunnel.stream_lane import StreamLane
from konnectivity.wire import packet, tunnel_stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from konnectivity.tunnel.agent import AgentTunnel
    from konnectivity.tunnel.agent_packets import PacketLink

_CODES: Final = {
    Reason.ENDPOINT_RESET: tunnel_stream.BROKEN,
    Reason.OVERFLOW: tunnel_stream.TOO_SLOW,
    Reason.SHUTDOWN: tunnel_stream.STOPPING,
}
# What the server's RST_STREAM says, where what it sent before is complete.
_REASONS: Final = {
    tunnel_stream.DONE: Reason.FRONTEND_CLOSE,
    tunnel_stream.TOO_SLOW: Reason.OVERFLOW,
    tunnel_stream.STOPPING: Reason.SHUTDOWN,
}


OpenChannel: TypeAlias = "Callable[[bytes], Channel]"
"""Opens a stream with an encoded header block, or raises `ConnectionFault`."""


def open_stream(
    link: PacketLink, tunnel: AgentTunnel, open_channel: OpenChannel
) -> AgentStream | None:
    """Answer a dial with a stream; None: the connection takes no more of them."""
    try:
        channel = open_channel(tunnel_stream.request_block(tunnel.random, tunnel.connect_id))
    except ConnectionFault:
        return None
    stream = channel.handler = AgentStream(link, channel, tunnel)
    return stream


class AgentStream(StreamLane["AgentTunnel"]):
    """One tunnel on its stream: its `AgentWay`, its `Lane`, and the channel's handler."""

    __slots__ = ("_over",)

    def __init__(self, link: PacketLink, channel: Channel, tunnel: AgentTunnel) -> None:
        super().__init__(link, channel, tunnel)
        self._over = False

    # AgentWay, as far as `StreamLane` is not

    def consume(self, size: int) -> None:
        """The endpoint took `size` bytes."""
        self._channel.consume(size)

    def ended(self, tunnel: AgentTunnel, reason: Reason) -> None:
        """RST_STREAM with the reason, behind all data."""
        self._tables.outbox.sent[packet.CLOSE_RSP] += 1
        self._over = True
        if self._channel.leave(_CODES.get(reason, tunnel_stream.DONE)):
            self._forget()

    # ChannelHandler (net/channel.py)

    def received(self, data: memoryview) -> None:
        """Bytes of the frontend."""
        self._tables.received[packet.DATA] += 1
        if self._over or self._tunnel is None:
            self._channel.consume(len(data))
        else:
            self._tunnel.received(data)

    def writable(self) -> None:
        """There is room again, or the end was sent."""
        if self._over or self._tunnel is None:
            if not self._channel.backlog:
                self._forget()
        elif self.paused:
            self.paused = False
            self._tunnel.resume()

    def half_closed(self) -> None:
        """The frontend sends no more."""
        if self._tunnel is not None:
            self._tunnel.frontend_ended()

    def was_reset(self, code: int, text: str) -> None:
        """The server ended the tunnel."""
        tunnel = self._tunnel
        self._tables.received[packet.CLOSE_REQ] += 1
        self._forget()
        if tunnel is None:
            return
        reason = _REASONS.get(code)
        if reason is not None:
            tunnel.close(reason)
        else:
            tunnel.fail(Reason.FRONTEND_CLOSE)
