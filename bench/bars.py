"""Charts of figures side by side, as SVG: bars, and spans from one figure to another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TypeVar

from bench.plot import COLOURS, RIGHT, WIDTH, label, opening, powers, rule, ticks

LEFT = 16  # of title and labels
BEGIN = 228  # of the bars
VALUE = 64  # kept for the figure behind the longest bar
HEAD, FOOT = 62, 44
BAR, GAP = 16, 14

Value = TypeVar("Value")
Rows = Mapping[str, Mapping[str, float]]
Spans = Mapping[str, Mapping[str, tuple[float, float]]]


def bar_chart(title: str, rows: Rows, *, unit: str = "") -> str:
    """Return bars by row and name; what a row lacks is left out.

    All rows have one scale in `unit`. Without a unit each has its own: its figures differ from
    those of others in kind.
    """
    names = _names(rows)
    most = max((value for row in rows.values() for value in row.values()), default=1.0)
    end = WIDTH - RIGHT - VALUE
    marks = ticks(most) if unit else []
    parts = _begin(title, rows, names)
    for mark in marks:
        at = BEGIN + mark / marks[-1] * (end - BEGIN)
        parts += _mark(at, f"{mark:g}", rows)
    for name, row_label, value, y in _places(rows, names, parts):
        whole = marks[-1] if marks else max(rows[row_label].values())
        width = value / whole * (end - BEGIN) if whole else 0.0
        parts.append(
            f'<rect x="{BEGIN}" y="{y:.1f}" width="{width:.1f}" height="{BAR - 2}"'
            f' fill="{_colour(names, name)}"/>'
        )
        parts.append(label(BEGIN + width + 6, y + BAR - 5, _number(value)))
    return _end(parts, rows, unit)


def span_chart(title: str, rows: Spans, *, unit: str) -> str:
    """Return a line from the lower to the upper figure of each name; the axis is logarithmic."""
    names = _names(rows)
    ends = [end for row in rows.values() for span in row.values() for end in span]
    marks = powers([(end, 0.0) for end in ends])
    low, high = math.log10(marks[0]), math.log10(marks[-1])

    def at_x(value: float) -> float:
        return BEGIN + (math.log10(value) - low) / (high - low) * (WIDTH - RIGHT - VALUE - BEGIN)

    parts = _begin(title, rows, names)
    for mark in marks:
        parts += _mark(at_x(mark), f"{mark:g}", rows)
    for name, _, (lower, upper), y in _places(rows, names, parts):
        colour, middle = _colour(names, name), y + BAR / 2 - 1
        parts.append(
            f'<path d="M{at_x(lower):.1f} {middle:.1f} H{at_x(upper):.1f}" stroke="{colour}"/>'
        )
        parts += [
            f'<circle cx="{at_x(value):.1f}" cy="{middle:.1f}" r="4" fill="{colour}"/>'
            for value in (lower, upper)
        ]
        parts.append(label(at_x(upper) + 9, middle + 4, _number(upper)))
    return _end(parts, rows, unit)


def _names(rows: Mapping[str, Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows.values() for name in row))


def _colour(names: list[str], name: str) -> str:
    return COLOURS[names.index(name) % len(COLOURS)]


def _bottom(rows: Mapping[str, Mapping[str, object]]) -> float:
    return HEAD + sum(len(row) * BAR + GAP for row in rows.values())


def _begin(title: str, rows: Mapping[str, Mapping[str, object]], names: list[str]) -> list[str]:
    """Title and legend."""
    parts = opening(title, _bottom(rows) + FOOT, left=LEFT)
    x: float = LEFT
    for name in names:
        parts.append(f'<rect x="{x}" y="34" width="12" height="12" fill="{_colour(names, name)}"/>')
        parts.append(label(x + 18, 45, name))
        x += 40 + 8 * len(name)
    return parts


def _mark(at: float, text: str, rows: Mapping[str, Mapping[str, object]]) -> list[str]:
    bottom = _bottom(rows)
    return [rule(at, HEAD - 6, at, bottom), label(at, bottom + 16, text, anchor="middle")]


def _places(
    rows: Mapping[str, Mapping[str, Value]], names: list[str], parts: list[str]
) -> Iterator[tuple[str, str, Value, float]]:
    """Label the rows; each figure with its name, its row and the height of its place."""
    y: float = HEAD
    for row_label, row in rows.items():
        parts.append(label(LEFT, y + len(row) * BAR / 2 + 4, row_label))
        for name in names:
            if name in row:
                yield name, row_label, row[name], y
                y += BAR
        y += GAP


def _end(parts: list[str], rows: Mapping[str, Mapping[str, object]], unit: str) -> str:
    if unit:
        middle = (BEGIN + WIDTH - RIGHT - VALUE) / 2
        parts.append(label(middle, _bottom(rows) + 36, unit, anchor="middle"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
