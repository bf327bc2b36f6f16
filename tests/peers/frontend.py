"""Frontends that are not ours: grpcio for mode `grpc`, a bare socket for mode `http-connect`.

`Tunnel` is what tests of both modes use; `ProxyStream` shows the packets themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from typing import Any, Protocol, Self

import grpc
from tests.peers import schema
from tests.peers.streams import PATIENCE, PacketStream, StreamEnded

ESTABLISHED = b"HTTP/1.1 200 Connection Established\r\n\r\n"
READ_AHEAD = 64 << 10
"""Bytes a tunnel takes from its socket before anybody asks for them."""


class Refused(Exception):
    """The dial failed. `str()` is the answer's text, for http-connect the whole answer."""


class Tunnel(Protocol):
    """One proxied connection as an application sees it."""

    async def write(self, content: bytes) -> None:
        """Send, waiting for room."""

    async def read(self) -> bytes:
        """What is there, at least a byte; empty at the end."""

    async def close(self) -> None:
        """End it in an orderly way."""

    def pause(self) -> None:
        """Take nothing more from the server until `resume`, but for what is on its way."""

    def resume(self) -> None:
        """Go on."""


class ProxyStream(PacketStream):
    """One `Proxy` call."""

    def __init__(self, call: Any) -> None:
        super().__init__(call.read, call.write)
        self.random = random.getrandbits(62)
        self._call = call

    async def begin_dial(self, address: str) -> None:
        """Ask for a tunnel."""
        await self.send(schema.dial_request(self.random, address))

    async def end_dial(self) -> int:
        """Wait for the answer; the connectID.

        Raises:
            Refused: no tunnel.
        """
        packet = await self.receive()
        if packet.type == schema.DIAL_CLS:
            raise Refused("dial closed")
        assert packet.type == schema.DIAL_RSP, packet
        answer = packet.dialResponse
        assert answer.random == self.random
        if answer.error:
            assert answer.connectID == 0
            raise Refused(answer.error)
        return int(answer.connectID)

    async def dial(self, address: str) -> int:
        """Ask and wait."""
        await self.begin_dial(address)
        return await self.end_dial()

    async def status(self) -> tuple[grpc.StatusCode, str]:
        """How the server ended the call."""
        async with asyncio.timeout(PATIENCE):
            return await self._call.code(), await self._call.details()

    async def half_close(self) -> None:
        """Say that no more packets come."""
        await self._call.done_writing()

    async def leave(self) -> None:
        """Cancel the call."""
        self._call.cancel()
        await self.stop_reading()


class GrpcClient:
    """One connection of grpcio to a frontend listener; calls share it."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", READ_AHEAD),
            ("grpc.max_send_message_length", -1),
            ("grpc.default_authority", "localhost"),
        ]
        self._channel = (
            grpc.aio.insecure_channel(target, options=options)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, options=options)
        )
        self._streams: list[ProxyStream] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for stream in self._streams:
            await stream.leave()
        await self._channel.close()

    def proxy(self, method: str = "/ProxyService/Proxy") -> ProxyStream:
        """A new call."""
        call = self._channel.stream_stream(
            method,
            request_serializer=schema.serialize,
            response_deserializer=schema.Packet.FromString,
        )
        stream = ProxyStream(call())
        self._streams.append(stream)
        return stream


class GrpcTunnel:
    """A tunnel on a `ProxyStream`. `error` is what CLOSE_RSP said."""

    PIECE = 64 << 10

    def __init__(self, stream: ProxyStream, connect_id: int) -> None:
        self.stream = stream
        self.error = ""
        self._id = connect_id
        self._ended = False

    async def write(self, content: bytes) -> None:
        for at in range(0, len(content), self.PIECE):
            await self.stream.send(schema.data(self._id, content[at : at + self.PIECE]))

    async def read(self) -> bytes:
        while not self._ended:
            try:
                packet = await self.stream.receive()
            except StreamEnded:
                self._ended = True
                break
            if packet.type == schema.CLOSE_RSP:
                assert packet.closeResponse.connectID == self._id
                self.error = packet.closeResponse.error
                self._ended = True
            else:
                assert packet.type == schema.DATA, packet
                assert packet.data.connectID == self._id
                assert packet.data.data, "konnectivity-client takes empty DATA for the end"
                return bytes(packet.data.data)
        return b""

    async def close(self) -> None:
        if not self._ended:
            await self.stream.send(schema.close_request(self._id))
            while await self.read():
                pass
        await self.stream.leave()

    def pause(self) -> None:
        self.stream.pause()

    def resume(self) -> None:
        self.stream.resume()


class ConnectTunnel:
    """A tunnel on a socket, behind the answer to its CONNECT."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def write(self, content: bytes) -> None:
        self.writer.write(content)
        await self.writer.drain()

    async def read(self) -> bytes:
        try:
            async with asyncio.timeout(PATIENCE):
                return await self.reader.read(1 << 18)
        except ConnectionResetError:
            return b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    def pause(self) -> None:
        """Nothing to do: the reader stops by itself, `READ_AHEAD` bytes before its caller."""

    def resume(self) -> None:
        """Nothing to do."""


