"""The agents' side of the server: `Connect` calls.

Checks metadata and what the agent must show, then answers with the server's id and count.

Source: upstream `pkg/server/server.go`, `Connect`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from konnectivity.errors import AuthenticationError, RpcError
from konnectivity.net.grpc import Call
from konnectivity.net.h2 import H2Protocol, H2Settings
from konnectivity.observe import logs
from konnectivity.server.admission import WAITING, Admission
from konnectivity.server.agent_stream import AgentStream, Applicant
from konnectivity.server.authentication import Authentication
from konnectivity.server.exchange import Exchange
from konnectivity.server.lifetime import LifetimeLimits
from konnectivity.server.unimplemented import unimplemented
from konnectivity.tunnel.identifiers import Identifiers
from konnectivity.wire import grpc
from konnectivity.wire.events import Headers
from konnectivity.wire.packet import CREDIT_KEY

if TYPE_CHECKING:
    from konnectivity.kube.token_review import Account

log = logs.get(__name__)


def read_metadata(headers: Headers) -> tuple[str, Identifiers]:
    """The agent id of a `Connect` call, and what the agent says about itself.

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
    return ids[0], check_identifiers(identifiers[0] if identifiers else "")


def check_identifiers(text: str) -> Identifiers:
    """What an agent says about itself.

    Raises:
        RpcError: not a URL query, in the words of Go's parser.
    """
    try:
        return Identifiers.parse(text)
    except ValueError as error:
        text = f"fail to parse url encoded string: {error}"
        raise RpcError(grpc.UNKNOWN, text) from None


class Agents:
    """Keeps the agents' connections of one server.

    `server_count` is asked for each answer, and `announce` for metadata to add to it.
    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        server_id: str,
        server_count: Callable[[], int],
        h2: H2Settings,
        announce: Callable[[], list[tuple[str, str]]] = list,
        authentication: Authentication | None = None,
        lifetime: LifetimeLimits | None = None,
    ) -> None:
        self._exchange = exchange
        self._server_id = server_id
        self._server_count = server_count
        self._announce = announce
        self._authentication = authentication or Authentication()
        self._lifetime = lifetime or LifetimeLimits()
        self._h2 = h2
        self._connections: set[H2Protocol] = set()
        self._waiting: set[Admission] = set()

    def accept(self) -> H2Protocol:
        """The protocol of a new connection."""
        return H2Protocol(self, client=False, settings=self._h2)

    # Owner (net/h2.py)

    def call_received(self, call: Call) -> None:
        """An agent opened a call."""
        if call.path == grpc.CONNECT:
            self._apply(call)
        else:
            unimplemented(call, grpc.CONNECT)

    def _apply(self, call: Call) -> None:
        """Admit the agent, or refuse it with upstream's words, now or when its token is known."""
        agent_id = ""
        try:
            agent_id, identifiers = read_metadata(call.headers)
            refusal = self._authentication.gate.refusal(call.transport)
            if refusal:
                raise AuthenticationError(refusal, "certificate")  # noqa: TRY301
            token = self._authentication.token(call.headers)
        except (RpcError, AuthenticationError) as error:
            self._refuse(call, error, agent_id)
            return
        applicant = Applicant(call, agent_id, identifiers, token)
        if self._authentication.reviews is None:
            call.handler = self._admit(applicant)
        elif len(self._waiting) >= WAITING:
            text = f"{WAITING} agents wait for their token's review already"
            self._refuse(call, AuthenticationError(text, "overload"), agent_id)
        else:
            call.handler = Admission(
                call,
                review=lambda: self._authentication.review(token),
                waiting=self._waiting,
                admit=lambda account: self._admit(applicant, account),
                refuse=lambda error: self._refuse(call, error, agent_id),
            )

    def _admit(self, applicant: Applicant, account: Account | None = None) -> AgentStream:
        if account is not None:
            self._authentication.check_node(
                account, applicant.identifiers, address=applicant.address
            )
        if self._authentication.demanding:
            self._exchange.counters.authentications["accepted"] += 1
        count = ("servercount", str(self._server_count()))
        answer = [("serverid", self._server_id), count, *self._announce()]
        stream = AgentStream(applicant, self._exchange, answer)
        self._follow(stream, applicant.token)
        return stream

    def _follow(self, stream: AgentStream, token: str) -> None:
        limits = self._lifetime
        if token and limits.recheck:
            from konnectivity.kube.token_review import expiry

            review = functools.partial(self._authentication.review, token, anew=True)
            stream.live(limits, review=review, expires=expiry(token))
        elif limits.max_age:
            stream.live(limits, review=None, expires=None)

    def _refuse(self, call: Call, error: RpcError | AuthenticationError, agent_id: str) -> None:
        code, text, reason = grpc.UNKNOWN, str(error), "metadata"
        if isinstance(error, RpcError):
            code, text = error.code, error.message
        else:
            self._exchange.counters.authentications[error.outcome] += 1
            reason = error.outcome
        self._exchange.journal.turned_away(
            "agent_refused", call.peer, text, peer=agent_id, reason=reason
        )
        log.summarised(
            ("refused", text), "Agent refused", address=call.peer, agentID=agent_id, cause=text
        )
        call.refuse(code, text)

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

    def go_away(self) -> None:
        """Ask agents of ours to look for another server; stock ones would drop their tunnels."""
        for connection in list(self._connections):
            calls = connection.calls.values()
            heads = [call.headers for call in calls if isinstance(call, Call)]
            if any(grpc.metadata_values(head, CREDIT_KEY) for head in heads):
                connection.go_away()

    def abort(self) -> None:
        """Drop what has not taken its last bytes."""
        for connection in list(self._connections):
            connection.abort()

    def close(self) -> None:
        """End all connections; what is written gets a moment to leave."""
        for connection in list(self._connections):
            connection.close("the server is stopping")
