"""One gRPC call on an `H2Protocol`, in either role: messages in, messages out, a status.

A `Call` is also the `Link` of the packet carrier: it never blocks and says when it is full.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from konnectivity.errors import PacketError, RpcError, StreamFault
from konnectivity.wire import frames, grpc
from konnectivity.wire.blocks import GRPC_RESPONSE
from konnectivity.wire.events import DataReceived, Headers, HeadersReceived
from konnectivity.wire.grpc import MessageReader, Oversized

if TYPE_CHECKING:
    import asyncio

    from konnectivity.net.channel import Channel
    from konnectivity.net.h2 import ChannelAcceptor, H2Protocol


MAX_BACKLOG: Final = 32 << 20
"""Bytes queued for one call at which its connection ends. Data stops far below, at `full`; this
bounds the answers that a peer makes us queue without reading them."""


# What a reset means to a call ("HTTP/2 error codes" in the description of gRPC over HTTP/2).
_RESET_STATUS: Final = {
    frames.NO_ERROR: grpc.CANCELLED,
    frames.CANCEL: grpc.CANCELLED,
    frames.REFUSED_STREAM: grpc.UNAVAILABLE,
    frames.ENHANCE_YOUR_CALM: grpc.RESOURCE_EXHAUSTED,
}


class CallHandler(Protocol):
    """What a call reports."""

    def headers(self, headers: Headers) -> None:
        """The server's response head (client role)."""

    def message(self, message: memoryview | Oversized) -> None:
        """One message. It looks into a buffer of the transport: copy what you keep.

        Raises:
            PacketError: the message makes no sense; the call ends with INTERNAL.
        """

    def writable(self) -> None:
        """The call is not full any more."""

    def half_closed(self) -> None:
        """The peer sends no more messages (server role)."""

    def ended(self, error: RpcError | None) -> None:
        """The call is over: None with status OK. Last of all reports."""


