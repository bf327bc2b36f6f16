"""What a program remembers of its peers, dials and tunnels for status and events.

Both programs keep one: at the server the peers are agents, at the agent servers. A peer is known
by its carrier, the object that carries its tunnels. Writing costs about a microsecond for each
dial; everything is bounded.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ssl import cert_time_to_seconds
from typing import Any, Final

from konnectivity.observe.certificate_status import CertificateFile
from konnectivity.observe.events import Events
from konnectivity.observe.status import Dial, PeerCertificate, Time
from konnectivity.observe.status_json import rfc3339

RECENT: Final = 100
"""Dials that are remembered, and again as many failed ones."""
REPEAT_AFTER: Final = 1.0
"""Seconds between events of dials that fail for the same reason: a flood hides all else."""
TURNED_AWAY: Final = 10
"""Peers turned away that are told one by one in each period: whoever reaches the port is one."""
TURNED_AWAY_PERIOD: Final = 10.0  # seconds
LONGEST_TEXT: Final = 256
"""Characters of what others have chosen: destinations, errors, subjects."""
LONGEST_ANNOUNCEMENT: Final = 64
"""Characters of a peer's user agent and version."""
VERSION_KEY: Final = "konnectivity-version"
"""Metadata of our own peers, in both directions; stock peers do not look at it."""

ATTRIBUTES: Final = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
}
"""Short names of a subject's parts (RFC 4514, 3)."""
NORMAL_ENDS: Final = frozenset(["frontend_close", "endpoint_close"])
LOST_PEER: Final = frozenset(["agent_lost", "shutdown"])
"""Ends of all tunnels of a peer at once, which the peer's own event tells of."""


@dataclass(slots=True)
class PeerRecord:
    """One connection to a peer, and what is over of its dials and tunnels.

    `measure` gives the round trip in seconds, None while it is unknown, and may ask for a new one.
    """

    id: str
    address: str
    software: str
    version: str
    credit: bool
    streams: bool
    certificate: PeerCertificate | None
    measure: Callable[[], float | None]
    since: float = field(default_factory=time.time)
    dials: int = 0
    failed: int = 0
    up: int = 0
    down: int = 0


