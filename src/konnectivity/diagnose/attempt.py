"""One try at the way from an agent to a server, by whoever made it, and why it failed.

A probe from here, an agent's heartbeat and an agent's own status all say the same thing, with the
same stages (`LinkError.stage`) and words, so the same checks read all of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Cause(StrEnum):
    """Why an attempt failed, as far as one end can tell."""

    NONE = "none"
    NO_SUCH_NAME = "no such name"
    NO_NAME_SERVER = "no answer to the name"
    REFUSED = "refused"
    TIMED_OUT = "timed out"
    UNREACHABLE = "unreachable"
    PROHIBITED = "prohibited"
    RESET = "reset"
    PROXY_REFUSED = "refused by the proxy"
    PROXY_AWAY = "proxy not reached"
    PLAIN_HTTP = "plain HTTP"
    NOT_TLS = "no TLS"
    INTERCEPTED = "intercepted"
    NO_ALPN = "no HTTP/2"
    UNTRUSTED = "unknown CA"
    EXPIRED = "expired"
    NOT_YET_VALID = "not valid yet"
    WRONG_NAME = "wrong name"
    OURS_REFUSED = "our certificate refused"
    LARGE_FRAMES = "large packets lost"
    SILENT = "silent"
    TOKEN = "token refused"  # noqa: S105 - a cause, not a secret
    TOKEN_UNREVIEWED = "token not reviewed"  # noqa: S105 - likewise
    PINGS = "too many pings"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try. `stage` is empty and `cause` NONE if it came through.

    `origin` is the node, the agent or `here`; `target` the server's id or `host:port`, `address`
    the one IP address that was tried, if only one was. `witness` says, for people, who tells.
    `sources` are addresses from which a server would see the origin. `notes` are further evidence.
    `times` is how often in a row it failed so. `latency` is that of TCP and TLS, in seconds.
    """

    origin: str
    target: str
    witness: str
    address: str = ""
    stage: str = ""
    cause: Cause = Cause.NONE
    error: str = ""
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    at: float = 0.0
    times: int = 1
    latency: float | None = None

    @property
    def worked(self) -> bool:
        return self.cause is Cause.NONE

    @property
    def hop(self) -> tuple[str, str]:
        """Its two ends: what checks block each other by."""
        return self.origin, self.target

    @property
    def addresses(self) -> tuple[str, ...]:
        """The `address:port` pairs that were tried, as far as its words have them."""
        found = _ADDRESS.findall(f"{self.target} {self.address} {self.error}")
        return tuple(dict.fromkeys(found))

    def __str__(self) -> str:
        where = f" ({self.address})" if self.address and self.address != self.target else ""
        return f"{self.origin} → {self.target}{where}"


_ADDRESS: Final = re.compile(r"(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[[0-9a-f:.%]+\]):[0-9]+")
_WORDS: Final[tuple[tuple[str, str, Cause], ...]] = (
    # Stage (empty: any), words of net/ and server/ in the error, what they mean. First match wins.
    ("name", "no answer", Cause.NO_NAME_SERVER),
    ("name", "temporary failure", Cause.NO_NAME_SERVER),
    ("name", "", Cause.NO_SUCH_NAME),
    ("proxy", "cannot connect to proxy", Cause.PROXY_AWAY),
    ("proxy", "cannot resolve proxy", Cause.PROXY_AWAY),
    ("proxy", "", Cause.PROXY_REFUSED),
    ("tcp", "connection refused", Cause.REFUSED),
    ("tcp", "reset by peer", Cause.RESET),
    ("tcp", "permission denied", Cause.PROHIBITED),
    ("tcp", "operation not permitted", Cause.PROHIBITED),
    ("tcp", "invalid argument", Cause.PROHIBITED),
    ("tcp", "unreachable", Cause.UNREACHABLE),
    ("tcp", "no route to host", Cause.UNREACHABLE),
    ("tcp", "no answer", Cause.TIMED_OUT),
    ("tcp", "timed out", Cause.TIMED_OUT),
    ("alpn", "", Cause.NO_ALPN),
    ("tls", "speaks plain http", Cause.PLAIN_HTTP),
    ("tls", "does not speak tls", Cause.NOT_TLS),
    ("tls", "has expired, by", Cause.EXPIRED),
    ("tls", "of its ca has expired", Cause.EXPIRED),
    ("tls", "is not valid yet", Cause.NOT_YET_VALID),
    ("tls", "subject alternative names", Cause.WRONG_NAME),
    ("tls", "ca of our bundle", Cause.UNTRUSTED),
    ("tls", "our ca of that name did not make", Cause.UNTRUSTED),
    ("tls", "of our certificate", Cause.OURS_REFUSED),
    ("tls", "our certificate", Cause.OURS_REFUSED),
    ("tls", "client certificate", Cause.OURS_REFUSED),
    ("tls", "no complete handshake", Cause.SILENT),
    ("tls", "reset the connection", Cause.RESET),
    ("tls", "closed the connection", Cause.RESET),
    ("token", "", Cause.TOKEN),
    ("", "too_many_pings", Cause.PINGS),
    ("", "failed to authenticate request", Cause.TOKEN_UNREVIEWED),
    ("", "failed to validate authentication token", Cause.TOKEN),
    ("", "authentication context was not found", Cause.TOKEN),
    ("", "identifiers ", Cause.TOKEN),
    ("", "our certificate", Cause.OURS_REFUSED),
    ("", "client certificate", Cause.OURS_REFUSED),
    ("", "no answer to connect", Cause.SILENT),
)


def classify(stage: str, error: str) -> Cause:
    """What a failed attempt's stage and words mean."""
    text = error.lower()
    for at, words, cause in _WORDS:
        if at in ("", stage) and words in text:
            return cause
    return Cause.OTHER
