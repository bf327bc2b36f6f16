"""One HTTP/2 stream that carries raw bytes on an `H2Protocol`: a tunnel's, in either role.

Like a `Call` it never blocks and says when it is full; unlike one it knows no messages, and its two
directions end one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from konnectivity.errors import StreamFault
from konnectivity.wire import frames, tunnel_stream

if TYPE_CHECKING:
    from konnectivity.net.h2 import H2Protocol
    from konnectivity.tunnel.carrier import ChannelHandler
    from konnectivity.wire.events import DataReceived, HeadersReceived


class Channel:
    """One stream. Without a `handler` what comes in is dropped."""

    __slots__ = ("_answered", "_h2", "handler", "id")

    def __init__(self, h2: H2Protocol, stream_id: int) -> None:
        self.id = stream_id
        self.handler: ChannelHandler | None = None
        self._h2 = h2
        self._answered = h2.core.client

    # Sending

    @property
    def backlog(self) -> int:
        """Bytes that wait to be sent."""
        stream = self._h2.core.streams.get(self.id)
        return stream.backlog if stream is not None else 0

    def send(self, data: bytes | memoryview) -> bool:
        """Queue bytes, not empty; a view is copied. False: wait for `writable`."""
        if not self._answered:
            self._answer()
        h2 = self._h2
        try:
            go_on = h2.core.send_chunk(self.id, data)
        except StreamFault:
            return True  # the peer was faster in ending it, and says so
        if not h2.flush_due:
            h2.schedule_flush()
        return go_on

    def _answer(self) -> None:
        """Say 200 in front of the first byte or the end: not before, for that takes a write."""
        self._answered = True
        if self.id in self._h2.core.streams:
            self._h2.core.send_block(self.id, tunnel_stream.RESPONSE)

    def end(self) -> bool:
        """Send END_STREAM behind all data; False: `writable` tells when it is sent."""
        if not self._answered:
            self._answer()
        core = self._h2.core
        if self.id not in core.streams:
            return True
        try:
            return core.end_stream(self.id)
        except StreamFault:
            return True
        finally:
            self._left()

    def leave(self, code: int) -> bool:
        """Reset the stream behind all data; False: as `end`."""
        core = self._h2.core
        if self.id not in core.streams:
            return True
        sent = core.leave_stream(self.id, code)
        self._left()
        return sent

    def abort(self, code: int) -> None:
        """Reset the stream now, and drop what waits."""
        self.handler = None
        core = self._h2.core
        if self.id in core.streams:
            core.reset_stream(self.id, code)
            self._left()

    def expect(self) -> None:
        """It was asked for, so that its reset by the peer is no flood; and let its window grow."""
        h2 = self._h2
        h2.core.streams[self.id].expected = True
        h2.core.let_grow(self.id, h2.window_pool)

    def refuse(self) -> None:
        """Nobody asked for it. Too many of these are a flood."""
        h2 = self._h2
        self.abort(tunnel_stream.UNWANTED)
        if not h2.core.resets.take(h2.core.now):
            h2.give_up("too many streams for dials that nobody made")

    def consume(self, size: int) -> None:
        """`size` received bytes are dealt with: the peer may send as many more."""
        h2 = self._h2
        h2.core.consume(self.id, size)
        if not h2.flush_due:
            h2.schedule_flush()

    def _left(self) -> None:
        """What was called for has changed the stream's state.

        A stream that was gone before is left to the event that says so.
        """
        h2 = self._h2
        if self.id not in h2.core.streams:
            h2.calls.pop(self.id, None)
            h2.close_if_idle()
        h2.schedule_flush()

    # From the connection

    def data_received(self, event: DataReceived) -> None:
        """Pass content on; who takes it says `consume`."""
        padding = event.size - len(event.data)
        if self.handler is None:
            self._h2.core.consume(self.id, event.size)
            return
        if padding:
            self._h2.core.consume(self.id, padding)
        self.handler.received(event.data)

    def headers_received(self, event: HeadersReceived) -> None:
        """The server's 200 says nothing new; another status, or trailers, break the rules."""
        if not event.first or dict(event.headers).get(":status") != "200":
            self._h2.give_up("a tunnel's stream was answered with something other than 200")

    def half_closed(self) -> None:
        """END_STREAM came."""
        if self.handler is not None:
            self.handler.half_closed()

    def writable(self) -> None:
        """The connection took what was queued."""
        if self.id not in self._h2.core.streams:
            self._h2.calls.pop(self.id, None)
        if self.handler is not None:
            self.handler.writable()

    def was_reset(self, code: int, text: str) -> None:
        """The stream is gone."""
        handler, self.handler = self.handler, None
        if handler is not None:
            handler.was_reset(code, text)

    def lost(self, cause: str) -> None:
        """The connection is gone."""
        self.was_reset(frames.INTERNAL_ERROR, cause)
