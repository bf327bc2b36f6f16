"""Why a tunnel ended and why a dial failed: the words used in logs, metrics and status."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Reason(StrEnum):
    """Why a tunnel is over. Every tunnel gets exactly one."""

    FRONTEND_CLOSE = "frontend_close"
    """The frontend closed it, or its connection went away."""
    ENDPOINT_CLOSE = "endpoint_close"
    """The endpoint ended its side."""
    ENDPOINT_RESET = "endpoint_reset"
    """Reading from or writing to the endpoint failed."""
    AGENT_LOST = "agent_lost"
    """The connection between agent and server ended."""
    OVERFLOW = "overflow"
    """The reading side was too slow for a peer that cannot be slowed down."""
    VIOLATION = "violation"
    """The frontend broke the protocol: a foreign connectID, an oversized packet."""
    DIAL_FAILED = "dial_failed"
    """It never came up."""
    SHUTDOWN = "shutdown"
    """This process is stopping."""


class Failure(StrEnum):
    """Why a dial failed, as `dial_failure_count` names it (upstream `pkg/server/metrics`)."""

    NO_AGENT = "no_agent"
    ERROR_RESPONSE = "error_response"
    BACKEND_CLOSE = "backend_close"
    TIMEOUT = "backend_dial_timeout"
    FRONTEND_CLOSE = "frontend_close"
    # Ours: upstream has no bound to reach and no check to fail.
    LIMIT = "limit"
    DUPLICATE = "duplicate"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A failed dial, for the frontend. `text` is upstream's literal where one exists.

    `by_packet` marks an agent's DIAL_CLS, which frontends answer differently from an error.
    `by_agent` says that the agent failed, not the endpoint: another agent may do better.
    """

    failure: Failure
    text: str
    by_packet: bool = False
    by_agent: bool = field(default=False, compare=False)
