"""The last log records, kept in memory for the admin endpoints and for support."""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from typing import Final

from konnectivity.observe.log_entry import Entry, Plain, entry_of

MAX_ENTRIES: Final = 1000
MAX_BYTES: Final = 1 << 20
"""Bytes of all entries together, about."""
MAX_TEXT: Final = 2048
"""Characters of one message or value; the rest is cut off."""


class Ring(logging.Handler):
    """Takes what is logged and drops the oldest."""

    def __init__(self) -> None:
        super().__init__()
        self._entries: deque[Entry] = deque()
        self._held = 0

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What is kept, the oldest first."""
        self.acquire()  # other threads log too
        try:
            return tuple(self._entries)
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        entry = shortened(entry_of(record))
        self._entries.append(entry)
        self._held += entry.size
        while len(self._entries) > MAX_ENTRIES or self._held > MAX_BYTES:
            self._held -= self._entries.popleft().size


def shortened(entry: Entry) -> Entry:
    """`entry` without the ends of long texts; lists that are long as text become text."""
    if entry.size <= MAX_TEXT:
        return entry
    return dataclasses.replace(
        entry,
        message=entry.message[:MAX_TEXT],
        values={key: _shortened(value) for key, value in entry.values.items()},
        trace=entry.trace[-MAX_TEXT:],  # its last lines say most
    )


def _shortened(value: Plain) -> Plain:
    text = value if isinstance(value, str) else str(value)
    return text[:MAX_TEXT] if len(text) > MAX_TEXT else value
