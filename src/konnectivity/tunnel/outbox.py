"""The sending side of one agent stream, shared by many tunnels.

Control packets go first, then tunnels with little to say (a keystroke does not wait behind a
gigabyte), then the others in turn, one chunk each. A tunnel that may not send keeps its chunks in
its own `Lane` and its source is told to pause; nobody else waits for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from konnectivity.wire import packet
from konnectivity.wire.packet import DATA

SMALL: Final = 2048
"""Chunks up to this many bytes overtake larger ones of other tunnels."""
PAUSE_AT: Final = 128 << 10
"""Bytes waiting in a lane at which its source is paused."""


class Link(Protocol):
    """The gRPC stream below, as the shell offers it."""

    @property
    def full(self) -> bool:
        """Whether to hold data back; `Outbox.flow` is called once there is room again."""

    def send(self, message: bytes) -> None:
        """Queue one message, its gRPC prefix included. Never blocks."""


class Lane:
    """What one tunnel has waiting for the link.

    `credit` is what the peer still takes, in bytes, or None where the peer knows no credit. It may
    go below zero by the rest of one chunk. `resume` restarts the paused source.
    """

    __slots__ = (
        "bytes",
        "chunks",
        "closing",
        "credit",
        "paused",
        "prefix",
        "queued",
        "resume",
        "tail",
        "waiting",
    )

    def __init__(self, connect_id: int, credit: int | None, resume: Callable[[], None]) -> None:
        self.prefix = packet.data_prefix(connect_id)
        self.credit = credit
        self.resume = resume
        self.bytes = 0
        """Taken from the source so far."""
        self.chunks: deque[bytes] = deque()
        self.waiting = 0
        self.tail: tuple[bytes, Callable[[], None] | None] | None = None
        self.closing = False
        """`finish` was called."""
        self.queued = False
        self.paused = False

    def detach(self) -> None:
        """The source is gone: let go of it, so that its memory need not wait for the collector."""
        self.resume = _nothing


def _nothing() -> None:
    """Stands for a source that is gone."""


class Outbox:
    """Puts packets of all tunnels onto one link."""

    __slots__ = ("_large", "_link", "_small", "pauses", "sent")

    def __init__(self, link: Link) -> None:
        self._link = link
        self._small: deque[Lane] = deque()
        self._large: deque[Lane] = deque()
        self.sent = packet.counts()
        """Packets sent, by type."""
        self.pauses = 0
        """How often a source was told to pause."""

    def control(self, item: packet.Packet) -> None:
        """Send a packet that belongs before all waiting data."""
        self.sent[item.type] += 1
        self._link.send(_framed(item))

    def data(self, lane: Lane, data: bytes | memoryview) -> bool:
        """Send `data`, not empty, in its tunnel's order. False: pause until `lane.resume`.

        A view is copied, so its buffer may be used again.
        """
        size = len(data)
        lane.bytes += size
        if not lane.chunks and not self._link.full and (lane.credit is None or lane.credit > 0):
            self._send(lane, data, size)
            return True
        lane.chunks.append(bytes(data))
        lane.waiting += size
        self._enqueue(lane)
        if lane.waiting < PAUSE_AT:
            return True
        if not lane.paused:
            lane.paused = True
            self.pauses += 1
        return False

    def finish(
        self, lane: Lane, item: packet.Packet, sent: Callable[[], None] | None = None
    ) -> None:
        """Send `item` behind all data of its tunnel, then call `sent`.

        Credit counts as before: the reader at the other end goes on granting while it reads.
        """
        lane.closing = True
        if lane.chunks:
            lane.tail = (_framed(item), sent)
            self.sent[item.type] += 1
            return
        self.control(item)
        if sent is not None:
            sent()

    def grant(self, lane: Lane, size: int) -> None:
        """The peer took `size` bytes of this tunnel."""
        if lane.credit is not None and size > 0:
            lane.credit += size
            self._enqueue(lane)
            self.flow()

    def waive(self, lane: Lane) -> None:
        """The peer asked for the end and reads no more: what waits needs no credit."""
        lane.credit = None
        self._enqueue(lane)
        self.flow()

    def cut(self, lane: Lane) -> None:
        """Drop what waits; the end of the tunnel, if it waits too, goes out now."""
        lane.chunks.clear()
        lane.waiting = 0
        self._send_tail(lane)

    def flow(self) -> None:
        """Send what waits, as far as the link has room."""
        link = self._link
        while not link.full:
            if self._small:
                lane = self._small.popleft()
            elif self._large:
                lane = self._large.popleft()
            else:
                return
            lane.queued = False
            self._take_turn(lane)

    def _take_turn(self, lane: Lane) -> None:
        if lane.chunks:
            data = lane.chunks.popleft()
            size = len(data)
            lane.waiting -= size
            self._send(lane, data, size)
        if lane.chunks:
            self._enqueue(lane)
        elif lane.tail is not None:
            self._send_tail(lane)
        elif lane.paused:
            lane.paused = False
            lane.resume()

    def _send_tail(self, lane: Lane) -> None:
        if lane.tail is not None:
            (message, sent), lane.tail = lane.tail, None
            self._link.send(message)
            if sent is not None:
                sent()

    def _enqueue(self, lane: Lane) -> None:
        if lane.queued or not lane.chunks or (lane.credit is not None and lane.credit <= 0):
            return
        lane.queued = True
        (self._small if lane.waiting <= SMALL else self._large).append(lane)

    def _send(self, lane: Lane, data: bytes | memoryview, size: int) -> None:
        if lane.credit is not None:
            lane.credit -= size
        self.sent[DATA] += 1
        self._link.send(b"".join((packet.data_head(lane.prefix, size), data)))


def _framed(item: packet.Packet) -> bytes:
    payload = packet.encode(item)
    return b"\x00" + len(payload).to_bytes(4, "big") + payload
