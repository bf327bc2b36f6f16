"""What `konnectivity doctor` shows people: each finding as it comes, in words, and a sum.

All that others have chosen is made harmless here: one line, nothing that moves a cursor.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.text import Text

from konnectivity.diagnose.case import Case
from konnectivity.diagnose.check import Finding, Result, Severity, Verdict
from konnectivity.gotext import one_line

INDENT: Final = "    "
NARROWEST: Final = 40
MOST: Final = 10
"""Findings of one check that are shown in full."""
MARKS: Final = {
    Verdict.OK: ("✓", "green"),
    Verdict.WARNING: ("!", "yellow"),
    Verdict.ERROR: ("✗", "red"),
    Verdict.SKIPPED: ("-", "dim"),
    Verdict.UNKNOWN: ("?", "magenta"),
    Verdict.NOT_ASKED: ("·", "dim"),
    Verdict.SUPPRESSED: ("·", "dim"),
}
QUIET: Final = frozenset([Verdict.OK, Verdict.NOT_ASKED, Verdict.SUPPRESSED])
"""Shown on request only."""


@dataclass(frozen=True, slots=True)
class Page:
    """Where to write, and how much."""

    console: Console
    verbose: bool = False

    def show(self, result: Result) -> None:
        """One check, as soon as it is judged."""
        if result.verdict in QUIET and not self.verbose:
            return
        if not result.findings:
            reason = f"  {result.reason}" if result.reason else ""
            self._line(_mark(result.verdict), f"{result.check.code}  {result.check.title}{reason}")
        for finding in result.findings[:MOST]:
            is_error = result.severity_of(finding) is Severity.ERROR
            verdict = Verdict.ERROR if is_error else Verdict.WARNING
            self._line(_mark(verdict), f"{result.check.code}  {finding.subject}")
            for label, text in _parts(result, finding):
                self._wrapped(label, text)
        if (more := len(result.findings) - MOST) > 0:
            text = f"{result.check.code}  and {more} more: -o short shows all"
            self._line(_mark(result.verdict), text)

    def end(self, results: Sequence[Result], case: Case) -> None:
        """What could not be learned, and the sum."""
        for problem in case.facts.problems:
            self._line(_mark(Verdict.UNKNOWN), str(problem))
        self._line(Text(), summary(results))

    def _line(self, mark: Text, text: str) -> None:
        head = Text(f"{mark.plain} " if mark.plain else "", style=mark.style)
        self.console.print(head + Text(one_line(text)), soft_wrap=True, highlight=False)

    def _wrapped(self, label: str, text: str) -> None:
        """Wrapped on a terminal; a pipe gets one line, which others can cut."""
        plain = one_line(f"{label}{text}")
        lines = [plain]
        if self.console.is_terminal:
            width = max(NARROWEST, self.console.width - len(INDENT))
            lines = textwrap.wrap(plain, width, break_on_hyphens=False, break_long_words=False)
        for line in lines:
            self.console.print(Text(f"{INDENT}{line}"), soft_wrap=True, highlight=False)


def _parts(result: Result, finding: Finding) -> Iterator[tuple[str, str]]:
    yield "", finding.evidence
    for each in finding.said_by:
        yield "seen by ", each
    yield "do: ", finding.remedy
    yield "", result.check.docs


def _mark(verdict: Verdict) -> Text:
    mark, style = MARKS[verdict]
    return Text(mark, style=style)


def short(results: Iterable[Result]) -> Iterator[str]:
    """A line for each finding, for grep and for tickets."""
    for result in results:
        for each in result.findings:
            severity = result.severity_of(each).name.lower()
            yield one_line(f"{result.check.code} {severity} {each.subject}: {each.evidence}")
        if result.verdict is Verdict.UNKNOWN:
            yield one_line(f"{result.check.code} unknown {result.check.title}: {result.reason}")


def summary(results: Iterable[Result]) -> str:
    """How many checks came to which verdict."""
    counts = Counter(each.verdict for each in results)
    told = [f"{counts[verdict]} {verdict.value}" for verdict in Verdict if counts[verdict]]
    return ", ".join(told)
