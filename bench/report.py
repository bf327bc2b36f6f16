"""From samples to a table for people and a document for machines."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.row import DIRECT, Figure, Row
from bench.run import LIMITS, Plan, Taken

BASELINE = "ref"
UNRATED = (BASELINE, *LIMITS, DIRECT)  # what pairs are compared with


@dataclass(frozen=True, slots=True)
class Outcome:
    """One figure of one row in one mode, by pair and by round."""

    mode: str
    row: str
    figure: Figure
    taken: dict[str, list[Taken]]

    def failed(self, pair: str) -> bool:
        """Whether any round of the row met an error."""
        return any(one.errors for one in self.taken.get(pair, ()))

    def values(self, pair: str) -> list[float]:
        """Return the figure, one number per round; none if the row failed or was not taken."""
        if self.failed(pair):
            return []
        return [self.figure.value(one.values) for one in self.taken.get(pair, ())]

    def median(self, pair: str) -> float | None:
        """Return the median of the rounds."""
        return median(values) if (values := self.values(pair)) else None

    def ratio(self, pair: str) -> float | None:
        """Return how much better `pair` is than the reference: above 1 is better.

        The median of the ratios within each round, so that a machine which is slower in one
        round than in the next does not count.
        """
        if pair in UNRATED or BASELINE not in self.taken:
            return None
        both = zip(self.values(pair), self.values(BASELINE), strict=False)
        ratios = [
            (theirs / ours if self.figure.less_is_better else ours / theirs)
            for ours, theirs in both
            if ours and theirs
        ]
        return median(ratios) if ratios else None

    def goal(self, pair: str) -> float | None:
        """Return the ratio that `pair` is to reach, if it has a goal."""
        return self.figure.least(self.mode, pair) if pair not in UNRATED else None

    def met(self, pair: str) -> bool | None:
        """Return whether it did; None where there is no goal or no ratio."""
        goal, ratio = self.goal(pair), self.ratio(pair)
        return ratio >= goal if goal is not None and ratio is not None else None

    def cpu(self, pair: str) -> tuple[float, float] | None:
        """Return the median CPU seconds of server and agent for the whole row."""
        samples = self.taken.get(pair, ())
        if not samples or not all("server_cpu" in one.values for one in samples):
            return None
        return (
            median(one.values["server_cpu"] for one in samples),
            median(one.values["agent_cpu"] for one in samples),
        )


def outcomes(
    taken: Sequence[Taken], mode: str, rows: Sequence[Row], *, beside: str = ""
) -> list[Outcome]:
    """Sort the samples of `mode`, and of the mode `beside` it, by row, figure and pair."""
    found = []
    for row in rows:
        by_pair: dict[str, list[Taken]] = {}
        for one in taken:
            if one.row == row.name and one.mode in (mode, beside):
                by_pair.setdefault(one.pair, []).append(one)
        if by_pair:
            found += [Outcome(mode, row.name, figure, by_pair) for figure in row.figures]
    return found


def print_tables(console: Console, plan: Plan, taken: Sequence[Taken]) -> None:
    """Print one table per mode, and under them what went wrong; Markdown if not to a terminal."""
    tables = [mode for mode in plan.modes if mode != DIRECT] or [DIRECT]
    for mode in tables:
        if found := outcomes(taken, mode, plan.rows, beside=DIRECT):
            console.print(mode, style="bold")
            console.print(_table(found, box.HEAVY_HEAD if console.is_terminal else box.MARKDOWN))
            console.print()
    for one in taken:
        if one.errors:
            console.print(
                f"failed: {one.mode}, {one.row}, {one.pair}, round {one.round + 1}: "
                f"{one.errors} errors, the first: {one.error}",
                style="red",
                markup=False,
                highlight=False,
            )


def _table(found: Sequence[Outcome], style: box.Box) -> Table:
    """Lay out the figures of one mode: value per pair, ratio per pair, goal, CPU per pair."""
    taken = dict.fromkeys(pair for outcome in found for pair in outcome.taken)
    pairs = sorted(taken, key=lambda pair: (pair == DIRECT, pair in LIMITS))
    rated = [pair for pair in pairs if pair not in UNRATED] if BASELINE in pairs else []
    table = Table(box=style)
    table.add_column("row")
    table.add_column("unit")
    for pair in pairs:
        table.add_column(pair, justify="right")
    for pair in rated:
        of = "" if len(rated) == 1 else f" {pair}"
        table.add_column(f"ratio{of}", justify="right")
        table.add_column(f"goal{of}", justify="right")
    measured = [pair for pair in pairs if pair != DIRECT]
    for pair in measured:
        table.add_column(f"CPU s {pair}", justify="right")
    previous = ""
    for outcome in found:
        cells: list[str | Text] = [outcome.figure.label, outcome.figure.unit]
        cells += [_value(outcome, pair) for pair in pairs]
        for pair in rated:
            cells += [_ratio(outcome, pair), _goal(outcome, pair)]
        is_first = outcome.row != previous
        cells += [_cpu(outcome, pair) if is_first else "" for pair in measured]
        table.add_row(*cells)
        previous = outcome.row
    return table


def _value(outcome: Outcome, pair: str) -> Text:
    if pair not in outcome.taken:
        return Text("-")
    value = outcome.median(pair)
    if value is None:
        return Text("failed", "red")
    return Text(f"{value:,.0f}" if value >= 100 else f"{value:.1f}")


def _ratio(outcome: Outcome, pair: str) -> Text:
    ratio = outcome.ratio(pair)
    if ratio is None:
        return Text("-")
    style = {True: "green", False: "bold red", None: "dim"}[outcome.met(pair)]
    return Text(f"{ratio:.2f}", style)


def _goal(outcome: Outcome, pair: str) -> str:
    goal = outcome.goal(pair)
    return f"{goal:.2g}" if goal is not None else ""


def _cpu(outcome: Outcome, pair: str) -> str:
    cpu = outcome.cpu(pair)
    return f"{cpu[0]:.2f} + {cpu[1]:.2f}" if cpu else ""


def document(plan: Plan, taken: Sequence[Taken]) -> dict[str, Any]:
    """Return everything as one JSON-ready value: figures by row, then every sample as taken."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": _cpu_model(),
            "cpus": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
        },
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "pairs": [*(spec.name for spec in plan.pairs), *plan.limits],
        "figures": [
            _figure(outcome) for mode in plan.modes for outcome in outcomes(taken, mode, plan.rows)
        ],
        "samples": [asdict(one) for one in taken],
    }


def _figure(outcome: Outcome) -> dict[str, Any]:
    ratios = {pair: ratio for pair in outcome.taken if (ratio := outcome.ratio(pair)) is not None}
    return {
        "mode": outcome.mode,
        "row": outcome.row,
        "figure": outcome.figure.label,
        "unit": outcome.figure.unit,
        "median": {pair: outcome.median(pair) for pair in outcome.taken},
        "rounds": {pair: outcome.values(pair) for pair in outcome.taken},
        "ratio": ratios,
        "goal": {pair: goal for pair in ratios if (goal := outcome.goal(pair)) is not None},
        "met": {pair: met for pair in ratios if (met := outcome.met(pair)) is not None},
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
