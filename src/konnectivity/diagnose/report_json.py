"""The same for programs: JSON with a versioned schema, and JUnit's XML.

Fields may be added to the JSON; one that goes away or changes its meaning changes `SCHEMA`.
In JUnit's form a check is a test case, and a finding its failure.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final
from xml.etree import ElementTree

from konnectivity.diagnose.case import Case
from konnectivity.diagnose.check import Finding, Result, Verdict
from konnectivity.diagnose.engine import exit_status
from konnectivity.gotext import one_line
from konnectivity.observe.status_json import rfc3339

SCHEMA: Final = "konnectivity.doctor/v1"


def to_json(results: Sequence[Result], case: Case) -> str:
    """One document."""
    return json.dumps(document(results, case), indent=2, ensure_ascii=False)


def document(results: Sequence[Result], case: Case) -> dict[str, Any]:
    """The document as plain data. Times are RFC 3339, durations seconds."""
    counts = Counter(each.verdict for each in results)
    status = exit_status(results)
    cluster = case.facts.cluster
    return {
        "schema": SCHEMA,
        "time": rfc3339(case.now),
        "cluster": cluster.url if cluster else None,
        "servers": [each.name for each in case.facts.servers],
        "healthy": status == 0,
        "exitStatus": status,
        "summary": {_word(each): counts[each] for each in Verdict},
        "checks": [_check(each) for each in results],
        "problems": [
            {
                "source": each.source,
                "what": each.what,
                "trouble": each.trouble,
                "reason": each.reason,
                "remedy": each.remedy,
            }
            for each in case.facts.problems
        ],
    }


def _check(result: Result) -> dict[str, Any]:
    check = result.check
    return {
        "code": check.code,
        "title": check.title,
        "layer": check.layer.value,
        "result": _word(result.verdict),
        "reason": result.reason,
        "blockedBy": list(result.blocked_by),
        "docs": check.docs,
        "durationSeconds": round(result.seconds, 6),
        "findings": [_finding(result, each) for each in result.findings],
    }


def _finding(result: Result, finding: Finding) -> dict[str, Any]:
    return {
        "severity": result.severity_of(finding).name.lower(),
        "subject": finding.subject,
        "evidence": finding.evidence,
        "saidBy": list(finding.said_by),
        "remedy": finding.remedy,
    }


def _word(verdict: Verdict) -> str:
    return {Verdict.NOT_ASKED: "notAsked"}.get(verdict, verdict.value)


def to_junit(results: Sequence[Result], case: Case) -> str:
    """One test suite. Warnings are failures too: who reads it wants to see them."""
    suite = ElementTree.Element(
        "testsuite",
        name="konnectivity doctor",
        timestamp=rfc3339(case.now),
        tests=str(len(results)),
        failures=str(sum(bool(each.findings) for each in results)),
        errors=str(sum(each.verdict is Verdict.UNKNOWN for each in results)),
        skipped=str(sum(each.verdict in _SKIPPED for each in results)),
    )
    for result in results:
        check = result.check
        test = ElementTree.SubElement(
            suite,
            "testcase",
            classname=f"konnectivity.{check.layer.value}",
            name=f"{check.code} {check.title}",
            time=f"{result.seconds:.6f}",
        )
        for finding in result.findings:
            severity = result.severity_of(finding).name.lower()
            failure = ElementTree.SubElement(
                test,
                "failure",
                type=severity,
                message=one_line(f"{finding.subject}: {finding.evidence}"),
            )
            lines = [*finding.said_by, f"do: {finding.remedy}", check.docs]
            failure.text = "\n".join(map(one_line, lines))
        if result.verdict is Verdict.UNKNOWN:
            ElementTree.SubElement(test, "error", message=one_line(result.reason))
        elif result.verdict in _SKIPPED:
            ElementTree.SubElement(test, "skipped", message=one_line(result.reason))
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)


_SKIPPED: Final = frozenset([Verdict.SKIPPED, Verdict.NOT_ASKED, Verdict.SUPPRESSED])
