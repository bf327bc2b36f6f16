"""The metrics of all workers as those of one server.

Counts and sizes are added up. What is no amount is not: of times and limits the least one is
given, of figures that say which version runs the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

LEAST: Final = (
    "process_start_time_seconds",
    "process_max_fds",
    "process_virtual_memory_max_bytes",
    "certificate_expiry_timestamp_seconds",
)
LARGEST: Final = ("_info",)


def merge(pages: Iterable[bytes]) -> bytes:
    """One page from several in Prometheus' text format, in the order of their first lines."""
    families: dict[str, _Family] = {}
    for page in pages:
        family = _Family("")
        for line in page.decode().splitlines():
            if line.startswith("# HELP "):
                name = line.split(" ", 3)[2]
                family = families.setdefault(name, _Family(name))
                family.comments = [line]
            elif line.startswith("#"):
                if line not in family.comments:
                    family.comments.append(line)
            elif line:
                sample, _, value = line.rpartition(" ")
                family.add(sample, float(value))
    lines = [line for family in families.values() for line in family.lines()]
    return ("\n".join(lines) + "\n").encode()


class _Family:
    """One metric of all pages."""

    def __init__(self, name: str) -> None:
        self.comments: list[str] = []
        self._samples: dict[str, float] = {}
        self._join: Callable[[float, float], float] = _join_of(name)

    def add(self, sample: str, value: float) -> None:
        have = self._samples.get(sample)
        self._samples[sample] = value if have is None else self._join(have, value)

    def lines(self) -> list[str]:
        return self.comments + [f"{key} {_number(value)}" for key, value in self._samples.items()]


def _join_of(name: str) -> Callable[[float, float], float]:
    if name.endswith(LEAST):
        return min
    return max if name.endswith(LARGEST) else lambda one, other: one + other


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
