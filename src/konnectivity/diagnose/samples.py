"""Reads a page of Prometheus metrics, as far as a program like ours writes one.

Source: Prometheus, "Text-based format" 0.0.4. Lines that are none are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from konnectivity.diagnose.facts import Sample

MOST: Final = 20_000
_LINE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
_ESCAPES: Final = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


def parse(page: str) -> Iterator[Sample]:
    """The samples of a page, `MOST` at most."""
    count = 0
    for line in page.split("\n"):
        found = None if line.startswith("#") else _LINE.fullmatch(line.strip())
        if found is None or count >= MOST:
            continue
        try:
            value = float(found[3])
        except ValueError:
            continue
        labels = {name: _unescaped(text) for name, text in _LABEL.findall(found[2] or "")}
        count += 1
        yield Sample(found[1], labels, value)


def _unescaped(text: str) -> str:
    return re.sub(r'\\[\\"n]', lambda found: _ESCAPES[found[0]], text)
