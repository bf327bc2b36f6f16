"""The distribution of restore times as a drawing: what part took no longer than which time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

WIDTH: Final = 640
HEIGHT: Final = 300
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 40, 42
LEAST, MOST = 0.001, 10.0
"""Seconds at both ends of the logarithmic axis."""
COLOURS: Final = ("#2a6f97", "#c1121f", "#588157", "#7b2cbf", "#bc6c25", "#333333")


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
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(LEFT, 18, title, anchor="start", size=14),
        *_axes(below),
    ]
    for number, (name, times) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        level = HEIGHT - 60 + 18 * (number - len(series))
        parts.append(f'<path d="{_curve(times)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(_text(WIDTH - RIGHT - 8, level + 18, name, colour=colour))
    return "\n".join([*parts, "</svg>", ""])


def _curve(times: Sequence[float]) -> str:
    points = [(_x(LEAST), _y(0.0))]
    for number, seconds in enumerate(sorted(times), 1):
        points.append((_x(seconds), _y(number / len(times))))
    points.append((_x(MOST), _y(1.0)))
    return "M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _axes(below: str) -> list[str]:
    parts = []
    for seconds, label in (
        (0.001, "1 ms"),
        (0.01, "10 ms"),
        (0.1, "100 ms"),
        (1, "1 s"),
        (10, "10 s"),
    ):
        parts.append(_line(_x(seconds), _y(0.0), _x(seconds), _y(1.0)))
        parts.append(_text(_x(seconds), HEIGHT - BOTTOM + 18, label, anchor="middle"))
    for part in (0.0, 0.25, 0.5, 0.75, 0.99):
        parts.append(_line(_x(LEAST), _y(part), _x(MOST), _y(part)))
        parts.append(_text(LEFT - 6, _y(part) + 4, f"{part:.0%}"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, below, anchor="middle"))
    return parts


def _x(seconds: float) -> float:
    seconds = min(max(seconds, LEAST), MOST)
    part = math.log(seconds / LEAST) / math.log(MOST / LEAST)
    return LEFT + part * (WIDTH - LEFT - RIGHT)


def _y(part: float) -> float:
    return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:.1f},{y1:.1f} L{x2:.1f},{y2:.1f}" stroke="#ddd"/>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "end", size: int = 12, colour: str = "#222"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="{colour}">{text}</text>'
    )
