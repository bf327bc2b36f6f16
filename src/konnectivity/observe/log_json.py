"""Log records as JSON, one object in each line, its head first: ts, level, v, caller, msg.

For example `{"ts":"2026-11-22T05:36:16.218186Z","level":"info","v":0,"caller":"backend.py:98",
"msg":"Agent connected","agentID":"a1","address":"10.0.0.7:41234"}`, on one line.
"""

from __future__ import annotations

import json
import logging

from konnectivity.observe.log_entry import entry_of


class JsonFormatter(logging.Formatter):
    """A record as one line of ASCII, whatever its values hold."""

    def __init__(self, *, with_directory: bool = False) -> None:
        super().__init__()
        self._with_directory = with_directory

    def format(self, record: logging.LogRecord) -> str:
        entry = entry_of(record, with_directory=self._with_directory)
        return json.dumps(entry.as_json(), separators=(",", ":"), allow_nan=False)
