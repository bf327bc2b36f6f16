"""A check as data, and what comes of one: `Check`, `Finding`, `Result`.

A check is a pure function from a `Case` to findings. It says nothing of output and asks nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from konnectivity.diagnose.case import Case

DOCS: Final = "docs/checks"


class Layer(StrEnum):
    """Where a fault is, in the order in which causes come before symptoms."""

    INSTALLATION = "installation"
    NETWORK = "network"
    CERTIFICATES = "certificates"
    MESH = "mesh"
    TARGETS = "targets"
    LOAD = "load"
    LIFECYCLE = "lifecycle"
    DISRUPTION = "disruption"


class Severity(IntEnum):
    """How bad a finding is; the number is the exit status that it asks for."""

    WARNING = 1
    ERROR = 2


class Source(StrEnum):
    """Where facts come from. A check without what it needs is not asked."""

    SERVERS = "servers"
    AGENTS = "agents"
    CLUSTER = "cluster"
    ATTEMPTS = "attempts"
    DIALS = "dials"
    SPEC = "spec"
    EGRESS = "egress"
    CLOCKS = "clocks"


class Verdict(StrEnum):
    """What became of a check."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"
    SKIPPED = "skipped"
    """A cause that was found before explains whatever it would have said."""
    UNKNOWN = "unknown"
    """What it needs was asked for and not answered."""
    NOT_ASKED = "not asked"
    """This run has no source of what it needs."""
    SUPPRESSED = "suppressed"


About = tuple[str, ...]
"""What a finding is about: () all of it, (agent,), or (origin, target). A finding explains every
later one about the same thing or a part of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong. `said_by` are the viewpoints, each a witness and what it saw.

    `remedy` is what to do, a command where there is one. Without a `severity` it is the check's.
    `explains` are further things that later findings may be about. `under` is the other way round:
    further things that this is a part of, and that a cause may be about.
    """

    subject: str
    evidence: str
    said_by: tuple[str, ...]
    remedy: str
    about: About = ()
    severity: Severity | None = None
    explains: tuple[About, ...] = ()
    under: tuple[About, ...] = ()


Evaluate = Callable[["Case"], Iterable[Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One row of the catalogue. Codes are stable: one that is retired is never used again.

    `needs` are alternatives, each of them enough. `blocked_by` are codes of causes. `unknown` gives
    why facts that it needs could not be had; empty if they could.
    """

    code: str
    title: str
    layer: Layer
    evaluate: Evaluate
    needs: tuple[Source, ...]
    severity: Severity = Severity.ERROR
    blocked_by: tuple[str, ...] = ()
    unknown: Callable[[Case], str] = lambda _: ""

    @property
    def docs(self) -> str:
        """The page that tells more."""
        return f"{DOCS}/{self.code}.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one check. `blocked_by` are the codes that explain it, if it was skipped.

    `reason` says why there is no verdict. `seconds` is how long it took.
    """

    check: Check
    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    blocked_by: tuple[str, ...] = ()
    reason: str = ""
    seconds: float = 0.0

    def severity_of(self, finding: Finding) -> Severity:
        return finding.severity or self.check.severity
