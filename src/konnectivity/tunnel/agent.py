"""One proxied connection as the agent sees it: a server there, an endpoint here.

    DIALING --connected--> OPEN --close/endpoint_closed--> CLOSED
       +---failed/cancel---------------------------------------^

Closing never throws away what the frontend sent: the endpoint's socket is flushed first (W1).
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from konnectivity.tunnel.carrier import AgentCarrier, AgentWay, Lane
from konnectivity.tunnel.intake import Intake, Sink
from konnectivity.tunnel.reason import Reason


class State(Enum):
    """Where a tunnel is in its life."""

    DIALING = "dialing"
    OPEN = "open"
    CLOSED = "closed"


class Endpoint(Sink, Protocol):
    """A connected target, as the shell offers it."""

    def pause_reading(self) -> None:
        """Stop taking bytes from the endpoint's socket: the kernel pushes back on it."""

    def resume_reading(self) -> None:
        """Go on."""

    def end_writing(self) -> None:
        """The frontend sends no more: tell the endpoint behind all bytes."""

    def finish(self) -> None:
        """Write out all that waits, within a time limit, then close."""

    def abort(self) -> None:
        """Close now, with a reset where bytes are lost."""


class Dialing(Protocol):
    """A dial under way in the shell."""

    def cancel(self) -> object:
        """Stop it; nothing is reported any more."""


class AgentTunnel:
    """One tunnel. `dialing` is set by the shell while the endpoint is being reached."""

    __slots__ = (
        "address",
        "carrier",
        "connect_id",
        "dialing",
        "endpoint",
        "half_closed",
        "intake",
        "lane",
        "number",
        "protocol",
        "random",
        "reason",
        "since",
        "state",
        "way",
    )

    def __init__(
        self, carrier: AgentCarrier, *, connect_id: int, random: int, protocol: str, address: str
    ) -> None:
        self.carrier = carrier
        self.way: AgentWay = carrier
        """How it travels, while it is open."""
        self.half_closed: Reason | None = None
        """Who has ended one direction, while the other goes on."""
        self.connect_id = connect_id
        self.random = random
        self.protocol = protocol
        self.address = address
        self.number = 0
        self.since = 0.0
        """Its place among all dials, and when its state began: the shell's, for the status."""
        self.state = State.DIALING
        self.reason: Reason | None = None
        self.dialing: Dialing | None = None
        self.endpoint: Endpoint | None = None
        self.intake: Intake | None = None
        self.lane: Lane | None = None

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes up to the endpoint and down from it."""
        up = self.intake.bytes if self.intake is not None else 0
        return up, self.lane.bytes if self.lane is not None else 0

    # From the shell

    def connected(self, endpoint: Endpoint) -> bool:
        """The endpoint answered. False when nobody wants it any more: close it."""
        self.dialing = None
        if self.state is not State.DIALING:
            return False
        self.state = State.OPEN
        self.endpoint = endpoint
        self.carrier.opened(self)
        return True

    def failed(self, text: str) -> None:
        """The endpoint could not be reached."""
        self.dialing = None
        if self.state is State.DIALING:
            self.state = State.CLOSED
            self.reason = Reason.DIAL_FAILED
            self.carrier.refused(self, text)

    def endpoint_data(self, data: memoryview) -> None:
        """Bytes from the endpoint, not empty; they are copied before this returns."""
        if self.state is State.OPEN and not self.way.send(self, data) and self.endpoint is not None:
            self.endpoint.pause_reading()

    def endpoint_ended(self) -> bool:
        """The endpoint sends no more; False: that ends the tunnel, `endpoint_closed` is due."""
        if self.state is not State.OPEN or self.half_closed or not self.way.end_sending(self):
            return False
        self.half_closed = Reason.ENDPOINT_CLOSE
        return True

    def endpoint_closed(self, reason: Reason) -> None:
        """The endpoint ended (`ENDPOINT_CLOSE`) or broke (`ENDPOINT_RESET`)."""
        endpoint = self.endpoint
        if self._close(reason):
            self.way.ended(self, reason)
            if endpoint is not None:
                endpoint.finish()

    def caught_up(self) -> None:
        """The endpoint's socket has room again."""
        if self.intake is not None:
            self.intake.caught_up()

    # From the carrier

    def frontend_ended(self) -> None:
        """The frontend sends no more, and may still read."""
        if self.half_closed:
            self.close()
        elif self.state is State.OPEN and self.endpoint is not None:
            self.half_closed = Reason.FRONTEND_CLOSE
            self.endpoint.end_writing()

    def received(self, data: bytes | memoryview) -> None:
        """Bytes for the endpoint; one that is too slow loses this tunnel, alone (W7)."""
        if self.state is State.OPEN and self.intake is not None and not self.intake.take(data):
            self.overflow()

    def overflow(self) -> None:
        """The endpoint is too slow for what is held."""
        self.fail(Reason.OVERFLOW)

    def fail(self, reason: Reason) -> None:
        """End an open tunnel from this side and tell both ends."""
        endpoint = self.endpoint
        if self._close(reason):
            self.way.ended(self, reason)
            if endpoint is not None:
                endpoint.abort()

    def shut_down(self) -> None:
        """This process is stopping: tell the server, flush the endpoint."""
        dialing = self.dialing
        self.failed(f"dial {self.protocol} {self.address}: the agent is stopping")
        if dialing is not None:
            dialing.cancel()
        self.close(Reason.SHUTDOWN)

    def close(self, reason: Reason = Reason.FRONTEND_CLOSE) -> None:
        """The frontend is done: flush, answer, close."""
        endpoint = self.endpoint
        if self._close(reason):
            self.way.ended(self, reason)
            if endpoint is not None:
                endpoint.finish()

    def lost(self, reason: Reason = Reason.AGENT_LOST) -> None:
        """The server is gone; nobody is left to tell."""
        endpoint = self.endpoint
        dialing, self.dialing = self.dialing, None
        self._close(reason)
        if dialing is not None:
            dialing.cancel()
        if endpoint is not None:
            endpoint.finish()

    def resume(self) -> None:
        """The way to the server has room again."""
        if self.state is State.OPEN and self.endpoint is not None:
            self.endpoint.resume_reading()

    def _close(self, reason: Reason) -> bool:
        was_open = self.state is State.OPEN
        self.state = State.CLOSED
        self.reason = self.reason or self.half_closed or reason
        if self.intake is not None:
            self.intake.release()
        if self.lane is not None:
            self.lane.detach()
        return was_open
