"""A zip of bounded size, and the index of what is in it, what is not, and why: `Archive`."""

from __future__ import annotations

import io
import json
import re
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from konnectivity import __version__
from konnectivity.diagnose.bundle.redaction import RULES, Redactor
from konnectivity.observe.status_json import rfc3339

SCHEMA: Final = "konnectivity.bundle/v1"
OVERHEAD: Final = 256
"""Bytes that a file takes in a zip beside its content, about: twice its name, and heads."""
INDEX_ROOM: Final = 64 << 10
"""Bytes of the size limit that are kept for the index."""
LONGEST_REASON: Final = 300

Result = Literal["ok", "partial", "failed", "left out"]


@dataclass(frozen=True, slots=True)
class File:
    """What goes in: `content` is a text, or what JSON can hold."""

    path: str
    content: Any


@dataclass(frozen=True, slots=True)
class Miss:
    """What could not be had, and why."""

    what: str
    reason: str


Found = File | Miss


@dataclass(slots=True)
class Part:
    """What became of one part: files with their sizes in bytes, and what is missing."""

    name: str
    about: str
    files: dict[str, int] = field(default_factory=dict)
    missing: list[Miss] = field(default_factory=list)
    seconds: float = 0.0
    left_out: bool = False

    @property
    def result(self) -> Result:
        if self.left_out:
            return "left out"
        if not self.missing:
            return "ok"
        return "partial" if self.files else "failed"


class Archive:
    """The zip in memory, of `max_size` bytes at most. All that goes in is redacted here."""

    def __init__(self, redactor: Redactor, *, max_size: int) -> None:
        self.parts: list[Part] = []
        self._redactor = redactor
        self._max_size = max_size
        self._files: dict[str, bytes] = {}
        self._size = INDEX_ROOM

    def add(self, part: Part, found: Iterator[Found] | list[Found]) -> None:
        """Enter a part with all that was found for it."""
        self.parts.append(part)
        for each in found:
            if isinstance(each, Miss):
                self._miss(part, each.what, each.reason)
            else:
                self._write(part, each)

    def close(self, *, created_at: float) -> bytes:
        """The whole archive with its index."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, data in self._files.items():
                archive.writestr(path, data)
            archive.writestr("index.json", _dump(self._index(created_at)))
        return buffer.getvalue()

    def _write(self, part: Part, file: File) -> None:
        path = self._redactor.text(file.path)
        data = self._redacted(file.content)
        cost = len(zlib.compress(data)) + 2 * len(path) + OVERHEAD
        if self._size + cost > self._max_size:
            reason = f"{len(data)} bytes more would make the archive larger than --max-size"
            self._miss(part, path, reason)
            return
        self._size += cost
        self._files[path] = data
        part.files[path] = len(data)

    def _redacted(self, content: Any) -> bytes:
        if isinstance(content, str):
            return self._redactor.text(content).encode(errors="backslashreplace")
        return _dump(self._redactor.plain(content))

    def _miss(self, part: Part, what: str, reason: str) -> None:
        text = self._redactor.text
        part.missing.append(Miss(text(what), text(reason)[:LONGEST_REASON]))

    def _index(self, created_at: float) -> dict[str, Any]:
        counts = self._redactor.counts
        rules = [each for each in RULES if each != "address" or self._redactor.masks_addresses]
        return {
            "schema": SCHEMA,
            "createdAt": rfc3339(created_at),
            "version": __version__,
            "maxSize": self._max_size,
            "parts": [_plain(each) for each in self.parts],
            "redaction": [
                {"rule": each, "what": RULES[each], "found": counts[each]} for each in rules
            ],
        }


def _plain(part: Part) -> dict[str, Any]:
    return {
        "name": part.name,
        "about": part.about,
        "result": part.result,
        "files": [{"path": path, "bytes": size} for path, size in part.files.items()],
        "missing": [{"what": each.what, "reason": each.reason} for each in part.missing],
        "seconds": round(part.seconds, 3),
    }


def _dump(value: Any) -> bytes:
    return (json.dumps(value, indent=1, default=str) + "\n").encode()


def file_name(text: str) -> str:
    """A text of others as one component of a path, without what file systems mind."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._")[:80] or "unnamed"


def stamp(moment: float) -> str:
    """A moment as names of files have it."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(moment))
