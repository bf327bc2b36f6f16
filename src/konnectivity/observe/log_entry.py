"""A log record as plain data: what the JSON lines and the ring of recent records are made of."""

from __future__ import annotations

import logging
import re
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LEVELS = ("info", "warning", "error", "fatal")
OVERHEAD = 400
"""Bytes, about, that an entry takes beside its text."""

_PAIRS = re.compile(r"([^%]*?)((?: \w+=%[sd])+)")
_KEY = re.compile(r"(\w+)=%")

Plain = None | bool | int | float | str | list["Plain"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One record. `values` are those of the text format, under the same keys."""

    at: float  # Unix seconds
    level: str  # one of LEVELS
    verbosity: int  # the -v at which an `info` appears
    caller: str  # file:line
    message: str
    values: Mapping[str, Plain]
    trace: str = ""  # of an exception

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        text = sum(len(key) + len(str(value)) for key, value in self.values.items())
        return OVERHEAD + len(self.message) + len(self.trace) + text

    def as_json(self) -> dict[str, Plain]:
        """The object of a JSON line. A value under a name of the head gets a `_` behind it."""
        head: dict[str, Plain] = {
            "ts": timestamp(self.at),
            "level": self.level,
            "v": self.verbosity,
            "caller": self.caller,
            "msg": self.message,
        }
        if self.trace:
            head["trace"] = self.trace
        return head | {f"{key}_" if key in head else key: self.values[key] for key in self.values}


def entry_of(record: logging.LogRecord, *, with_directory: bool = False) -> Entry:
    """`record` without references to the objects in it."""
    message, values = parts_of(record)
    return Entry(
        at=record.created,
        level=LEVELS[severity(record)],
        verbosity=max(0, logging.INFO - record.levelno),
        caller=caller(record, with_directory=with_directory),
        message=encodable(message),
        values={key: plain(value) for key, value in (values or {}).items()},
        trace=_trace(record),
    )


def parts_of(record: logging.LogRecord) -> tuple[str, Mapping[str, object] | None]:
    """A record's message and its values, None for those of other libraries.

    The packages below this one log with the standard library alone, and write their values into
    the message: `log.warning("HTTP/2 fault peer=%s cause=%s", peer, cause)`.
    """
    values: Mapping[str, object] | None = getattr(record, "values", None)
    if values is None and isinstance(record.args, tuple) and isinstance(record.msg, str):
        found = _PAIRS.fullmatch(record.msg)
        if found and len(keys := _KEY.findall(found[2])) == len(record.args):
            return found[1], dict(zip(keys, record.args, strict=True))
    return record.getMessage(), values


def severity(record: logging.LogRecord) -> int:
    """0 to 3, as klog counts; all of its verbosities are 0."""
    return max(0, min(3, record.levelno // 10 - 2))


def caller(record: logging.LogRecord, *, with_directory: bool) -> str:
    """Where the record comes from: `link.py:42`."""
    file = record.filename
    if with_directory:
        file = f"{Path(record.pathname).parent.name}/{file}"
    return f"{file}:{record.lineno}"


def timestamp(at: float) -> str:
    """Unix seconds as RFC 3339 writes them, in UTC, with microseconds."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at))}.{int(at % 1 * 1e6):06d}Z"


def plain(value: object) -> Plain:
    """A value as JSON has it; what JSON does not have becomes text."""
    if value is None or isinstance(value, bool) or type(value) is int:
        return value
    if type(value) is float and value - value == 0:  # not infinite, and a number
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    return encodable(text_of(value))


def text_of(value: object) -> str:
    """A value's text; an exception without one is named."""
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    if isinstance(value, BaseException):
        return str(value) or type(value).__name__
    return str(value)


def encodable(text: str) -> str:
    """`text` in which bytes that were no UTF-8 are escaped."""
    return text.encode(errors="backslashreplace").decode()


def _trace(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[0] is None:
        return ""
    return encodable("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))
