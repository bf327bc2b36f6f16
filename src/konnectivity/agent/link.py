"""One connection from the agent to one server: TCP, TLS, HTTP/2, `Connect`, then packets.

Every step has a time limit and a name (`LinkError.stage`), so that a silent server or middlebox
costs one attempt, not the agent (W29), and a refusal says why.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from konnectivity import __version__
from konnectivity.errors import LinkError, RpcError
from konnectivity.net import handshake, tcp
from konnectivity.net.address import join_host_port
from konnectivity.net.connect import CONNECT_TIMEOUT, Resolve, connect_server
from konnectivity.net.grpc import Call
from konnectivity.net.h2 import H2Protocol, H2Settings
from konnectivity.net.proxy import Proxy, connect_through
from konnectivity.net.throttle import Throttle
from konnectivity.observe import logs
from konnectivity.observe.journal import VERSION_KEY, PeerRecord, announced, certificate_of
from konnectivity.tunnel.agent_packets import EndpointDialer, PacketLink
from konnectivity.tunnel.budget import Budget, TunnelLimits
from konnectivity.wire import announcement, grpc, parallel, tunnel_stream
from konnectivity.wire.events import Headers
from konnectivity.wire.grpc import Oversized
from konnectivity.wire.keepalive import ACK_LIMIT
from konnectivity.wire.packet import CREDIT_KEY

log = logs.get(__name__)

ANSWER_LIMIT: Final = 20.0
"""Seconds for the server's SETTINGS, and again for its response head. Upstream waits for ever."""
MAX_TOKEN: Final = 64 << 10
WINDOW: Final = 512 << 10
"""Bytes of packets that a server may have under way at first (wire/bandwidth.py)."""


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """What all connections of one agent have in common. `token_path` may be empty."""

    host: str
    port: int
    agent_id: str
    identifiers: str
    token_path: str
    h2: H2Settings
    limits: TunnelLimits
    streams: bool = True
    """Whether tunnels get streams of their own where the server takes them."""
    bare_authority: bool = False  # of grpc-go with a client certificate; servers ignore it
    proxy: Proxy | None = None
    connections: int = 1
    """To each server that knows what to do with several."""
    answer_limit: float = ANSWER_LIMIT

    @property
    def authority(self) -> str:
        """The `:authority` of `Connect`."""
        return self.host if self.bare_authority else join_host_port(self.host, self.port)


@dataclass(frozen=True, slots=True)
class Target:
    """Where one attempt goes over TCP; TLS and gRPC go by `LinkOptions` all the same."""

    host: str
    port: int
    timeout: float = CONNECT_TIMEOUT
    resolve: Resolve | None = None

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)


