"""One connection from the agent to one server: TCP, TLS, HTTP/2, `Connect`, then packets.

Every step has a time limit and a name (`LinkError.stage`), so that a silent server or middlebox
costs one attempt, not the agent (W29), and a refusal says why.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from konnectivity.errors import LinkError, RpcError
from konnectivity.net import handshake, tcp
from konnectivity.net.connect import connect_server
from konnectivity.net.grpc import Call
from konnectivity.net.h2 import H2Protocol, H2Settings
from konnectivity.observe import logs
from konnectivity.tunnel.agent_packets import EndpointDialer, PacketLink
from konnectivity.tunnel.budget import Budget, TunnelLimits
from konnectivity.wire import grpc
from konnectivity.wire.events import Headers
from konnectivity.wire.grpc import Oversized
from konnectivity.wire.keepalive import ACK_LIMIT

log = logs.get(__name__)

ANSWER_LIMIT: Final = 20.0
"""Seconds for the server's SETTINGS, and again for its response head. Upstream waits for ever."""
MAX_TOKEN: Final = 64 << 10
CREDIT_KEY: Final = "konnectivity-credit"
"""Metadata of our own peers: both sides send it, then both speak CREDIT (docs/credit.md)."""


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
    answer_limit: float = ANSWER_LIMIT


class ServerLink:
    """One connection to one server. Made by `connect`."""

    def __init__(self, options: LinkOptions, dialer: EndpointDialer, budget: Budget) -> None:
        self.server_id = ""
        self.server_count = 0
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done, with the cause, when the link is over."""
        self.packets: PacketLink | None = None
        self._options = options
        self._dialer = dialer
        self._budget = budget
        self._h2: H2Protocol | None = None
        self._call: Call | None = None
        self._answer: asyncio.Future[Headers] = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(
        cls,
        options: LinkOptions,
        context: ssl.SSLContext,
        dialer: EndpointDialer,
        budget: Budget,
    ) -> ServerLink:
        """A link that is up: the server has answered with its id.

        Raises:
            LinkError: with the stage that failed; nothing is left open.
        """
        link = cls(options, dialer, budget)
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
        metadata.append((CREDIT_KEY, "1"))
        sock = await connect_server(options.host, options.port)
        tcp.tune(sock, user_timeout=ACK_LIMIT)
        try:
            _, self._h2 = await handshake.secure(
                lambda: H2Protocol(self, client=True, settings=options.h2),
                sock,
                context,
                server_host=options.host,
            )
        except OSError as error:
            raise LinkError("tls", f"{self._where}: {handshake.explain(error)}") from error
        try:
            async with asyncio.timeout(options.answer_limit):
                await self._h2.ready
                self._call = self._h2.open_call(self._request(metadata), self)
                answer = await self._answer
        except TimeoutError as error:
            raise LinkError(
                "headers", f"{self._where}: no answer to Connect within {options.answer_limit:g} s"
            ) from error
        self._read_answer(answer)

    @property
    def _where(self) -> str:
        return f"server {self._options.host}:{self._options.port}"

    def _request(self, metadata: Headers) -> Headers:
        authority = f"{self._options.host}:{self._options.port}"
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

    # CallHandler (net/grpc.py)

    def headers(self, headers: Headers) -> None:
        """The server's answer; packets may follow in the same read."""
        if self._call is None or self.packets is not None:
            return
        self.packets = PacketLink(
            self._call,
            self._dialer,
            credit=bool(grpc.metadata_values(headers, CREDIT_KEY)),
            limits=self._options.limits,
            budget=self._budget,
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
        cause = str(error) if error else "the server ended the call"
        if not self._answer.done():
            self._answer.set_exception(LinkError("stream", f"{self._where}: {cause}"))
            self._answer.exception()  # nobody may be waiting any more
        if self.packets is not None:
            self.packets.lost()
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
