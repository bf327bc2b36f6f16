"""Log records in klog's text format.

    I1122 05:36:16.218186    6947 backend.py:98] "Agent connected" agentID="a1" tunnels=3

A record is one line whatever its values hold. Records of other libraries, which carry no values,
keep their text without quotes.

Source: k8s.io/klog/v2.
"""

from __future__ import annotations

import logging
import time

from konnectivity.gotext import one_line, quote
from konnectivity.observe.log_entry import caller, parts_of, severity, text_of


class KlogFormatter(logging.Formatter):
    """A record as klog writes it. Control characters never get out raw."""

    def __init__(self, *, skip_headers: bool = False, with_directory: bool = False) -> None:
        super().__init__()
        self._skip_headers = skip_headers
        self._with_directory = with_directory

    def format(self, record: logging.LogRecord) -> str:
        head = "" if self._skip_headers else self._head(record)
        message, values = parts_of(record)
        if values is None:
            text = one_line(message)
        else:
            pairs = "".join(f" {key}={show(value)}" for key, value in values.items())
            text = f"{quote(message)}{pairs}"
        if record.exc_info:
            # Indented, so that no line of an exception's text can pass for a record.
            trace = self.formatException(record.exc_info).split("\n")
            text += "".join(f"\n    {one_line(line)}" for line in trace)
        return head + text

    def _head(self, record: logging.LogRecord) -> str:
        letter = "IWEF"[severity(record)]
        stamp = time.strftime("%m%d %H:%M:%S", time.localtime(record.created))
        micros = int(record.created % 1 * 1e6)
        place = caller(record, with_directory=self._with_directory)
        return f"{letter}{stamp}.{micros:06d} {record.process:7d} {place}] "


def show(value: object) -> str:
    """A value as klog shows it: numbers bare, lists in brackets, all else quoted."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if type(value) in (int, float):
        return str(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return f"[{','.join(map(show, value))}]"
    return quote(text_of(value))