class Call:
    """One call. `headers` is the request's head (server role)."""

    __slots__ = (
        "_ended",
        "_h2",
        "_owed",
        "_reader",
        "_stopped",
        "full",
        "handler",
        "headers",
        "id",
    )

    def __init__(self, h2: H2Protocol, stream_id: int, headers: Headers) -> None:
        self.id = stream_id
        self.headers = headers
        self.handler: CallHandler | None = None
        self.full = False
        """Whether so much is queued that the sender should wait for `CallHandler.writable`."""
        self._h2 = h2
        self._reader = MessageReader()
        self._stopped = False
        self._owed = 0
        self._ended = False

    @property
    def path(self) -> str:
        """The method called, e.g. `/ProxyService/Proxy`."""
        return dict(self.headers).get(":path", "")

    @property
    def peer(self) -> str:
        """Address of the other end, for logs."""
        return self._h2.peer

    @property
    def transport(self) -> asyncio.Transport | None:
        """What the connection below runs on, for the peer's address and certificate."""
        return self._h2.transport

    def accept_channels(self, acceptor: ChannelAcceptor, most: int) -> bool:
        """Let the peer open so many streams for tunnels beside this call (server role).

        False: another call of the connection has promised that already.
        """
        h2 = self._h2
        if h2.acceptor is not None:
            return False
        h2.acceptor = acceptor
        h2.core.allow_streams(most)
        return True

    def open_channel(self, block: bytes) -> Channel:
        """As `H2Protocol.open_channel`."""
        return self._h2.open_channel(block)

    def widen(self, window: int) -> None:
        """Let the peer have `window` bytes of messages under way, if that is more than now."""
        core = self._h2.core
        stream = core.streams.get(self.id)
        if stream is not None and stream.receive_window.size < window:
            core.widen_stream(stream, window - stream.receive_window.size)
            self._h2.schedule_flush()

    def go_away(self) -> None:
        """Ask the peer for another connection; this call goes on."""
        self._h2.go_away()

    # Sending

    def send(self, message: bytes) -> None:
        """Queue one message, its five-byte prefix included. A call that is over drops it."""
        if self._ended:
            return
        h2 = self._h2
        try:
            if not h2.core.send_data(self.id, message):
                self.full = True
                if h2.core.streams[self.id].backlog > MAX_BACKLOG:
                    h2.give_up(f"the peer does not read: more than {MAX_BACKLOG} bytes wait for it")
        except StreamFault:
            return
        h2.schedule_flush()

    @property
    def unsent(self) -> int:
        """Bytes queued for this call and, on the connection, for all."""
        stream = self._h2.core.streams.get(self.id)
        return self._h2.unsent + (stream.backlog if stream is not None else 0)

    @property
    def silence(self) -> float | None:
        """As `H2Protocol.silence`."""
        return self._h2.silence

    def measure(self) -> float | None:
        """As `H2Protocol.measure`."""
        return self._h2.measure()

    def probe(self) -> None:
        """As `H2Protocol.probe`."""
        self._h2.probe()

    def give_up(self, cause: str) -> None:
        """End the connection below at once, with all its calls."""
        self._h2.give_up(cause)

    def respond(self, metadata: Headers | None = None) -> None:
        """Send the response head now: upstream's agent waits for it."""
        core = self._h2.core
        if metadata:
            self._act(lambda: core.send_headers(self.id, grpc.response_headers(metadata)))
        else:
            self._act(lambda: core.send_block(self.id, GRPC_RESPONSE))

    def refuse(self, code: int, message: str) -> None:
        """End the call at once with a status and no messages."""
        head = grpc.refusal(code, message)
        self._act(lambda: self._h2.core.send_headers(self.id, head, end_stream=True))
        self._over(RpcError(code, message))

    def finish(self, code: int = grpc.OK, message: str = "") -> None:
        """End the call with a status, behind all queued messages (server role)."""
        self._act(lambda: self._h2.core.end_stream(self.id, grpc.trailers(code, message)))
        self._over(None if code == grpc.OK else RpcError(code, message))

    def abandon(self, code: int, message: str) -> None:
        """End the call with a status in place of all queued messages (server role).

        The status needs no credit, so a peer that does not read gets it too.
        """
        stream = self._h2.core.streams.get(self.id)
        if stream is not None:
            stream.drop()
        self.finish(code, message)

    def half_close(self) -> None:
        """Send no more messages (client role)."""
        self._act(lambda: self._h2.core.end_stream(self.id))

    def cancel(self, cause: str = "cancelled") -> None:
        """Abort the call."""
        self._h2.core.reset_stream(self.id, frames.CANCEL)
        self._h2.schedule_flush()
        self._over(RpcError(grpc.CANCELLED, cause))

    def _act(self, action: Callable[[], object]) -> None:
        try:
            action()
        except StreamFault:
            return  # the peer was faster in ending the stream
        self._h2.schedule_flush()

    def _over(self, error: RpcError | None) -> None:
        self._h2.calls.pop(self.id, None)
        self.stream_ended(error)
        self._h2.close_if_idle()

    # Pausing the peer

    def pause_reading(self) -> None:
        """Withhold credit: the peer may send its window and no more."""
        self._stopped = True

    def resume_reading(self) -> None:
        """Give the withheld credit back."""
        self._stopped = False
        owed, self._owed = self._owed, 0
        if owed:
            self._h2.core.consume(self.id, owed)
            self._h2.schedule_flush()

    # From the connection

    def data_received(self, event: DataReceived) -> None:
        """Cut content into messages and report them."""
        try:
            for message in self._reader.feed(event.data):
                if self.handler is not None:
                    self.handler.message(message)
        except (RpcError, PacketError) as error:
            self._fail(error)
        if self._stopped:
            self._owed += event.size
        else:
            self._h2.core.consume(self.id, event.size)

    def _fail(self, error: RpcError | PacketError) -> None:
        code = error.code if isinstance(error, RpcError) else grpc.INTERNAL
        if self._h2.core.client:
            self.cancel(str(error))
        else:
            self._act(lambda: self._h2.core.end_stream(self.id, grpc.trailers(code, str(error))))
            self._over(RpcError(code, str(error)))

    def headers_received(self, event: HeadersReceived) -> None:
        """A response head or trailers."""
        if event.first and not event.end_stream:
            if self.handler is not None:
                self.handler.headers(event.headers)
            return
        if self._h2.core.client:
            self._h2.core.reset_stream(self.id, frames.NO_ERROR)
            self._over(grpc.status(event.headers))

    def half_closed(self) -> None:
        """END_STREAM came."""
        if self._ended:
            return
        if self._h2.core.client:
            self._over(RpcError(grpc.INTERNAL, "the server ended the call without a status"))
        elif self.handler is not None:
            self.handler.half_closed()

    def writable(self) -> None:
        """The connection took what was queued."""
        self.full = False
        if self.handler is not None:
            self.handler.writable()

    def was_reset(self, code: int, text: str) -> None:
        """The stream was reset by either side."""
        self.stream_ended(RpcError(_RESET_STATUS.get(code, grpc.INTERNAL), text))

    def lost(self, cause: str) -> None:
        """The connection is gone."""
        self.stream_ended(RpcError(grpc.UNAVAILABLE, cause))

    def stream_ended(self, error: RpcError | None) -> None:
        """The stream is over; report it once."""
        if self._ended:
            return
        self._ended = True
        handler, self.handler = self.handler, None
        if handler is not None:
            handler.ended(error)
