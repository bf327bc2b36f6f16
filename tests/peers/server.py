"""A server that is grpcio: takes agents in and tells them whatever a test wants said.

It is a stock server: it knows nothing of `konnectivity-credit`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Self

import grpc
from tests.net.authority import Authority, Identity
from tests.peers import schema
from tests.peers.streams import PATIENCE, PacketStream


class Session(PacketStream):
    """One `Connect` call of an agent. `metadata` is what the agent sent."""

    def __init__(self, context: Any) -> None:
        super().__init__(context.read, context.write)
        self.metadata = list(context.invocation_metadata())
        self.over = asyncio.Event()
        """Set it to end the call with status OK."""
        self._last_random = 0

    async def end(self) -> None:
        """Wait until the agent, or the test, ends the call."""
        over = asyncio.create_task(self.over.wait())
        try:
            await asyncio.wait({over, self.reader}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()

    async def begin_dial(self, address: str) -> int:
        """Send a dial; its `random`."""
        self._last_random += 1
        await self.send(schema.dial_request(self._last_random, address))
        return self._last_random

    async def dial(self, address: str) -> int:
        """Dial with success; the connectID."""
        random = await self.begin_dial(address)
        answer = (await self.expect(schema.DIAL_RSP)).dialResponse
        assert answer.random == random
        assert not answer.error, answer.error
        return int(answer.connectID)


class FakeServer:
    """`AgentService` on a port. `silent`: never answers a call; `answer`: its metadata."""

    def __init__(
        self,
        authority: Authority,
        identity: Identity,
        *,
        port: int = 0,
        answer: tuple[tuple[str, str], ...] = (("serverid", "s1"), ("servercount", "1")),
        refusal: tuple[grpc.StatusCode, str] | None = None,
        silent: bool = False,
    ) -> None:
        self.port = port
        self.calls = 0
        """Agents that came, also those that were refused or ignored."""
        self._answer = answer
        self._refusal = refusal
        self._silent = silent
        self._sessions: asyncio.Queue[Session] = asyncio.Queue()
        self._credentials = grpc.ssl_server_credentials(
            [(Path(identity.key).read_bytes(), Path(identity.cert).read_bytes())],
            root_certificates=Path(authority.bundle).read_bytes(),
            require_client_auth=True,
        )
        self._server: grpc.aio.Server | None = None

    async def __aenter__(self) -> Self:
        options = [
            ("grpc.http2.bdp_probe", 0),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
        self._server = grpc.aio.server(options=options)
        connect = grpc.stream_stream_rpc_method_handler(
            self._connect,
            request_deserializer=schema.Packet.FromString,
            response_serializer=schema.serialize,
        )
        handlers = grpc.method_handlers_generic_handler("AgentService", {"Connect": connect})
        self._server.add_generic_rpc_handlers((handlers,))
        self.port = self._server.add_secure_port(f"127.0.0.1:{self.port}", self._credentials)
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _connect(self, _: object, context: Any) -> None:
        self.calls += 1
        if self._refusal is not None:
            await context.abort(*self._refusal)
        if self._silent:
            await asyncio.Event().wait()
        await context.send_initial_metadata(self._answer)
        session = Session(context)
        self._sessions.put_nowait(session)
        try:
            await session.end()
        finally:
            await session.stop_reading()

    async def session(self) -> Session:
        """The next agent that came."""
        async with asyncio.timeout(PATIENCE):
            return await self._sessions.get()

    async def stop(self, *, grace: float | None = None) -> None:
        """Stop listening; calls get `grace` seconds to end, and a GOAWAY at once."""
        if self._server is not None:
            await self._server.stop(grace)
