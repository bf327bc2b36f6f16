"""What a tunnel on a stream of its own does alike at both ends: sending, and leaving the tables.

`AgentStream` and `ServerStream` are made of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from konnectivity.wire import packet

if TYPE_CHECKING:
    from konnectivity.tunnel.carrier import Channel
    from konnectivity.tunnel.outbox import Outbox


class Numbered(Protocol):
    """A tunnel, by the number that its agent gave it."""

    connect_id: int


T = TypeVar("T", bound=Numbered)


class Tables(Protocol[T]):
    """What all tunnels of one link share."""

    outbox: Outbox
    received: dict[int, int]
    tunnels: dict[int, T]


class StreamLane(Generic[T]):
    """The sending half of one tunnel: its `Lane`."""

    __slots__ = ("_channel", "_tables", "_tunnel", "bytes", "paused")

    def __init__(self, tables: Tables[T], channel: Channel, tunnel: T) -> None:
        self.bytes = 0
        self.paused = False
        self._tables = tables
        self._channel = channel
        self._tunnel: T | None = tunnel

    @property
    def waiting(self) -> int:
        """Bytes that wait for the peer's window."""
        return self._channel.backlog

    def detach(self) -> None:
        """Whose bytes these are is gone."""
        self.paused = False

    def send(self, tunnel: T, data: bytes | memoryview) -> bool:
        """DATA frames, when they may go."""
        self.bytes += len(data)
        outbox = self._tables.outbox
        outbox.sent[packet.DATA] += 1
        if self._channel.send(data):
            return True
        if not self.paused:
            self.paused = True
            outbox.pauses += 1
        return False

    def end_sending(self, tunnel: T) -> bool:
        """END_STREAM."""
        self._channel.end()
        return True

    def _forget(self) -> None:
        """It is over, and all is sent: leave no cycle for the collector."""
        tunnel, self._tunnel = self._tunnel, None
        self._channel.handler = None
        if tunnel is not None and self._tables.tunnels.get(tunnel.connect_id) is tunnel:
            del self._tables.tunnels[tunnel.connect_id]