class Journal:
    """The memory of one process. `peers` is what they are called: agent or server."""

    def __init__(self, events: Events, *, peers: str) -> None:
        self.peers: dict[object, PeerRecord] = {}
        """Those that are connected, in order of arrival."""
        self._events = events
        self._kind = peers
        self._recent: deque[tuple[float, str, str, str, float, str]] = deque(maxlen=RECENT)
        self._failures: deque[tuple[float, str, str, str, float, str]] = deque(maxlen=RECENT)
        self._told: dict[str, tuple[float, int]] = {}
        self._period = (0.0, 0)
        """Until when peers turned away are counted, and how many there were."""

    def connected(self, carrier: object, record: PeerRecord) -> None:
        """A peer is up."""
        self.peers[carrier] = record
        record.measure()
        self._events.publish(
            f"{self._kind}_connected",
            **{self._kind: record.id},
            address=record.address,
            version=record.version,
        )

    def disconnected(self, carrier: object, cause: str, *, tunnels: int | None = None) -> None:
        """A peer is gone, and took `tunnels` with it, where that is known."""
        record = self.peers.pop(carrier, None)
        if record is not None:
            self._events.publish(
                f"{self._kind}_disconnected",
                **{self._kind: record.id},
                address=record.address,
                cause=cause,
                tunnels=tunnels,
                seconds=round(time.time() - record.since, 3),
            )

    def turned_away(
        self, kind: str, address: str, error: str, *, peer: str = "", reason: str = ""
    ) -> None:
        """A peer did not get in: `kind` is `handshake_failed` or `<peer>_refused`."""
        now = time.time()
        until, count = self._period
        if now >= until:
            until, count = now + TURNED_AWAY_PERIOD, 0
        self._period = (until, count + 1)
        if count < TURNED_AWAY:
            facts = {self._kind: printable(peer, LONGEST_TEXT), "reason": reason} if peer else {}
            error = printable(error, LONGEST_TEXT)
            self._events.publish(kind, **facts, address=address, error=error)

    def dialed(
        self,
        carrier: object,
        destination: str,
        *,
        seconds: float,
        failure: str = "",
        error: str = "",
    ) -> None:
        """A dial ended, well unless there is a `failure`; with no known carrier it got nowhere."""
        record = self.peers.get(carrier)
        peer = ""
        if record is not None:
            peer = record.id
            record.dials += 1
        now = time.time()
        entry = (now, destination[:LONGEST_TEXT], peer, failure, seconds, error[:LONGEST_TEXT])
        self._recent.append(entry)
        if failure:
            self._failures.append(entry)
            if record is not None:
                record.failed += 1
            self._tell(now, failure, destination=destination, peer=peer, error=error)

    def _tell(self, now: float, failure: str, *, destination: str, peer: str, error: str) -> None:
        told, untold = self._told.get(failure, (0.0, 0))
        if now - told < REPEAT_AFTER:
            self._told[failure] = (told, untold + 1)
            return
        self._told[failure] = (now, 0)
        self._events.publish(
            "dial_failed",
            destination=destination,
            **{self._kind: peer},
            reason=failure,
            error=error,
            untold=untold,
        )

    def ended(
        self,
        carrier: object,
        destination: str,
        *,
        reason: str,
        error: str,
        seconds: float,
        traffic: tuple[int, int],
    ) -> None:
        """A tunnel is over; `traffic` is up and down in bytes."""
        record = self.peers.get(carrier)
        if record is not None:
            record.up += traffic[0]
            record.down += traffic[1]
        if reason in NORMAL_ENDS or reason in LOST_PEER:
            return
        self._events.publish(
            "tunnel_ended",
            destination=destination,
            **{self._kind: record.id if record is not None else ""},
            reason=reason,
            error=error,
            seconds=round(seconds, 3),
            bytesUp=traffic[0],
            bytesDown=traffic[1],
        )

    def certificate(self, kind: str, file: CertificateFile) -> None:
        """A certificate was reloaded or rejected, or it is about to expire."""
        self._events.publish(
            f"certificate_{kind}",
            flag=file.name,
            path=file.path,
            fingerprintSha256=file.in_use.fingerprint_sha256,
            notAfter=rfc3339(file.in_use.not_after),
            error=file.error,
        )

    @property
    def recent(self) -> tuple[Dial, ...]:
        """The last dials, newest first."""
        return tuple(map(_dial, reversed(self._recent)))

    @property
    def recent_failures(self) -> tuple[Dial, ...]:
        """The last that failed, likewise."""
        return tuple(map(_dial, reversed(self._failures)))


def _dial(entry: tuple[float, str, str, str, float, str]) -> Dial:
    moment, destination, peer, failure, seconds, error = entry
    return Dial(
        Time(moment),
        destination,
        peer,
        failure or "ok",
        round(seconds, 6),
        printable(error, LONGEST_TEXT),
    )


def announced(headers: Sequence[tuple[str, str]], key: str) -> str:
    """The first value of a peer's metadata, as `printable`; empty without one."""
    return printable(next((value for name, value in headers if name == key), ""))


def printable(text: str, longest: int = LONGEST_ANNOUNCEMENT) -> str:
    """What a peer says, cut, and without what could disturb a terminal."""
    return "".join(each if each.isprintable() else "?" for each in text[:longest])


def certificate_of(transport: asyncio.BaseTransport | None) -> PeerCertificate | None:
    """What the peer of a TLS connection has shown and was checked; None: no certificate."""
    if transport is None:
        return None
    found: Mapping[str, Any] | None = transport.get_extra_info("peercert")
    if not found:
        return None
    parts = [
        f"{ATTRIBUTES.get(kind, kind)}={value}"
        for part in found.get("subject", ())
        for kind, value in part
    ]
    subject = ", ".join(parts) or ", ".join(
        f"{kind}={value}" for kind, value in found.get("subjectAltName", ())
    )
    return PeerCertificate(
        printable(subject, LONGEST_TEXT), Time(cert_time_to_seconds(found["notAfter"]))
    )
