"""Draws what a run has found: `python -m bench.charts FILE OUTDIR`.

FILE is what `python -m bench --json` or `python -m bench.scale measure` wrote; OUTDIR gets SVG
files, whose names are printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.bars import bar_chart, span_chart
from bench.plot import line_chart
from bench.row import DIRECT

MICROSECONDS = 1e6
MEGABYTES = 1e-6
COUNT = "how many there are"


def main() -> int:
    """Draw all charts that the file is good for; 0, or 2 if it is good for none."""
    parser = argparse.ArgumentParser(prog="python -m bench.charts", description="Charts of a run.")
    parser.add_argument("file", type=Path, help="JSON of python -m bench or python -m bench.scale")
    parser.add_argument("outdir", type=Path, help="where the SVG files go; it is made")
    arguments = parser.parse_args()
    try:
        document = json.loads(arguments.file.read_text())
        charts = list(draw(document))
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"bench.charts: {arguments.file} is no run of ours: {error}", file=sys.stderr)
        return 2
    arguments.outdir.mkdir(parents=True, exist_ok=True)
    for name, chart in charts:
        target = arguments.outdir / f"{name}.svg"
        target.write_text(chart)
        print(target)
    return 0


def draw(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Return charts and their names."""
    if "figures" not in document:
        yield from _scale(document)
        return
    for mode in dict.fromkeys(figure["mode"] for figure in document["figures"]):
        if mode != DIRECT:
            figures = [one for one in document["figures"] if one["mode"] == mode]
            for name, chart in _mode(figures):
                yield f"{name}-{mode}", chart.replace("@", mode)


def _mode(figures: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Charts of one mode; `@` stands for it."""
    for name, title, unit, scale in (
        ("throughput", "Throughput, @", "MB/s", "MB/s"),
        ("rates", "Operations per second, @ (each row has its own scale)", "/s", ""),
        ("memory", "Memory, @", "MB", "MB"),
    ):
        rows = {figure["figure"]: _medians(figure) for figure in figures if figure["unit"] == unit}
        if rows := {label: row for label, row in rows.items() if row}:
            yield name, bar_chart(title, rows, unit=scale)
    spans: dict[str, dict[str, tuple[float, float]]] = {}
    medians = {figure["figure"]: _medians(figure) for figure in figures if figure["unit"] == "us"}
    for label, upper in medians.items():
        head, _, percentile = label.rpartition(", ")
        lower = medians.get(f"{head}, p50", {})
        if percentile == "p99" and (both := {p: (lower[p], upper[p]) for p in lower if p in upper}):
            spans[head] = both
    if spans:
        yield "latency", span_chart("Round trip, median to 99th percentile, @", spans, unit="us")


def _medians(figure: dict[str, Any]) -> dict[str, float]:
    return {pair: value for pair, value in figure["median"].items() if value}


def _scale(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Charts of what agents and tunnels cost one server, step by step."""
    agents, tunnels = document["agents"], document["tunnels"]
    dials = {
        "agents, of which any is dialled": [
            (step["agents"], step["dial"] * MICROSECONDS) for step in agents
        ],
        "agents, of which one is dialled": [
            (step["agents"], step["dial_same"] * MICROSECONDS) for step in agents
        ],
        "open tunnels": [(step["tunnels"], step["dial"] * MICROSECONDS) for step in tunnels],
    }
    if dials := {name: points for name, points in dials.items() if points}:
        yield (
            "dials-by-scale",
            line_chart("A dial and close beside so many", dials, logarithmic=True, x=COUNT, y="us"),
        )
    memory = {
        "server, by agents": [(step["agents"], step["rss"] * MEGABYTES) for step in agents],
        "server, by tunnels": [
            (step["tunnels"], step["server_rss"] * MEGABYTES) for step in tunnels
        ],
        "agent, by tunnels": [(step["tunnels"], step["agent_rss"] * MEGABYTES) for step in tunnels],
    }
    if memory := {name: points for name, points in memory.items() if points}:
        yield "memory-by-scale", line_chart("Memory of a process", memory, x=COUNT, y="MB")


if __name__ == "__main__":
    sys.exit(main())
