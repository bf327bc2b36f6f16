"""How a program's options are declared: a frozen dataclass whose fields are flags.

    @dataclass(frozen=True, slots=True)
    class Options:
        server_port: int = flag(8090, "TCP port of the frontend")

declares `--server-port`. This file knows names, types, defaults and texts; the command line
itself is read in `cli/flags.py`. It stands below the programs so that they need not import
the command line to say what their options are.
"""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from konnectivity.gotext import format_duration, parse_duration, quote

TRUE = frozenset(["1", "t", "T", "TRUE", "true", "True"])
FALSE = frozenset(["0", "f", "F", "FALSE", "false", "False"])
INT64 = range(-(2**63), 2**63)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of flag: its name in the help, text to value, value to text.

    `parse` raises ValueError with the reason; `show` gives the form that Go would print.
    """

    name: str
    parse: Callable[[str], Any]
    show: Callable[[Any], str]


def _parse_bool(text: str) -> bool:
    if text in TRUE or text in FALSE:
        return text in TRUE
    raise ValueError("not true or false")


def parse_int(text: str) -> int:
    """An integer of 64 bits, decimal or with Go's prefixes `0x`, `0o`, `0b`.

    differs: a bare leading zero is an error, not octal.
    """
    try:
        number = int(text if text.isascii() and text == text.strip() else "", 0)
    except ValueError:
        raise ValueError("not an integer") from None
    if number not in INT64:
        raise ValueError("integer out of range")
    return number


def _parse_uint(text: str) -> int:
    number = parse_int(text)
    if number < 0:
        raise ValueError("must not be negative")
    return number


def _parse_float(text: str) -> float:
    try:
        return float(text if text.isascii() and text == text.strip() else "")
    except ValueError:
        raise ValueError("not a number") from None


def _parse_strings(text: str) -> tuple[str, ...]:
    """A line of comma-separated values; `[]` is how Go prints an empty list."""
    if text in ("", "[]"):
        return ()
    try:
        return tuple(next(csv.reader([text], strict=True)))
    except csv.Error as error:
        raise ValueError(f"not a comma-separated list: {error}") from None


BOOL = Kind("", _parse_bool, lambda value: "true" if value else "false")
INT = Kind("int", parse_int, str)
UINT = Kind("uint", _parse_uint, str)
FLOAT = Kind("float", _parse_float, lambda value: f"{value:g}")
DURATION = Kind("duration", parse_duration, format_duration)  # seconds
STRING = Kind("string", str, quote)
STRINGS = Kind("strings", _parse_strings, lambda value: f"[{','.join(value)}]")

_KINDS: dict[type, Kind] = {bool: BOOL, int: INT, float: DURATION, str: STRING, tuple: STRINGS}


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag of a command line, made from a field by `flags_of`."""

    field: str
    name: str
    kind: Kind
    default: Any
    help: str
    short: str = ""
    old_name: str = ""
    deprecated: str = ""
    variable: str = ""


def flag(
    default: T,
    help: str,
    *,
    kind: Kind | None = None,
    short: str = "",
    old_name: str = "",
    deprecated: str = "",
    variable: str = "",
) -> T:
    """Declare a dataclass field as a flag, named after the field with `-` for `_`.

    `kind` follows from the default's type; a float is a duration in seconds. `short` is a
    one-letter form. `old_name` is a second, deprecated name. A `deprecated` flag is hidden from
    the help and its text is the warning. `variable` names the environment variable that gives
    the default, a random UUID if that is empty.
    """
    metadata = {
        "kind": kind or _KINDS[type(default)],
        "help": help,
        "short": short,
        "old_name": old_name,
        "deprecated": deprecated,
        "variable": variable,
    }
    # A field until the dataclass is made, a T ever after: this is how dataclasses are typed.
    return dataclasses.field(default=default, metadata=metadata)


def sections(options: type) -> list[tuple[str, list[Flag]]]:
    """The flags of a dataclass under titles: its own first, then those of its bases.

    A base class gives the title of its flags as `flags_title`.
    """
    found: list[tuple[str, list[Flag]]] = []
    listed: set[str] = set()
    for base in reversed(options.__mro__[:-1]):
        own = [
            Flag(field=each.name, name=each.name.replace("_", "-"), default=each.default, **meta)
            for each in dataclasses.fields(base)
            if each.name not in listed and "kind" in (meta := each.metadata)
        ]
        listed |= {each.field for each in own}
        found.insert(0, (vars(base).get("flags_title", "Flags"), own))
    return found


def flags_of(options: type) -> list[Flag]:
    """All flags of a dataclass, in the order of `sections`."""
    return [each for _, section in sections(options) for each in section]


def absence(path: str) -> str:
    """Go's words for "there is no such file", or nothing: other troubles show when it is read."""
    try:
        os.stat(path)  # noqa: PTH116 - a Path would hide which errors count
    except FileNotFoundError:
        return f"stat {path}: no such file or directory"
    except OSError:
        pass
    return ""
