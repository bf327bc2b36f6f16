"""An agent on the h2 library that gives tunnels streams of their own (docs/stream-carrier.md).

A second implementation, written from the page; with `say` it says what no agent should.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Self, TypeVar

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.settings import SettingCodes
from tests.net.authority import Authority, Identity
from tests.peers import schema
from tests.peers.streams import PATIENCE

E = TypeVar("E", bound=Event)


class StreamAgent:
    """One connection with its `Connect` call. Made by `connect`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=True))
        self.answer: dict[str, str] = {}
        """The metadata of the server's answer to `Connect`."""
        self.lost = asyncio.Event()
        """The server has closed the connection."""
        self.granting = True
        """Whether windows are given back as content arrives."""
        self._reader = reader
        self._writer = writer
        self._events: list[Event] = []
        self._arrived = asyncio.Condition()
        self._packets = b""
        self._call = 1
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def connect(
        cls,
        port: int,
        authority: Authority,
        identity: Identity,
        *,
        agent_id: str = "streaming",
        window: int = 65_535,
    ) -> Self:
        """An agent whose `Connect` was answered; `window` is what each stream begins with."""
        context = ssl.create_default_context(cafile=authority.bundle)
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(identity.cert, identity.key)
        pipes = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        agent = cls(*pipes)
        agent.h2.initiate_connection()
        agent.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
        head = [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", "/AgentService/Connect"),
            (":authority", "server"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("agentid", agent_id),
            ("konnectivity-streams", "1"),
        ]
        agent._call = agent.h2.get_next_available_stream_id()
        agent.h2.send_headers(agent._call, head)
        agent._flush()
        agent.answer = _text((await agent.expect(ResponseReceived, agent._call)).headers)
        return agent

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._writer.transport.abort()

    # What arrives

    async def _read(self) -> None:
        while data := await self._some():
            for event in self.h2.receive_data(data):
                if isinstance(event, DataReceived) and self.granting:
                    size = event.flow_controlled_length
                    if size:
                        self.h2.increment_flow_control_window(size)
                        if event.stream_ended is None and self._is_open(event.stream_id):
                            self.h2.increment_flow_control_window(size, event.stream_id)
                async with self._arrived:
                    self._events.append(event)
                    self._arrived.notify_all()
                if isinstance(event, ConnectionTerminated):
                    break
            self._flush()
        self.lost.set()

    async def _some(self) -> bytes:
        try:
            return await self._reader.read(1 << 16)
        except (OSError, ssl.SSLError):
            return b""

    def _is_open(self, stream_id: int) -> bool:
        stream = self.h2.streams.get(stream_id)
        return stream is not None and not stream.closed

    async def expect(
        self, kind: type[E], stream_id: int, *, matching: Callable[[E], bool] = lambda _: True
    ) -> E:
        """The next event of this kind on this stream; it is taken, others stay."""
        async with asyncio.timeout(PATIENCE), self._arrived:
            while True:
                for event in self._events:
                    if (
                        isinstance(event, kind)
                        and getattr(event, "stream_id", None) == stream_id
                        and matching(event)
                    ):
                        self._events.remove(event)
                        return event
                await self._arrived.wait()

    async def content(self, stream_id: int, size: int) -> bytes:
        """So many bytes of a tunnel."""
        arrived = b""
        while len(arrived) < size:
            arrived += (await self.expect(DataReceived, stream_id)).data or b""
        return arrived

    async def dialed(self) -> Any:
        """The next dial of the server; packets of other kinds are skipped."""
        while True:
            while len(self._packets) < 5 or len(self._packets) < self._length:
                self._packets += (await self.expect(DataReceived, self._call)).data or b""
            end = self._length
            message, self._packets = self._packets[5:end], self._packets[end:]
            packet = schema.Packet.FromString(message)
            if packet.type == schema.DIAL_REQ:
                return packet.dialRequest

    @property
    def _length(self) -> int:
        return 5 + int.from_bytes(self._packets[1:5], "big")

    async def ended(self, stream_id: int) -> None:
        """The server sends no more on this stream."""
        await self.expect(StreamEnded, stream_id)

    async def reset(self, stream_id: int) -> int:
        """The code with which the server reset this stream."""
        return int((await self.expect(StreamReset, stream_id)).error_code)

    # What is said

    def open(self, dial_id: int, connect_id: int, *, path: str = "") -> int:
        """Open a stream for a dial; its number."""
        stream_id = self.h2.get_next_available_stream_id()
        path = path or f"/konnectivity.Tunnels/{dial_id}/{connect_id}"
        head = [(":path", path), (":scheme", "https"), (":method", "POST"), (":authority", "x")]
        self.h2.send_headers(stream_id, head)
        self._flush()
        return stream_id

    def send(self, stream_id: int, content: bytes, *, end: bool = False) -> None:
        """Bytes of a tunnel, no more than its window allows."""
        for at in range(0, len(content), 16_384):
            self.h2.send_data(stream_id, content[at : at + 16_384])
        if end:
            self.h2.end_stream(stream_id)
        self._flush()

    def reset_stream(self, stream_id: int, code: int) -> None:
        """End a stream in both directions."""
        self.h2.reset_stream(stream_id, code)
        self._flush()

    def say(self, content: bytes) -> None:
        """These very bytes."""
        self._writer.write(content)

    def _flush(self) -> None:
        self._writer.write(self.h2.data_to_send())


def _text(headers: Any) -> dict[str, str]:
    return {
        (name if isinstance(name, str) else name.decode()): (
            value if isinstance(value, str) else value.decode()
        )
        for name, value in headers
    }
