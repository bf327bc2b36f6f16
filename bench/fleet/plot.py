"""The distribution of restore times as a drawing: what part took no longer than which time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench.plot import line_chart

LEAST: Final = 0.001
"""Seconds; what was faster is drawn there, for the axis is logarithmic."""


def plot(figures: dict[str, Any]) -> str:
    """An SVG with a curve for each of the two disturbances."""
    title = f"Restore times, {figures['clusters']} clusters, one manager"
    below = "from the watch event of a deletion to the object existing again"
    series = {
        "all clusters whole": figures["all_whole"],
        f"{figures['broken']} of them broken": figures["some_broken"],
    }
    return distribution(title, series, below=below)


def distribution(title: str, series: Mapping[str, Sequence[float]], *, below: str) -> str:
    """An SVG with a curve for each of `series`, in seconds; `below` says what they are."""
    curves = {name: _curve(times) for name, times in series.items()}
    return line_chart(title, curves, x=f"ms {below}", y="% of all", logarithmic=True)


def _curve(times: Sequence[float]) -> list[tuple[float, float]]:
    """Milliseconds, and the percentage that took no longer."""
    return [
        (max(seconds, LEAST) * 1000, 100 * number / len(times))
        for number, seconds in enumerate(sorted(times), 1)
    ]
