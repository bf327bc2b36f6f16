"""The frontend listener: gives each connection to the protocol it speaks.

With both modes on, the first bytes tell: HTTP/2 begins with its preface, CONNECT does not. So one
socket serves both (upstream: one mode for each process).
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from konnectivity.net.deadlines import Deadline, Deadlines
from konnectivity.net.grpc import Call
from konnectivity.net.h2 import H2Protocol, H2Settings
from konnectivity.observe import logs
from konnectivity.server.certificates import CertificateGate
from konnectivity.server.departures import Departures
from konnectivity.server.exchange import Exchange
from konnectivity.server.frontend_connect import HEAD_LIMIT, ConnectFrontend
from konnectivity.server.frontend_grpc import GrpcFrontend
from konnectivity.server.unimplemented import unimplemented
from konnectivity.wire import grpc
from konnectivity.wire.frames import PREFACE

log = logs.get(__name__)

ENOUGH: Final = 3
"""Bytes that tell HTTP/2's `PRI` from every other method."""


class Frontends:
    """Makes and keeps the frontend connections of one server. `gate` admits their peers."""

    def __init__(
        self,
        exchange: Exchange,
        *,
        modes: frozenset[str],
        h2: H2Settings,
        gate: CertificateGate | None = None,
    ) -> None:
        self._exchange = exchange
        self._modes = modes
        self._h2 = h2
        self._gate = gate or CertificateGate(())
        self._heads = Deadlines(HEAD_LIMIT)
        self.departures = Departures()
        self._grpc: set[H2Protocol] = set()
        self._connect: set[ConnectFrontend] = set()
        self._undecided: set[_Undecided] = set()

    def accept(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        if self._modes == {"grpc"}:
            return self.accept_grpc()
        if self._modes == {"http-connect"}:
            return self.accept_connect()
        return _Undecided(self, self._undecided, self._heads)

    def accept_grpc(self) -> H2Protocol:
        """A connection that must speak HTTP/2."""
        return H2Protocol(self, client=False, settings=self._h2)

    def accept_connect(self) -> ConnectFrontend:
        """A connection that must speak HTTP/1.1."""
        return ConnectFrontend(
            self._exchange, self._connect, self._heads, self.departures, self._gate
        )

    # Owner (net/h2.py)

    def call_received(self, call: Call) -> None:
        """A frontend opened a call."""
        if refusal := self._gate.refusal(call.transport):
            log.summarised(
                ("refused", refusal), "Frontend refused", address=call.peer, cause=refusal
            )
            call.refuse(grpc.PERMISSION_DENIED, refusal)
        elif call.path == grpc.PROXY:
            call.handler = GrpcFrontend(call, self._exchange)
        else:
            unimplemented(call, grpc.PROXY)

    def connection_started(self, connection: H2Protocol) -> None:
        """A gRPC frontend connected."""
        self._grpc.add(connection)

    def connection_ended(self, connection: H2Protocol, cause: str) -> None:
        """A gRPC frontend disconnected."""
        self._grpc.discard(connection)

    @property
    def count(self) -> int:
        """Open connections."""
        return len(self._grpc) + len(self._connect) + len(self._undecided)

    def go_away(self) -> None:
        """Take no new calls on connections that stay."""
        for connection in list(self._grpc):
            connection.go_away()

    def close(self) -> None:
        """End all connections now; what is written gets a moment to leave."""
        for connection in list(self._grpc):
            connection.close("the server is stopping")
        for client in list(self._connect):
            if not client.ending:
                client.shut_down()
        self._heads.close()
        self.departures.close()
        for newcomer in list(self._undecided):
            newcomer.shut_down()

    def abort(self) -> None:
        """Drop what has not taken its last bytes."""
        for connection in list(self._grpc):
            connection.abort()
        for client in list(self._connect):
            client.shut_down()


class _Undecided(asyncio.Protocol):
    """A connection of which too little has been read to know its protocol."""

    def __init__(
        self, frontends: Frontends, connections: set[_Undecided], heads: Deadlines
    ) -> None:
        self._frontends = frontends
        self._connections = connections
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._heads = heads
        self._timer: Deadline | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        self._timer = self._heads.start(self.shut_down)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        start = self._buffer[:ENOUGH]
        if self._transport is None or (len(start) < ENOUGH and PREFACE.startswith(start)):
            return
        self._forget()
        choice = PREFACE.startswith(start)
        frontends = self._frontends
        protocol = frontends.accept_grpc() if choice else frontends.accept_connect()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(self._buffer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()

    def shut_down(self) -> None:
        """Close: too slow, or the server stops."""
        if self._transport is not None:
            self._transport.abort()

    def _forget(self) -> None:
        self._connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
