"""Texts and numbers as they are shown in a terminal: harmless, short, with units.

What peers choose, such as ids and errors, may hold anything: control characters, marks that turn
the direction of writing, kilobytes. `clean` makes one short line of it; rich's markup is avoided by
giving it `Text` alone.
"""

from __future__ import annotations

from typing import Final

from rich.text import Text

from konnectivity.gotext import one_line

LONGEST: Final = 48
UNKNOWN: Final = "-"
_SIZES: Final = ("B", "kB", "MB", "GB", "TB")


def clean(text: str, longest: int = LONGEST) -> str:
    """`text` on one line, with `…` in its middle if it is longer; both ends tell it apart."""
    if len(text) > 4 * longest:
        text = text[: 2 * longest] + text[-2 * longest :]
    text = one_line(text)
    if len(text) <= longest:
        return text
    head = (longest - 1) * 2 // 3
    return f"{text[:head]}…{text[head + 1 - longest :]}"


def cell(text: str, style: str = "", *, longest: int = LONGEST) -> Text:
    """A cell of a table, without markup."""
    return Text(clean(text, longest), style=style)


def seconds(value: float | None) -> str:
    """A short duration: `3ms`, `1.2s`, `5m`, `3h`, `61d`, `4y`."""
    if value is None:
        return UNKNOWN
    if value < 0:
        return f"-{seconds(-value)}"
    if value < 0.9995:
        return f"{value * 1000:.2g}ms" if value < 0.00995 else f"{value * 1000:.0f}ms"
    if value < 60:
        return f"{value:.1f}s" if value < 10 else f"{value:.0f}s"
    for unit, size, until in (("m", 60, 5400), ("h", 3600, 172800)):
        if value < until:
            return f"{value / size:.0f}{unit}"
    days = value / 86400
    return f"{days:.0f}d" if days < 1000 else f"{days / 365.25:.0f}y"


def age(moment: float | None, now: float) -> str:
    """How long ago that was."""
    return UNKNOWN if moment is None else seconds(max(0.0, now - moment))


def left(moment: float | None, now: float) -> str:
    """How long until then; `expired` afterwards."""
    if moment is None:
        return UNKNOWN
    return "expired" if moment <= now else seconds(moment - now)


def size(count: float) -> str:
    """Bytes with three digits: `812 B`, `3.4 MB`."""
    power = 0
    while count >= 999.5 and power < len(_SIZES) - 1:
        count, power = count / 1000, power + 1
    digits = 0 if power == 0 or count >= 99.5 else 1
    return f"{count:.{digits}f} {_SIZES[power]}"


def number(value: int | None) -> str:
    """A count; a dash if nobody knows it."""
    return UNKNOWN if value is None else str(value)
