"""The small interface behind which tunnels travel between server and agent.

The packet carrier (`server_packets.py`, `agent_packets.py`) puts all tunnels on one gRPC stream,
as upstream does. Another carrier implements the same few calls; frontends and endpoints do not
notice which one they have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from konnectivity.tunnel.agent import AgentTunnel
    from konnectivity.tunnel.identifiers import Identifiers
    from konnectivity.tunnel.reason import Reason
    from konnectivity.tunnel.server import ServerTunnel


class Backend(Protocol):
    """One agent as the server reaches it. Answers arrive as calls on the tunnel."""

    agent_id: str
    identifiers: Identifiers
    draining: bool

    @property
    def load(self) -> int:
        """Tunnels and dials under way."""

    @property
    def silence(self) -> float | None:
        """Seconds for which a sign of life has been awaited; None: none is."""

    @property
    def waiting(self) -> ServerTunnel | None:
        """The dial that has waited longest for its answer."""

    def probe(self) -> None:
        """Ask for a sign of life, unless one is awaited."""

    def give_up(self, cause: str) -> None:
        """The agent does not answer: its dials go to others, where there are others."""

    def shut_down(self) -> None:
        """This process is stopping: end all dials and tunnels, and tell both sides."""

    def dial(self, tunnel: ServerTunnel) -> None:
        """Ask the agent to connect; `tunnel.opened` or `tunnel.refused` follows."""

    def cancel(self, tunnel: ServerTunnel) -> None:
        """Nobody waits for this dial any more."""

    def send(self, tunnel: ServerTunnel, data: bytes) -> bool:
        """Send bytes to the endpoint; False: pause until `tunnel.resume`."""

    def close(self, tunnel: ServerTunnel) -> None:
        """Close an open tunnel behind the data sent so far; `tunnel.ended` follows."""

    def abandon(self, tunnel: ServerTunnel) -> None:
        """As `close`, but nobody waits for `tunnel.ended`."""

    def cut(self, tunnel: ServerTunnel) -> None:
        """Drop what still waits for the endpoint of an abandoned tunnel, and close it."""


class AgentCarrier(Protocol):
    """One server as the agent reaches it."""

    def opened(self, tunnel: AgentTunnel) -> None:
        """The endpoint answered."""

    def refused(self, tunnel: AgentTunnel, text: str) -> None:
        """The endpoint could not be reached; `text` in Go's wording."""

    def send(self, tunnel: AgentTunnel, data: memoryview) -> bool:
        """Send bytes to the frontend; False: pause until `tunnel.resume`."""

    def ended(self, tunnel: AgentTunnel, reason: Reason) -> None:
        """The tunnel is over on this side; tell the server behind all data."""
