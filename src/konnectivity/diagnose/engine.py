"""Runs checks in order: causes before symptoms, and what a cause explains is not told again."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from konnectivity.diagnose.case import Case
from konnectivity.diagnose.check import About, Check, Finding, Result, Severity, Source, Verdict
from konnectivity.gotext import one_line

log = logging.getLogger(__name__)

HEALTHY, COULD_NOT_TELL = 0, 3

WAY: Final = frozenset([Source.ATTEMPTS, Source.AGENTS])
"""What checks of the way from agents to servers need, and nothing else."""

Known = dict[str, list[About]]
"""What each code has found something about."""


def run(checks: Sequence[Check], case: Case, *, suppress: Collection[str] = ()) -> Iterator[Result]:
    """The results, each as soon as it is there. What is suppressed blocks nothing."""
    known: Known = {}
    roots: dict[str, tuple[str, ...]] = {}
    for check in checks:
        if check.code in suppress:
            yield Result(check=check, verdict=Verdict.SUPPRESSED, reason="suppressed")
            continue
        result = _judge(check, case, known)
        if result.verdict is Verdict.SKIPPED:
            found = (root for code in result.blocked_by for root in roots.get(code, (code,)))
            roots[check.code] = tuple(dict.fromkeys(found))
            reason = f"blocked by {', '.join(roots[check.code])}"
            result = replace(result, blocked_by=roots[check.code], reason=reason)
        yield result


def exit_status(results: Iterable[Result]) -> int:
    """0 healthy, 1 warnings, 2 errors, 3 could not tell."""
    results = list(results)
    found = [each.severity_of(finding) for each in results for finding in each.findings]
    if Severity.ERROR in found:
        return int(Severity.ERROR)
    told = any(each.verdict in (Verdict.OK, Verdict.WARNING) for each in results)
    if not told or any(each.verdict is Verdict.UNKNOWN for each in results):
        return COULD_NOT_TELL
    return int(Severity.WARNING) if found else HEALTHY


def _judge(check: Check, case: Case, known: Known) -> Result:
    if not any(source in case.sources for source in check.needs):
        return _without_facts(check, case)
    started = time.perf_counter()
    try:
        found = list(check.evaluate(case))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # Objects and answers of others may have any shape; the other checks go on.
        log.debug("Cannot judge", exc_info=error)
        reason = f"what was read makes no sense: {one_line(repr(error))}"
        return Result(check=check, verdict=Verdict.UNKNOWN, reason=reason)
    left, blockers = _unexplained(found, check, known)
    # What is not told again still stands for its cause.
    known[check.code] = [about for each in found for about in (each.about, *each.explains)]
    seconds = time.perf_counter() - started
    if left:
        worst = max(each.severity or check.severity for each in left)
        verdict = Verdict.ERROR if worst is Severity.ERROR else Verdict.WARNING
        return Result(check=check, verdict=verdict, findings=tuple(left), seconds=seconds)
    blockers = blockers or _blocks_all(check, known) or _blocks_way(check, case, known)
    if blockers:
        return Result(check=check, verdict=Verdict.SKIPPED, blocked_by=blockers, seconds=seconds)
    if why := check.unknown(case):
        return Result(check=check, verdict=Verdict.UNKNOWN, reason=why, seconds=seconds)
    return Result(check=check, verdict=Verdict.OK, seconds=seconds)


def _without_facts(check: Check, case: Case) -> Result:
    asked = [source for source in check.needs if source in case.asked]
    if asked:
        return Result(check=check, verdict=Verdict.UNKNOWN, reason=case.silence(asked[0]))
    wanted = " or ".join(check.needs)
    return Result(check=check, verdict=Verdict.NOT_ASKED, reason=f"needs {wanted}")


def _unexplained(
    found: Sequence[Finding], check: Check, known: Known
) -> tuple[list[Finding], tuple[str, ...]]:
    """The findings that no cause explains, and the causes of the others."""
    left, blockers = [], dict[str, None]()
    for finding in found:
        causes = [code for code in check.blocked_by if _explains(known.get(code, ()), finding)]
        if causes:
            blockers[causes[0]] = None
        else:
            left.append(finding)
    return left, tuple(blockers)


def _blocks_all(check: Check, known: Known) -> tuple[str, ...]:
    """Causes about everything: then silence says nothing."""
    return tuple(code for code in check.blocked_by if () in known.get(code, ()))[:1]


def _blocks_way(check: Check, case: Case, known: Known) -> tuple[str, ...]:
    """What ended every attempt before it came so far as this check looks."""
    looks = case.sources.intersection(check.needs)
    if not WAY.issuperset(looks) or any(each.worked for each in case.attempts):
        return ()
    return tuple(code for code in check.blocked_by if known.get(code))[:1]


def _explains(causes: Iterable[About], finding: Finding) -> bool:
    parts = (finding.about, *finding.under)
    return any(part[: len(cause)] == cause for cause in causes for part in parts)
