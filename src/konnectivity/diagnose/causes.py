"""Why things are as they are: what the checks of `konnectivity doctor` find in the same facts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from konnectivity.diagnose.case import Case
from konnectivity.diagnose.catalogue import CHECKS
from konnectivity.diagnose.engine import run
from konnectivity.diagnose.facts import Facts
from konnectivity.gotext import one_line


@dataclass(frozen=True, slots=True)
class Cause:
    """One finding: its stable code, whether it is an error, what it is about, evidence, remedy."""

    code: str
    error: bool
    subject: str
    text: str
    remedy: str


def causes(facts: Facts) -> Iterator[Cause]:
    """Findings in the order of the catalogue: causes before symptoms."""
    for result in run(CHECKS, Case(facts=facts)):
        for each in result.findings:
            severity = each.severity or result.check.severity
            yield Cause(
                code=result.check.code,
                error=severity.name == "ERROR",
                subject=one_line(each.subject),
                text=one_line(each.evidence),
                remedy=one_line(each.remedy),
            )
