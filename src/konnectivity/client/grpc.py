"""The frontend's side of gRPC mode: a tunnel as an asyncio transport.

As kube-apiserver does: one HTTP/2 connection, one `Proxy` call, one dial for each tunnel. The
transport can carry TLS (`StreamWriter.start_tls`), so a kubelet can be reached through it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final, cast

from konnectivity.errors import DialError, RpcError
from konnectivity.net.grpc import Call
from konnectivity.net.h2 import H2Protocol, H2Settings
from konnectivity.wire import grpc, packet
from konnectivity.wire.events import Headers
from konnectivity.wire.grpc import Oversized
from konnectivity.wire.packet import Packet

DIAL_LIMIT: Final = 30.0
"""Seconds for a dial: kube-apiserver's backstop."""
CLOSE_LIMIT: Final = 10.0
"""Seconds to wait for CLOSE_RSP."""
PACKET: Final = 64 << 10
"""Largest payload of one DATA packet."""


async def dial(uds_path: str, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Reach `address` (`host:port`) through the server at a Unix socket.

    Raises:
        DialError: the server or the agent refused; the text is theirs.
        OSError: the socket cannot be reached.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport = await open_tunnel(uds_path, address, lambda: protocol)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def open_tunnel(
    uds_path: str, address: str, protocol_factory: Callable[[], asyncio.BaseProtocol]
) -> TunnelTransport:
    """As `dial`, for any asyncio protocol."""
    loop = asyncio.get_running_loop()
    tunnel = TunnelTransport()
    _, h2 = await loop.create_unix_connection(
        lambda: H2Protocol(tunnel, client=True, settings=H2Settings()), uds_path
    )
    try:
        async with asyncio.timeout(DIAL_LIMIT):
            await h2.ready
            await tunnel.dial(h2, address)
    except TimeoutError as error:
        tunnel.abort()
        raise DialError(f"no answer to the dial within {DIAL_LIMIT:g} s", "timeout") from error
    except BaseException:
        tunnel.abort()
        raise
    tunnel.set_protocol(protocol_factory())
    tunnel.begin()
    return tunnel


class TunnelTransport(asyncio.Transport):
    """One tunnel: handler of its call, owner of its connection, transport for a protocol."""

    # What `loop.start_tls` asks of a transport that is not its own.
    _start_tls_compatible = True

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._h2: H2Protocol | None = None
        self._call: Call | None = None
        self._protocol: asyncio.Protocol | None = None
        self._answer: asyncio.Future[int] = self._loop.create_future()
        self._early: list[bytes] = []
        self._connect_id = 0
        self._random = random.getrandbits(63)
        self._prefix = b""
        self._closing = False
        self._lost = False
        self._protocol_paused = False
        self._close_timer: asyncio.TimerHandle | None = None

    async def dial(self, h2: H2Protocol, address: str) -> None:
        """Ask for the tunnel and wait for the answer."""
        self._h2 = h2
        head = grpc.request_headers(grpc.PROXY, authority="localhost", metadata=[], scheme="http")
        self._call = h2.open_call(head, self)
        self._send(Packet(packet.DIAL_REQ, protocol="tcp", address=address, random=self._random))
        connect_id = await self._answer
        self._prefix = packet.data_prefix(connect_id)
        self._connect_id = connect_id

    def begin(self) -> None:
        """Hand over to the protocol."""
        if self._protocol is not None:
            self._protocol.connection_made(self)
            early, self._early = self._early, []
            for data in early:
                self._protocol.data_received(data)

    def _send(self, item: Packet) -> None:
        if self._call is not None:
            self._call.send(grpc.message(packet.encode(item)))

    # CallHandler (net/grpc.py)

    def headers(self, headers: Headers) -> None:
        """The server accepted the call."""

    def message(self, message: memoryview | Oversized) -> None:
        """One packet of the server."""
        if isinstance(message, Oversized):
            self._end(ConnectionError(f"a packet of {message.size} bytes"))
            return
        item = packet.decode(message)
        match item.type:
            case packet.DATA if item.data:
                self._received(item.data)
            case packet.DIAL_RSP if item.random == self._random and not self._answer.done():
                if item.error:
                    self._answer.set_exception(DialError(item.error, "unknown"))
                else:
                    self._answer.set_result(item.connect_id)
            case packet.DIAL_CLS if not self._answer.done():
                self._answer.set_exception(DialError("dial closed", "unknown"))
            case packet.CLOSE_RSP:
                self._end(ConnectionResetError(item.error) if item.error else None)
            case _:
                pass

    def _received(self, data: bytes) -> None:
        if self._protocol is None:
            self._early.append(data)
        elif isinstance(self._protocol, asyncio.BufferedProtocol):
            _feed(self._protocol, data)
        else:
            self._protocol.data_received(data)

    def writable(self) -> None:
        """The server took what waited."""
        if self._protocol_paused and self._protocol is not None:
            self._protocol_paused = False
            self._protocol.resume_writing()

    def half_closed(self) -> None:
        """Not for clients."""

    def ended(self, error: RpcError | None) -> None:
        """The call is over."""
        if not self._answer.done():
            self._answer.set_exception(DialError(str(error or "the call ended"), "unknown"))
            self._answer.exception()
        self._end(ConnectionResetError(str(error)) if error else None)

    def _end(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        if self._close_timer is not None:
            self._close_timer.cancel()
        if self._h2 is not None:
            self._h2.close("the tunnel is over")
        if self._protocol is not None:
            if error is None:
                self._protocol.eof_received()
            self._loop.call_soon(self._protocol.connection_lost, error)

    # Owner (net/h2.py)

    def call_received(self, call: Call) -> None:
        """Not for clients."""

    def connection_started(self, connection: H2Protocol) -> None:
        """`open_tunnel` goes on."""

    def connection_ended(self, connection: H2Protocol, cause: str) -> None:
        """The call was told before."""

    # asyncio.Transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Nothing is known of the endpoint's socket."""
        return default

    def is_closing(self) -> bool:
        """Whether the tunnel is closed or about to be."""
        return self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Who gets the bytes."""
        self._protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Who gets the bytes."""
        return cast(asyncio.BaseProtocol, self._protocol)

    def pause_reading(self) -> None:
        """Withhold flow-control credit."""
        if self._call is not None:
            self._call.pause_reading()

    def resume_reading(self) -> None:
        """Give it back."""
        if self._call is not None:
            self._call.resume_reading()

    def is_reading(self) -> bool:
        """Whether bytes are wanted."""
        return not self._closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The call's own limits are in force."""

    def get_write_buffer_size(self) -> int:
        """Bytes that wait for the server."""
        return self._call.unsent if self._call is not None else 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes to the endpoint."""
        if self._closing or self._call is None:
            return
        whole = bytes(data)
        for at in range(0, len(whole), PACKET):
            piece = whole[at : at + PACKET]
            self._call.send(packet.data_head(self._prefix, len(piece)) + piece)
        if self._call.full and not self._protocol_paused and self._protocol is not None:
            self._protocol_paused = True
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        """The packets know no half-close."""
        return False

    def close(self) -> None:
        """CLOSE_REQ behind all data, then wait for the answer, not for ever."""
        if not self._closing:
            self._closing = True
            self._send(Packet(packet.CLOSE_REQ, connect_id=self._connect_id))
            self._close_timer = self._loop.call_later(CLOSE_LIMIT, self._end, None)

    def abort(self) -> None:
        """Drop the connection."""
        if self._h2 is not None:
            self._h2.abort()
        self._end(None)


def _feed(protocol: asyncio.BufferedProtocol, data: bytes) -> None:
    view = memoryview(data)
    while view:
        room = memoryview(protocol.get_buffer(len(view)))
        size = min(len(view), len(room))
        room[:size] = view[:size]
        protocol.buffer_updated(size)
        view = view[size:]