class ServerLink:
    """One connection to one server. Made by `connect`."""

    def __init__(
        self,
        options: LinkOptions,
        dialer: EndpointDialer,
        budget: Budget,
        target: Target | None = None,
    ) -> None:
        self.server_id = ""
        self.server_count = 0
        self.announced: Mapping[str, str] = {}
        """Addresses of all servers by id, if this one tells (wire/announcement.py)."""
        self.parallel = 1
        """How many connections this server wants of us."""
        self.address = ""
        """The IP address that it is connected to; empty behind a proxy."""
        self.since = asyncio.get_running_loop().time()
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done, with the cause, when the link is over."""
        self.packets: PacketLink | None = None
        self._throttle: Throttle | None = None
        self.error: RpcError | None = None
        """What broke it, once it is over; None: one side said goodbye."""
        self._said_goodbye = False
        self._options = options
        self._target = target or Target(options.host, options.port)
        self._dialer = dialer
        self._budget = budget
        self._h2: H2Protocol | None = None
        self._version = ""
        self._credit = False
        self._streams = False
        self._call: Call | None = None
        self._answer: asyncio.Future[Headers] = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(
        cls,
        options: LinkOptions,
        context: ssl.SSLContext,
        dialer: EndpointDialer,
        budget: Budget,
        *,
        target: Target | None = None,
    ) -> ServerLink:
        """A link that is up: the server has answered with its id.

        Without a `target` it goes where the options say.

        Raises:
            LinkError: with the stage that failed; nothing is left open.
        """
        link = cls(options, dialer, budget, target)
        try:
            await link._open(context)
        except BaseException:
            link.abort()
            raise
        return link

    async def _open(self, context: ssl.SSLContext) -> None:
        options = self._options
        metadata = [("agentid", options.agent_id), ("agentidentifiers", options.identifiers)]
        if options.token_path:
            metadata.append(("authorization", f"Bearer {read_token(options.token_path)}"))
        metadata += [(CREDIT_KEY, "1"), (VERSION_KEY, __version__)]
        if options.streams:
            metadata.append((tunnel_stream.KEY, "1"))
        if options.connections > 1:
            metadata.append((parallel.KEY, str(options.connections)))
        connection = await self._connect()
        try:
            _, self._h2 = await handshake.secure(
                lambda: H2Protocol(self, client=True, settings=options.h2),
                connection,
                context,
                server_host=options.host,
            )
        except OSError as error:
            stage = "alpn" if handshake.is_about_alpn(error) else "tls"
            raise LinkError(stage, f"{self._where}: {handshake.explain(error)}") from error
        try:
            async with asyncio.timeout(options.answer_limit):
                await self._h2.ready
                self._call = self._h2.open_call(self._request(metadata), self)
                self._call.widen(WINDOW)
                answer = await self._answer
        except TimeoutError as error:
            raise LinkError(
                "headers", f"{self._where}: no answer to Connect within {options.answer_limit:g} s"
            ) from error
        self._read_answer(answer)

    async def _connect(self) -> socket.socket | asyncio.Transport:
        proxy, target = self._options.proxy, self._target
        if proxy is not None:
            return await connect_through(
                proxy,
                target.host,
                target.port,
                user_timeout=ACK_LIMIT,
                timeout=target.timeout,
            )
        sock = await connect_server(
            target.host, target.port, timeout=target.timeout, resolve=target.resolve
        )
        tcp.tune(sock, user_timeout=ACK_LIMIT)
        self.address = sock.getpeername()[0]
        return sock

    @property
    def _where(self) -> str:
        way = f" through proxy {self._options.proxy}" if self._options.proxy else ""
        return f"server {self._target}{way}"

    def _request(self, metadata: Headers) -> Headers:
        authority = self._options.authority
        return grpc.request_headers(grpc.CONNECT, authority=authority, metadata=metadata)

    def _read_answer(self, headers: Headers) -> None:
        ids = grpc.metadata_values(headers, "serverid")
        counts = grpc.metadata_values(headers, "servercount")
        if len(ids) != 1:
            text = f"expected one server ID in the context, got [{' '.join(ids)}]"
            raise LinkError("headers", f"{self._where}: {text}")
        if len(counts) != 1:
            raise LinkError(
                "headers", f"{self._where}: expected one server count, got {len(counts)}"
            )
        try:
            self.server_count = int(counts[0])
        except ValueError as error:
            text = f"server count {counts[0]!r} is not a number"
            raise LinkError("headers", f"{self._where}: {text}") from error
        self.server_id = ids[0]
        granted = parallel.decode(grpc.metadata_values(headers, parallel.KEY))
        self.parallel = min(granted, self._options.connections)
        self.announced = announcement.decode(
            next(iter(grpc.metadata_values(headers, announcement.KEY)), "")
        )

    def record(self) -> PeerRecord:
        """What the status says of the server."""
        h2 = self._h2
        return PeerRecord(
            id=self.server_id,
            address=h2.peer if h2 is not None else "",
            software="",  # gRPC servers do not say
            version=self._version,
            credit=self._credit,
            streams=self._streams,
            certificate=certificate_of(h2.transport) if h2 is not None else None,
            measure=lambda: h2.measure() if h2 is not None else None,
        )

    # CallHandler (net/grpc.py)

    def headers(self, headers: Headers) -> None:
        """The server's answer; packets may follow in the same read."""
        if self._call is None or self.packets is not None:
            return
        self._version = announced(headers, VERSION_KEY)
        self._credit = bool(grpc.metadata_values(headers, CREDIT_KEY))
        self._throttle = None if self._credit else Throttle(self._call)
        self._streams = self._options.streams and bool(
            grpc.metadata_values(headers, tunnel_stream.KEY)
        )
        self.packets = PacketLink(
            self._call,
            self._dialer,
            credit=self._credit,
            limits=self._options.limits,
            budget=self._budget,
            throttle=self._throttle,
            open_channel=self._call.open_channel if self._streams else None,
        )
        if not self._answer.done():
            self._answer.set_result(headers)

    def message(self, message: memoryview | Oversized) -> None:
        """One packet of the server."""
        if self.packets is not None:
            self.packets.message(message)

    def writable(self) -> None:
        """The connection has room again."""
        if self.packets is not None:
            self.packets.outbox.flow()

    def half_closed(self) -> None:
        """Not for clients."""

    def ended(self, error: RpcError | None) -> None:
        """The call is over, and with it the link and all its tunnels."""
        self.error = None if self._said_goodbye else error
        cause = str(error) if error else "the server ended the call"
        if not self._answer.done():
            self._answer.set_exception(LinkError("stream", f"{self._where}: {cause}"))
            self._answer.exception()  # nobody may be waiting any more
        if self.packets is not None:
            self.packets.lost()
        if self._throttle is not None:
            self._throttle.close()
        if not self.closed.done():
            self.closed.set_result(cause)
        if self._h2 is not None:
            self._h2.close(cause)

    # Owner (net/h2.py)

    def call_received(self, call: Call) -> None:
        """Not for clients."""

    def connection_started(self, connection: H2Protocol) -> None:
        """TLS is up; `_open` goes on."""

    def connection_ended(self, connection: H2Protocol, cause: str) -> None:
        """All calls have ended before."""
        if not self.closed.done():
            self.closed.set_result(cause)

    # Ending

    @property
    def going_away(self) -> bool:
        """The server takes no new calls: another connection is wanted, this one still works."""
        return self._h2 is not None and self._h2.going_away

    @property
    def tunnels(self) -> int:
        """Open tunnels and dials."""
        return len(self.packets.tunnels) + len(self.packets.pending) if self.packets else 0

    def drain(self) -> None:
        """Ask the server to prefer other agents."""
        if self.packets is not None:
            self.packets.drain()

    def close(self) -> None:
        """Say goodbye and close."""
        self._said_goodbye = True
        if self._call is not None:
            self._call.half_close()
        if self._h2 is not None:
            self._h2.close("the agent is stopping")

    def abort(self) -> None:
        """Close now."""
        if self._h2 is not None:
            self._h2.abort()


def read_token(path: str) -> str:
    """The bearer token of a file, without the white space around it.

    Raises:
        LinkError: unreadable, empty or too large: this attempt fails, the agent lives on (W27).
    """
    try:
        token = Path(path).read_bytes()[: MAX_TOKEN + 1].strip()
    except OSError as error:
        raise LinkError("token", f"cannot read token file {path}: {error.strerror}") from error
    if not token or len(token) > MAX_TOKEN or not token.isascii() or b"\n" in token:
        raise LinkError("token", f"token file {path} holds no token: one line of ASCII is wanted")
    return token.decode()
