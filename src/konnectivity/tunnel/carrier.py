"""The small interface behind which tunnels travel between server and agent.

The packet carrier (`server_packets.py`, `agent_packets.py`) puts all tunnels on one gRPC stream,
as upstream does. Between two peers of ours a tunnel that is open has an HTTP/2 stream of its own
(`server_streams.py`, `agent_streams.py`); its dial travels as a packet either way. Frontends and
endpoints do not notice which one they have.
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
    parallel: int
    """How many streams the agent wants to this server; 1: a further one is a duplicate."""

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


class Lane(Protocol):
    """What one open tunnel has waiting for the peer."""

    bytes: int
    """Taken from the source so far."""
    paused: bool
    """The source was told to pause."""

    @property
    def waiting(self) -> int:
        """Bytes that could not be sent yet."""

    def detach(self) -> None:
        """The source is gone: let go of it."""


class Way(Protocol):
    """How an open tunnel's bytes get from the server to its agent."""

    def send(self, tunnel: ServerTunnel, data: bytes) -> bool:
        """Send bytes to the endpoint; False: pause until `tunnel.resume`."""

    def end_sending(self, tunnel: ServerTunnel) -> bool:
        """The frontend sends no more and reads on; False: nothing can tell the agent so."""

    def close(self, tunnel: ServerTunnel) -> None:
        """Close an open tunnel behind the data sent so far; `tunnel.ended` follows."""

    def abandon(self, tunnel: ServerTunnel) -> None:
        """As `close`, but nobody waits for `tunnel.ended`."""

    def cut(self, tunnel: ServerTunnel) -> None:
        """Drop what still waits for the endpoint of an abandoned tunnel, and close it."""


class ChannelHandler(Protocol):
    """What a channel reports."""

    def received(self, data: memoryview) -> None:
        """Bytes of the peer; they stay as they are for as long as the view is kept."""

    def writable(self) -> None:
        """The channel is not full any more, or its end was sent."""

    def half_closed(self) -> None:
        """The peer sends no more."""

    def was_reset(self, code: int, text: str) -> None:
        """The stream is gone in both directions. Last of all reports."""


class Channel(Protocol):
    """A tunnel's own stream, as the shell offers it (net/channel.py)."""

    handler: ChannelHandler | None
    """Who hears of it; None: what comes in is dropped."""

    @property
    def backlog(self) -> int:
        """Bytes that wait to be sent."""

    def send(self, data: bytes | memoryview) -> bool:
        """Queue bytes; False: pause until `writable`."""

    def consume(self, size: int) -> None:
        """Let the peer send `size` bytes more."""

    def end(self) -> bool:
        """End our direction behind all data; False: it waits, `writable` follows."""

    def leave(self, code: int) -> bool:
        """Reset the stream behind all data; the answer is as that of `end`."""

    def abort(self, code: int) -> None:
        """Reset now; nothing is reported any more."""


class AgentWay(Protocol):
    """How an open tunnel's bytes get from the agent to its server."""

    def send(self, tunnel: AgentTunnel, data: memoryview) -> bool:
        """Send bytes to the frontend; False: pause until `tunnel.resume`. They are copied."""

    def end_sending(self, tunnel: AgentTunnel) -> bool:
        """The endpoint sends no more and reads on; False: nothing can tell the server so."""

    def ended(self, tunnel: AgentTunnel, reason: Reason) -> None:
        """The tunnel is over on this side; tell the server behind all data."""


class AgentCarrier(AgentWay, Protocol):
    """One server as the agent reaches it."""

    def opened(self, tunnel: AgentTunnel) -> None:
        """The endpoint answered."""

    def refused(self, tunnel: AgentTunnel, text: str) -> None:
        """The endpoint could not be reached; `text` in Go's wording."""
