"""Line charts as SVG that a browser shows in a page, light or dark, without anything else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 32, 44, 52
# Told apart by people who do not see red and green alike (Okabe and Ito, 2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 2", "10 4")

Points = Sequence[tuple[float, float]]

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-size: 15px; font-weight: 600 }
.paper { fill: #ffffff } .grid { stroke: #d0d7de } path { fill: none; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .paper { fill: #0d1117 } .grid { stroke: #30363d }
}
"""


def line_chart(
    title: str, lines: Mapping[str, Points], *, x: str, y: str, logarithmic: bool = False
) -> str:
    """Return a chart with a legend; `x` and `y` name the axes, with their units.

    With `logarithmic` the x axis is; points at 0 and below are then left out. The y axis begins
    at 0.
    """
    kept = {
        name: [(at, value) for at, value in points if at > 0 or not logarithmic]
        for name, points in lines.items()
    }
    every = [point for points in kept.values() for point in points]
    x_ticks = powers(every) if logarithmic else ticks(max(at for at, _ in every))
    y_ticks = ticks(max(value for _, value in every))
    left = x_ticks[0]
    place = math.log10 if logarithmic else float
    low, high = place(left), place(x_ticks[-1])

    def at_x(value: float) -> float:
        return LEFT + (place(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def at_y(value: float) -> float:
        return HEIGHT - BOTTOM - value / y_ticks[-1] * (HEIGHT - TOP - BOTTOM)

    parts = [
        *opening(title),
        label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x, anchor="middle"),
        label(8, TOP - 10, y),
    ]
    for tick in x_ticks:
        parts.append(rule(at_x(tick), TOP, at_x(tick), HEIGHT - BOTTOM))
        parts.append(label(at_x(tick), HEIGHT - BOTTOM + 18, f"{tick:g}", anchor="middle"))
    for tick in y_ticks:
        parts.append(rule(LEFT, at_y(tick), WIDTH - RIGHT, at_y(tick)))
        parts.append(label(LEFT - 8, at_y(tick) + 4, f"{tick:g}", anchor="end"))
    for number, (name, points) in enumerate(kept.items()):
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        stroke = f'stroke="{colour}" stroke-dasharray="{dash}"'
        track = " L".join(f"{at_x(at):.1f} {at_y(value):.1f}" for at, value in points)
        parts.append(f'<path d="M{track}" {stroke}/>')
        level = HEIGHT - BOTTOM - 16 - 19 * (len(kept) - 1 - number)
        parts.append(f'<path d="M{WIDTH - 330} {level - 4} h26" {stroke}/>')
        parts.append(label(WIDTH - 296, level, name))
    return "\n".join([*parts, "</svg>"]) + "\n"


def opening(title: str, height: float = HEIGHT, *, left: float = LEFT) -> list[str]:
    """Return how every chart begins."""
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img"'
        f' aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height:.0f}"/>',
        label(left, 22, title, kind="title"),
    ]


def ticks(most: float) -> list[float]:
    """Return round numbers from 0 to `most` or a little beyond."""
    rough = most / 5 or 1.0
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * 0.999)
    return [step * number for number in range(math.ceil(most / step - 1e-9) + 1)]


def powers(points: Points) -> list[float]:
    """Return powers of ten around all x."""
    low = math.floor(math.log10(min(at for at, _ in points)))
    high = math.ceil(math.log10(max(at for at, _ in points)))
    return [10.0**power for power in range(low, max(high, low + 1) + 1)]


def label(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "") -> str:
    """Return a text at a place."""
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(text)}</text>'


def rule(x1: float, y1: float, x2: float, y2: float) -> str:
    """Return a line of the grid."""
    return f'<path class="grid" d="M{x1:.1f} {y1:.1f} L{x2:.1f} {y2:.1f}" style="stroke-width:1"/>'
