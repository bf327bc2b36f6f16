"""One proxied connection as the server sees it: a frontend here, an agent there.

    DIALING --opened--> OPEN --close--> CLOSING --ended--> CLOSED
       |                  |                                  ^
       +---refused/leave--+-------- ended/leave -------------+

The tunnel couples a `Frontend` of the shell with a `Backend` (carrier). All calls come from one
thread; none blocks. Whatever happens, the frontend hears `opened` or `refused` once, and after
`opened` `closed` once, unless it left by itself.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from konnectivity.tunnel.budget import TunnelLimits
from konnectivity.tunnel.carrier import Backend, Lane, Way
from konnectivity.tunnel.intake import Intake, Sink
from konnectivity.tunnel.reason import Failure, Reason, Refusal


class State(Enum):
    """Where a tunnel is in its life."""

    DIALING = "dialing"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Frontend(Sink, Protocol):
    """The side of kube-apiserver, as the shell offers it."""

    def opened(self, connect_id: int) -> None:
        """The endpoint answered."""

    def refused(self, refusal: Refusal) -> None:
        """The dial failed; the tunnel is over."""

    def closed(self, reason: Reason, error: str) -> None:
        """The tunnel is over; all bytes of the endpoint were written before."""

    def end_writing(self) -> bool:
        """The endpoint sends no more: pass that on behind its bytes; False: that cannot be."""

    def pause_reading(self) -> None:
        """Stop taking bytes from the frontend's socket."""

    def resume_reading(self) -> None:
        """Go on."""


class Watcher(Protocol):
    """Who keeps the time and the counts of a tunnel, as the shell offers it."""

    def dialed(self, tunnel: ServerTunnel, failure: Failure | None, text: str) -> None:
        """The dial ended: None for success."""

    def ended(self, tunnel: ServerTunnel, error: str) -> None:
        """A tunnel that had been open is over."""

    def retry(self, tunnel: ServerTunnel) -> bool:
        """Start the dial again at another agent, if that may be; whether it was."""