def request(address: str) -> bytes:
    """A dial as kube-apiserver sends it."""
    return f"CONNECT {address} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


class ConnectClient:
    """Dials through an `http-connect` listener: a Unix socket's path, or host, port and TLS."""

    def __init__(self, where: str | tuple[str, int], context: ssl.SSLContext | None = None) -> None:
        self._where = where
        self._context = context
        self._tunnels: list[ConnectTunnel] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for tunnel in self._tunnels:
            await tunnel.close()

    async def open(self) -> ConnectTunnel:
        """A connection, nothing said."""
        if isinstance(self._where, str):
            streams = await asyncio.open_unix_connection(self._where, limit=READ_AHEAD)
        else:
            host, port = self._where
            streams = await asyncio.open_connection(host, port, ssl=self._context, limit=READ_AHEAD)
        tunnel = ConnectTunnel(*streams)
        self._tunnels.append(tunnel)
        return tunnel

    async def ask(self, address: str) -> ConnectTunnel:
        """Send the request as kube-apiserver does; the answer is not read."""
        tunnel = await self.open()
        await tunnel.write(request(address))
        return tunnel

    async def answer_to(self, address: str) -> bytes:
        """All that the server says to a dial that fails, until it closes."""
        tunnel = await self.ask(address)
        try:
            async with asyncio.timeout(PATIENCE):
                return await tunnel.reader.read(-1)
        finally:
            await tunnel.close()

    async def dial(self, address: str) -> ConnectTunnel:
        """A tunnel.

        Raises:
            Refused: with the whole answer.
        """
        tunnel = await self.ask(address)
        await established(tunnel)
        return tunnel


async def established(tunnel: ConnectTunnel) -> None:
    """Read the answer to CONNECT, which must be the 200 and no byte more."""
    try:
        async with asyncio.timeout(PATIENCE):
            answer = await tunnel.reader.readexactly(len(ESTABLISHED))
    except asyncio.IncompleteReadError as error:
        answer = error.partial
    if answer != ESTABLISHED:
        answer += await tunnel.reader.read(-1)
        await tunnel.close()
        raise Refused(answer.decode())


async def read_exactly(tunnel: Tunnel, size: int) -> bytes:
    """`size` bytes, and not one more."""
    content = bytearray()
    while len(content) < size:
        piece = await tunnel.read()
        assert piece, f"the tunnel ended after {len(content)} of {size} bytes"
        content += piece
    assert len(content) == size
    return bytes(content)


async def read_all(tunnel: Tunnel) -> bytes:
    """Everything until the end."""
    content = bytearray()
    while piece := await tunnel.read():
        content += piece
    return bytes(content)


async def ping(tunnel: Tunnel, content: bytes = b"ping") -> None:
    """One round trip to an echoing endpoint."""
    await tunnel.write(content)
    assert await read_exactly(tunnel, len(content)) == content


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP reset, or for a Unix socket as abruptly as it can."""
    sock: socket.socket = writer.get_extra_info("socket")
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    writer.transport.abort()
