"""When to ping a silent peer, when to give it up, and when its own pings are too many.

Pure arithmetic on times that the caller brings, in seconds of one steady clock. The rules are
gRPC's (gRFC A8 for the client, A9 for the server) with upstream's numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

ACK_LIMIT: Final = 20.0
"""Seconds a PING may stay unanswered (upstream's keepalive time-out on every hop)."""
MAX_STRIKES: Final = 2
"""Early pings that are forgiven; the next one ends the connection."""
IDLE_INTERVAL: Final = 7200.0
"""Least interval of pings without streams where those are not permitted (A9: two hours)."""


class Verdict(Enum):
    """What `Keepalive.check` asks for."""

    WAIT = "wait"
    PING = "ping"
    DEAD = "dead"


class Keepalive:
    """Our own pings: one after `interval` of silence, then `ACK_LIMIT` for any sign of life.

    `pinged` is when a ping went out that nothing has followed; None: there is none such.
    """

    __slots__ = ("_ack_limit", "_heard", "_interval", "pinged")

    def __init__(self, *, interval: float, ack_limit: float = ACK_LIMIT, now: float) -> None:
        self._interval = interval
        self._ack_limit = ack_limit
        self._heard = now
        self.pinged: float | None = None

    def heard(self, now: float) -> None:
        """Bytes of any kind came from the peer."""
        self._heard = now
        self.pinged = None

    def check(self, now: float) -> tuple[Verdict, float]:
        """What to do now, and when to ask again."""
        if self.pinged is not None:
            limit = self.pinged + self._ack_limit
            return (Verdict.DEAD, limit) if now >= limit else (Verdict.WAIT, limit)
        due = self._heard + self._interval
        if now < due:
            return Verdict.WAIT, due
        return Verdict.PING, self.asked(now)

    def asked(self, now: float) -> float:
        """A ping goes out, due or not; when to `check` for its answer."""
        self.pinged = now
        return now + self._ack_limit


@dataclass(frozen=True, slots=True)
class PingPolicy:
    """What a server tolerates: pings at least `interval` apart, with or without open streams."""

    interval: float
    without_streams: bool


AGENT_PINGS: Final = PingPolicy(interval=30.0, without_streams=True)
"""Agent listener, as upstream enforces it (`cmd/server/app/server.go`)."""
FRONTEND_PINGS: Final = PingPolicy(interval=300.0, without_streams=False)
"""gRPC frontend listener: the library default upstream leaves in force."""


class PingJudge:
    """Counts early pings of one peer. Three strikes: GOAWAY `too_many_pings`."""

    __slots__ = ("_last", "_policy", "_strikes")

    def __init__(self, policy: PingPolicy) -> None:
        self._policy = policy
        self._last = float("-inf")
        self._strikes = 0

    def tolerates(self, now: float, *, after_content: bool, streams: int) -> bool:
        """Whether this ping may pass. Content we sent in between forgives all strikes."""
        least = self._policy.interval
        if not streams and not self._policy.without_streams:
            least = IDLE_INTERVAL
        early = now - self._last < least
        self._last = now
        if after_content:
            self._strikes = 0
        elif early:
            self._strikes += 1
        return self._strikes <= MAX_STRIKES
