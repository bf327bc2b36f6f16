"""Admin endpoints on a loopback port, and clients of them: raw, of the status, of the events."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from konnectivity.agent.app import Agent
from konnectivity.net.listen import Listener
from konnectivity.observe.admin import AdminLimits, AdminServer, Guard
from konnectivity.observe.route import Route
from konnectivity.observe.status import AgentStatus, Event, ServerStatus
from konnectivity.observe.status_json import event_from_json, from_json
from konnectivity.server.app import Server


@contextlib.asynccontextmanager
async def serving(
    routes: Mapping[str, Route],
    *,
    guard: Guard | None = None,
    context: Callable[[], ssl.SSLContext] | None = None,
    **limits: Any,
) -> AsyncIterator[int]:
    """The port of a server with these routes and limits."""
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    async with (
        AdminServer(routes, guard=guard, limits=AdminLimits(**limits)) as server,
        Listener(sock, server.accept, context=context),
    ):
        yield sock.getsockname()[1]


class Client:
    """One connection; reads have five seconds."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def ask(
        self,
        target: str,
        *headers: str,
        method: str = "GET",
        version: str = "1.1",
        host: str | None = "localhost",
    ) -> None:
        named = [] if host is None else [f"Host: {host}"]
        lines = [f"{method} {target} HTTP/{version}", *named, *headers, "", ""]
        self.writer.write("\r\n".join(lines).encode())
        await self.writer.drain()

    async def until(self, text: str) -> str:
        """All up to `text`, which must come."""
        async with asyncio.timeout(5):
            return (await self._reader.readuntil(text.encode())).decode()

    async def rest(self) -> str:
        """All up to the end of the connection."""
        async with asyncio.timeout(5):
            return (await self._reader.read()).decode()

    async def answer(self) -> tuple[int, dict[str, str], str]:
        """Status, headers in lower case, and a body of known length."""
        head = (await self.until("\r\n\r\n")).split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])
        }
        async with asyncio.timeout(5):
            body = await self._reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1]), headers, body.decode()


@contextlib.asynccontextmanager
async def connected(port: int, **options: Any) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


async def get(
    port: int,
    target: str,
    *headers: str,
    method: str = "GET",
    host: str = "localhost",
    **options: Any,
) -> tuple[int, dict[str, str], str]:
    """One request on a connection of its own."""
    async with connected(port, **options) as client:
        await client.ask(target, *headers, method=method, host=host)
        return await client.answer()


async def status_of(port: int, query: str = "", **options: Any) -> Any:
    status, headers, body = await get(port, f"/api/v1/status{query}", **options)
    assert (status, headers["content-type"]) == (200, "application/json")
    return from_json(body)


async def server_status(server: Server, query: str = "") -> ServerStatus:
    found = await status_of(server.options.admin_port, query)
    assert isinstance(found, ServerStatus)
    return found


async def agent_status(agent: Agent, query: str = "") -> AgentStatus:
    found = await status_of(agent.options.admin_server_port, query)
    assert isinstance(found, AgentStatus)
    return found


class Follower:
    """Reads events."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def event(self, kind: str) -> Event:
        """The next one of this kind; others are passed over."""
        while True:
            text = await self._client.until("\n\n")
            if f"event: {kind}\n" in text:
                (data,) = (line[6:] for line in text.split("\n") if line.startswith("data: "))
                return event_from_json(data)


@contextlib.asynccontextmanager
async def following(port: int, query: str = "") -> AsyncIterator[Follower]:
    async with connected(port) as client:
        await client.ask(f"/api/v1/events{query}")
        await client.until("retry: 2000\n\n")
        yield Follower(client)
