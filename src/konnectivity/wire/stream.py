"""One HTTP/2 stream: its two halves, its windows, and the bytes that wait for credit."""

from __future__ import annotations

from collections import deque

from konnectivity.wire.events import Headers
from konnectivity.wire.windows import ReceiveWindow


class Stream:
    """State of a stream that is not closed (RFC 9113, 5.1).

    `send_window` is the peer's credit in bytes and may be negative (6.9.2). `backlog` is the
    number of bytes queued here and not yet in a frame.
    """

    __slots__ = (
        "_pending",
        "backlog",
        "ending",
        "expected",
        "headers_received",
        "id",
        "local_closed",
        "queued",
        "receive_window",
        "remote_closed",
        "reported_full",
        "reset_code",
        "send_window",
        "trailers",
    )

    def __init__(self, stream_id: int, *, send_window: int, receive_window: int) -> None:
        self.id = stream_id
        self.send_window = send_window
        self.receive_window = ReceiveWindow(receive_window)
        self.headers_received = False
        self.local_closed = False
        self.remote_closed = False
        self.ending = False
        self.trailers: Headers | None = None
        self.reset_code: int | None = None
        """What to reset it with behind all data, in place of an end."""
        self.expected = False
        """Its owner had asked for it: a reset by the peer is no flood."""
        self.queued = False
        self.reported_full = False
        self.backlog = 0
        self._pending: deque[bytes | memoryview] | None = None  # a tenth of an idle tunnel's price

    def push(self, data: bytes | memoryview) -> None:
        """Queue `data` behind what waits already."""
        if self._pending is None:
            self._pending = deque()
        self._pending.append(data)
        self.backlog += len(data)

    def pull(self, size: int) -> list[bytes | memoryview]:
        """Take the next `size` bytes of the queue as pieces; `size` is at most `backlog`."""
        self.backlog -= size
        pieces: list[bytes | memoryview] = []
        pending = self._pending
        while size and pending:
            piece = pending[0]
            length = len(piece)
            if length <= size:
                pieces.append(pending.popleft())
                size -= length
            else:
                view = memoryview(piece)
                pieces.append(view[:size])
                pending[0] = view[size:]
                size = 0
        if not pending:
            self._pending = None
        return pieces

    def drop(self) -> None:
        """Forget all that waits."""
        self._pending = None
        self.backlog = 0
        self.trailers = None
        self.ending = False
