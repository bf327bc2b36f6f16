"""The access log (`--access-log`): a line for each tunnel, when it has ended.

    "Access" address="10.0.0.7:10250" reason="frontend_close" bytesToEndpoint=512 ...

Nobody asks for more than a None while it is off.
"""

from __future__ import annotations

import time

from konnectivity.observe import logs
from konnectivity.tunnel.agent import AgentTunnel
from konnectivity.tunnel.reason import Failure, Reason
from konnectivity.tunnel.server import ServerTunnel

log = logs.get(__name__)


class Visit:
    """One dial at the server, and its tunnel if it succeeds. `frontend` is where it came from."""

    __slots__ = ("_began", "_dial_seconds", "_frontend")

    def __init__(self, frontend: str) -> None:
        self._frontend = frontend
        self._began = time.monotonic()
        self._dial_seconds = 0.0

    def dialed(self, tunnel: ServerTunnel, failure: Failure | None, error: str) -> None:
        """The dial ended; a failure is all there is to tell."""
        self._dial_seconds = time.monotonic() - self._began
        if failure is not None:
            self._write(tunnel, reason=failure.value, seconds=0.0, error=error)

    def ended(self, tunnel: ServerTunnel, *, reason: str, seconds: float, error: str) -> None:
        """The tunnel ended that had been open for `seconds`."""
        self._write(tunnel, reason=reason, seconds=seconds, error=error)

    def _write(self, tunnel: ServerTunnel, *, reason: str, seconds: float, error: str) -> None:
        log.info(
            "Access",
            address=tunnel.address,
            reason=reason,
            bytesToEndpoint=tunnel.lane.bytes if tunnel.lane else 0,
            bytesFromEndpoint=tunnel.intake.bytes if tunnel.intake else 0,
            seconds=round(seconds, 3),
            dialSeconds=round(self._dial_seconds, 6),
            agentID=tunnel.backend.agent_id,
            frontend=self._frontend,
            connectionID=tunnel.connect_id,
            error=error,
        )


def endpoint_ended(tunnel: AgentTunnel, seconds: float) -> None:
    """A tunnel of the agent ended that had been open for `seconds`."""
    log.info(
        "Access",
        address=tunnel.address,
        reason=(tunnel.reason or Reason.ENDPOINT_CLOSE).value,
        bytesToEndpoint=tunnel.intake.bytes if tunnel.intake else 0,
        bytesFromEndpoint=tunnel.lane.bytes if tunnel.lane else 0,
        seconds=round(seconds, 3),
        connectionID=tunnel.connect_id,
    )
