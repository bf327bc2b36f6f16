"""Text as Go writes and reads it: durations and quoted strings.

Flags, log lines and error texts are compared with those of Go programs by people and by
tools, so the forms must agree. No IO.
"""

from __future__ import annotations

import re
from decimal import Decimal

NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # micro sign; Go also reads the Greek letter
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
LONGEST = 2**63 - 1  # nanoseconds; Go's Duration is an int64

_TERM = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_DURATION = re.compile(f"[-+]?(?:{_TERM.pattern})+")
_QUOTED = str.maketrans({'"': '\\"', "\\": "\\\\"})
_ESCAPES = str.maketrans(
    {char: f"\\{letter}" for char, letter in zip("\a\b\f\n\r\t\v", "abfnrtv", strict=True)}
)


def parse_duration(text: str) -> float:
    """Seconds of a Go duration such as `1h0m0s`, `300ms`, `1.5h`, `-2s` or `0`.

    Raises:
        ValueError: not a duration, or a number without unit, or beyond 292 years.

    Source: Go's `time.ParseDuration`.
    """
    if text.lstrip("+-") == "0" and len(text) <= 2:
        return 0.0
    if not _DURATION.fullmatch(text):
        raise ValueError("a duration is a number with a unit, like 300ms, 1.5h or 1h0m0s")
    total = sum(int(Decimal(number) * NANOSECONDS[unit]) for number, unit in _TERM.findall(text))
    if total > LONGEST:
        raise ValueError("a duration is at most 292 years")
    return (-total if text.startswith("-") else total) / 1e9


def format_duration(seconds: float) -> str:
    """`seconds` as Go prints a duration: `1h0m0s`, `1.5s`, `300ms`, `0s`."""
    total = round(seconds * 1e9)
    sign, total = ("-", -total) if total < 0 else ("", total)
    if total == 0:
        return "0s"
    for unit in ("ns", "µs", "ms"):
        if total < 1000 * NANOSECONDS[unit]:
            return f"{sign}{_decimal(total, NANOSECONDS[unit])}{unit}"
    minutes, rest = divmod(total, NANOSECONDS["m"])
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{head}{_decimal(rest, NANOSECONDS['s'])}s"


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    digits = len(str(unit)) - 1
    return f"{whole}.{rest:0{digits}d}".rstrip("0")


def quote(text: str) -> str:
    """`text` in double quotes on one line, as Go's `strconv.Quote` does it."""
    return f'"{one_line(text.translate(_QUOTED))}"'


def one_line(text: str) -> str:
    """`text` with everything that is not printable escaped, so that it stays on one line.

    A peer's words can then neither forge a log line nor reach the terminal's controls.
    """
    if text.isprintable():
        return text
    text = text.translate(_ESCAPES)
    return "".join(char if char.isprintable() else _escape(ord(char)) for char in text)


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
