"""The agents' side of the server: `Connect` calls.

Checks metadata, answers with the server's id and count at once, and enters the agent into the
exchange for as long as the call lives.

Source: upstream `pkg/server/server.go`, `Connect`.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

from konnectivity.errors import RpcError
from konnectivity.net.grpc import Call
from konnectivity.net.h2 import H2Protocol, H2Settings
from konnectivity.observe import logs
from konnectivity.server.exchange import Exchange
from konnectivity.server.unimplemented import unimplemented
from konnectivity.tunnel.server_packets import PacketBackend
from konnectivity.wire import grpc
from konnectivity.wire.events import Headers
from konnectivity.wire.grpc import Oversized

log = logs.get(__name__)

CREDIT_KEY: Final = "konnectivity-credit"
"""Metadata of our own peers: both sides send it, then both speak CREDIT (docs/credit.md)."""


def read_metadata(headers: Headers) -> str:
    """The agent id of a `Connect` call.

    Raises:
        RpcError: UNKNOWN with upstream's text (`pkg/server/backend_manager.go`).
    """
    ids = grpc.metadata_values(headers, "agentid")
    if len(ids) != 1:
        shown = " ".join(ids)
        raise RpcError(grpc.UNKNOWN, f"expected one agent ID in the context, got [{shown}]")
    identifiers = grpc.metadata_values(headers, "agentidentifiers")
    if len(identifiers) > 1:
        raise RpcError(
            grpc.UNKNOWN,
            "expected at most one set of agent identifiers in the context, "
            f"got [{' '.join(identifiers)}]",
        )
    if identifiers:
        check_identifiers(identifiers[0])
    return ids[0]


def check_identifiers(text: str) -> list[tuple[str, str]]:
    """The key-value pairs of an agent's identifiers.

    Raises:
        RpcError: not a URL query, in the words of Go's parser.
    """
    problem = ""
    if ";" in text:
        problem = "invalid semicolon separator in query"
    else:
        for at in (at for at, char in enumerate(text) if char == "%"):
            escape = text[at : at + 3]
            if len(escape) < 3 or not all(c in "0123456789abcdefABCDEF" for c in escape[1:]):
                problem = f'invalid URL escape "{escape}"'
                break
    if problem:
        raise RpcError(grpc.UNKNOWN, f"fail to parse url encoded string: {problem}")
    return parse_qsl(text, keep_blank_values=True)


class AgentStream:
    """One `Connect` call: the handler between the call and its `PacketBackend`."""

    __slots__ = ("_agent_id", "_backend", "_call", "_exchange")

    def __init__(
        self, call: Call, exchange: Exchange, *, agent_id: str, server_id: str, server_count: int
    ) -> None:
        credit = bool(grpc.metadata_values(call.headers, CREDIT_KEY))
        answer = [("serverid", server_id), ("servercount", str(server_count))]
        if credit:
            answer.append((CREDIT_KEY, "1"))
        call.respond(answer)
        self._call = call
        self._exchange = exchange
        self._agent_id = agent_id
        self._backend = PacketBackend(
            call,
            agent_id=agent_id,
            credit=credit,
            limits=exchange.limits,
            budget=exchange.budget,
        )
        exchange.counters.open_calls["Connect"] += 1
        exchange.backends.add(self._backend)
        log.info("Agent connected", agentID=agent_id, address=call.peer)

    def headers(self, headers: Headers) -> None:
        """Not for servers."""

    def message(self, message: memoryview | Oversized) -> None:
        """One packet of the agent."""
        self._backend.message(message)

    def writable(self) -> None:
        """The connection has room again."""
        self._backend.outbox.flow()

    def half_closed(self) -> None:
        """The agent says goodbye."""
        self._call.finish()

    def ended(self, error: RpcError | None) -> None:
        """The agent is gone: no new dials for it, an end for all its tunnels."""
        self._exchange.counters.open_calls["Connect"] -= 1
        self._exchange.backends.remove(self._backend)
        tunnels = len(self._backend.tunnels)
        self._backend.lost()
        cause = str(error.message if error else "it said goodbye")
        log.info("Agent disconnected", agentID=self._agent_id, cause=cause, tunnels=tunnels)


def accept_agent(call: Call, exchange: Exchange, *, server_id: str, server_count: int) -> None:
    """Answer a `Connect` call: register the agent, or refuse it with upstream's status."""
    try:
        agent_id = read_metadata(call.headers)
    except RpcError as error:
        log.warning("Agent refused", address=call.peer, cause=error.message)
        call.refuse(error.code, error.message)
        return
    call.handler = AgentStream(
        call, exchange, agent_id=agent_id, server_id=server_id, server_count=server_count
    )


class Agents:
    """Keeps the agents' connections of one server."""

    def __init__(
        self, exchange: Exchange, *, server_id: str, server_count: int, h2: H2Settings
    ) -> None:
        self._exchange = exchange
        self._server_id = server_id
        self._server_count = server_count
        self._h2 = h2
        self._connections: set[H2Protocol] = set()

    def accept(self) -> H2Protocol:
        """The protocol of a new connection."""
        return H2Protocol(self, client=False, settings=self._h2)

    # Owner (net/h2.py)

    def call_received(self, call: Call) -> None:
        """An agent opened a call."""
        if call.path == grpc.CONNECT:
            accept_agent(
                call,
                self._exchange,
                server_id=self._server_id,
                server_count=self._server_count,
            )
        else:
            unimplemented(call, grpc.CONNECT)

    def connection_started(self, connection: H2Protocol) -> None:
        """An agent's TLS is up."""
        self._connections.add(connection)

    def connection_ended(self, connection: H2Protocol, cause: str) -> None:
        """An agent disconnected."""
        self._connections.discard(connection)

    @property
    def count(self) -> int:
        """Open connections."""
        return len(self._connections)

    def close(self) -> None:
        """End all connections; what is written gets a moment to leave."""
        for connection in list(self._connections):
            connection.close("the server is stopping")
