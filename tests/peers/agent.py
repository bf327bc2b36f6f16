"""An agent that is grpcio: connects to a server and says whatever a test wants said.

It is a stock agent: it knows nothing of `konnectivity-credit`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import grpc
from tests.net.authority import Authority, Identity
from tests.peers import schema
from tests.peers.streams import PATIENCE, PacketStream

Metadata = Sequence[tuple[str, str]]


def credentials(authority: Authority, identity: Identity) -> grpc.ChannelCredentials:
    """grpcio's form of a client's certificate, key and trust."""
    files = (authority.bundle, identity.key, identity.cert)
    return grpc.ssl_channel_credentials(*(Path(name).read_bytes() for name in files))


class FakeAgent(PacketStream):
    """One `Connect` call on a connection of its own. Made by `connect`."""

    def __init__(self, channel: grpc.aio.Channel, call: Any) -> None:
        super().__init__(call.read, call.write)
        self._channel = channel
        self._call = call
        self._last_id = 0

    @classmethod
    async def connect(
        cls,
        port: int,
        authority: Authority,
        identity: Identity,
        *,
        agent_id: str = "fake",
        metadata: Metadata | None = None,
    ) -> Self:
        """Open the call; the server's answer is not awaited."""
        channel = grpc.aio.secure_channel(
            f"127.0.0.1:{port}",
            credentials(authority, identity),
            options=[
                # A channel of its own for each agent, with windows that do not grow.
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.http2.bdp_probe", 0),
                ("grpc.max_send_message_length", -1),
            ],
        )
        connect = channel.stream_stream(
            "/AgentService/Connect",
            request_serializer=schema.serialize,
            response_deserializer=schema.Packet.FromString,
        )
        sent = [("agentid", agent_id)] if metadata is None else list(metadata)
        return cls(channel, connect(metadata=grpc.aio.Metadata(*sent)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    async def answer(self) -> dict[str, str]:
        """The server's response metadata, once it is there."""
        async with asyncio.timeout(PATIENCE):
            return dict(await self._call.initial_metadata())

    async def status(self) -> tuple[grpc.StatusCode, str]:
        """How the server ended the call."""
        async with asyncio.timeout(PATIENCE):
            return await self._call.code(), await self._call.details()

    async def accept(self, connect_id: int | None = None) -> tuple[Any, int]:
        """Take the next dial and answer it with success: the dial and its connectID."""
        dial = await self.expect(schema.DIAL_REQ)
        self._last_id += 1
        chosen = connect_id or self._last_id
        await self.send(schema.dial_response(dial.dialRequest.random, chosen))
        return dial, chosen

    async def say_goodbye(self) -> None:
        """Half-close the call, as a client that is done does."""
        await self._call.done_writing()

    async def leave(self) -> None:
        """Drop the call and the connection."""
        self._call.cancel()
        await self.stop_reading()
        await self._channel.close()
