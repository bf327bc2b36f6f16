"""Restore times as a table for people and as JSON for programs."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

HEAD = ("object", "what was done", "n", "p50", "p99", "max")


@dataclass(frozen=True)
class Restore:
    kind: str
    damage: str
    seconds: float


@dataclass
class Figures:
    """All that one run has measured."""

    version: str = ""
    """Of the API server that was measured last."""
    real: bool = False
    """Whether that was a cluster, no fixture."""
    restores: list[Restore] = field(default_factory=list)
    unshown: list[str] = field(default_factory=list)
    """What this cluster could not show, and why."""

    def not_shown(self, text: str) -> None:
        if text not in self.unshown:
            self.unshown.append(text)

    def table(self, *, brief: bool) -> Iterator[str]:
        """A line for each kind and damage and for each kind, if not brief; each damage; and all."""
        rows = [HEAD]
        if not brief:
            rows += self._rows(lambda each: (each.kind, each.damage))
            rows += self._rows(lambda each: (each.kind, "all"))
        rows += self._rows(lambda each: ("all", each.damage))
        rows += self._rows(lambda each: ("all", "all"))
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
        for row in rows:
            texts = (text.ljust(width) for text, width in zip(row[:2], widths, strict=False))
            numbers = (text.rjust(width) for text, width in zip(row[2:], widths[2:], strict=True))
            yield "  ".join((*texts, *numbers))

    def _rows(self, group: Callable[[Restore], tuple[str, str]]) -> Iterator[tuple[str, ...]]:
        groups: dict[tuple[str, str], list[float]] = {}
        for each in self.restores:
            groups.setdefault(group(each), []).append(each.seconds)
        for name, seconds in sorted(groups.items()):
            parts = (quantile(seconds, 0.5), quantile(seconds, 0.99), max(seconds))
            yield (*name, str(len(seconds)), *(f"{part * 1000:.0f} ms" for part in parts))

    def as_json(self) -> str:
        return json.dumps(
            {
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                "api_server": self.version,
                "restores": [asdict(each) for each in self.restores],
                "not_shown": self.unshown,
            },
            indent=1,
        )


def quantile(values: Sequence[float], part: float) -> float:
    """The smallest of `values` that `part` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]