class ServerTunnel:
    """One tunnel. `random` is the dial id, `connect_id` (0 while dialing) the agent's number."""

    __slots__ = (
        "_limits",
        "_watcher",
        "address",
        "backend",
        "connect_id",
        "frontend",
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
        self,
        frontend: Frontend,
        backend: Backend,
        *,
        random: int,
        protocol: str,
        address: str,
        watcher: Watcher,
        limits: TunnelLimits,
    ) -> None:
        self.frontend: Frontend | None = frontend
        self.backend = backend
        self.random = random
        self.protocol = protocol
        self.address = address
        self.connect_id = 0
        self.number = 0
        self.since = 0.0
        """Its place among all dials, and when its state began: the watcher's, for the status."""
        self.state = State.DIALING
        self.reason: Reason | None = None
        self.lane: Lane | None = None
        self.intake: Intake | None = None
        self.way: Way | None = None
        """How it travels, while it is open."""
        self.half_closed: Reason | None = None
        """Who has ended one direction, while the other goes on."""
        self._watcher = watcher
        self._limits = limits

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes up to the endpoint and down from it."""
        up = self.lane.bytes if self.lane is not None else 0
        return up, self.intake.bytes if self.intake is not None else 0

    # From the frontend

    def send(self, data: bytes) -> None:
        """Bytes for the endpoint, not empty. Pauses the frontend where the way is full."""
        if self.state is not State.OPEN or self.way is None:
            return
        if not self.way.send(self, data) and self.frontend is not None:
            self.frontend.pause_reading()

    def end_sending(self) -> bool:
        """The frontend sends no more and reads on; False: only `leave` can end this tunnel."""
        if self.state is not State.OPEN or self.way is None or not self.way.end_sending(self):
            return False
        if self.half_closed:
            self.ended(Reason.ENDPOINT_CLOSE, "")
        self.half_closed = Reason.FRONTEND_CLOSE
        return True

    def close(self) -> None:
        """The frontend asked to close and waits for `closed` (W9: it gets no more data)."""
        if self.state is State.OPEN:
            self.state = State.CLOSING
            self.reason = Reason.FRONTEND_CLOSE
            self._release()
            if self.way is not None:
                self.way.close(self)

    def leave(self, reason: Reason = Reason.FRONTEND_CLOSE) -> None:
        """The frontend is gone and will hear nothing more, in whatever state (W19, W21)."""
        state = self.state
        if state is State.CLOSED:
            return
        self._end(reason)
        if state is State.DIALING:
            self.backend.cancel(self)
            self._watcher.dialed(self, Failure.FRONTEND_CLOSE, "the frontend left")
        else:
            self._abandon()
            self._watcher.ended(self, "")

    def _abandon(self) -> None:
        if self.way is not None:
            self.way.abandon(self)

    def time_out(self) -> None:
        """The dial is out of time; the text is upstream's."""
        if self.state is State.DIALING:
            self.backend.cancel(self)
            self.refused(Refusal(Failure.TIMEOUT, "timed out waiting for backend dial"))

    def shut_down(self) -> None:
        """This process is stopping: a clean end for both sides, in whatever state."""
        if self.state is State.DIALING:
            self.backend.cancel(self)
            self.refused(Refusal(Failure.SHUTDOWN, "the server is stopping"))
        else:
            self.fail(Reason.SHUTDOWN, "")

    def move(self) -> None:
        """The agent does not answer: dial elsewhere, or go on waiting."""
        silent = self.backend
        if self.state is State.DIALING and self._watcher.retry(self):
            silent.cancel(self)

    def caught_up(self) -> None:
        """The frontend's socket has room again."""
        if self.intake is not None and self.state is State.OPEN:
            self.intake.caught_up()

    # From the backend

    def opened(self, connect_id: int, intake: Intake, lane: Lane, way: Way) -> None:
        """The agent reached the endpoint."""
        self.way = way
        self.connect_id = connect_id
        self.state = State.OPEN
        self.intake = intake
        self.lane = lane
        self._watcher.dialed(self, None, "")
        if self.frontend is not None:
            self.frontend.opened(connect_id)

    def refused(self, refusal: Refusal) -> None:
        """The dial failed; if it was the agent's fault another one may be tried."""
        if self.state is not State.DIALING:
            return
        if refusal.by_agent and self._watcher.retry(self):
            return
        frontend = self._end(Reason.DIAL_FAILED)
        self._watcher.dialed(self, refusal.failure, refusal.text)
        if frontend is not None:
            frontend.refused(refusal)

    def received(self, data: bytes | memoryview) -> None:
        """Bytes from the endpoint. A frontend too slow for them loses this tunnel, alone (W6)."""
        if self.state is State.OPEN and self.intake is not None and not self.intake.take(data):
            self.overflow()

    def overflow(self) -> None:
        """The frontend is too slow for what is held."""
        if self.intake is not None:
            unsent = self.intake.sink.unsent
            self.fail(
                Reason.OVERFLOW, f"frontend reads too slowly: {unsent} bytes were waiting for it"
            )

    def fail(self, reason: Reason, error: str) -> None:
        """End an open tunnel from this side and tell both ends."""
        if self.state in (State.OPEN, State.CLOSING):
            self.reason = self.reason or reason
            self._abandon()
            self.ended(reason, error)

    def resume(self) -> None:
        """The way to the agent has room again."""
        if self.state is State.OPEN and self.frontend is not None:
            self.frontend.resume_reading()

    def endpoint_ended(self) -> None:
        """The endpoint sends no more, and may still read."""
        if self.state is not State.OPEN:
            return
        if self.half_closed or self.frontend is None or not self.frontend.end_writing():
            self.ended(Reason.ENDPOINT_CLOSE, "")
            self._abandon()
        self.half_closed = Reason.ENDPOINT_CLOSE

    def ended(self, reason: Reason, error: str) -> None:
        """The tunnel is over on the agent's side, or the agent itself is gone (W22)."""
        if self.state is State.DIALING:
            self.refused(Refusal(Failure.BACKEND_CLOSE, error, by_agent=True))
        elif self.state is not State.CLOSED:
            frontend = self._end(reason)
            self._watcher.ended(self, error)
            if frontend is not None:
                frontend.closed(self.reason or reason, error)

    def _end(self, reason: Reason) -> Frontend | None:
        """Enter the last state; who is still to be told."""
        self.state = State.CLOSED
        self.reason = self.reason or self.half_closed or reason
        self._release()
        frontend, self.frontend = self.frontend, None
        return frontend

    def _release(self) -> None:
        if self.intake is not None:
            self.intake.release()
        if self.lane is not None:
            self.lane.detach()
