"""Recorded ratios: how much each piece of work cost when somebody was content with it."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.error import BenchError

TOLERANCE = 0.05
"""Share by which a ratio may rise. Two counts of the same code differ by less than a hundredth."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One piece of work: its ratio to the yardstick then and now."""

    name: str
    recorded: float
    now: float

    @property
    def change(self) -> float:
        """How much dearer it is, as a share; below 0: cheaper."""
        return self.now / self.recorded - 1

    @property
    def is_dearer(self) -> bool:
        """Whether that is too much."""
        return self.change > TOLERANCE

    @property
    def is_cheaper(self) -> bool:
        """Whether the record is out of date, so that it would hide what becomes dearer again."""
        return self.change < -TOLERANCE


def interpreter() -> str:
    """Return whose ratios these are: interpreters differ in what they spend on what."""
    return f"{platform.python_implementation()} {sys.version_info.major}.{sys.version_info.minor}"


def read(file: Path) -> dict[str, dict[str, float]]:
    """Return the ratios by interpreter and piece of work; none if there is no file.

    Raises:
        BenchError: the file is not one of these.
    """
    if not file.exists():
        return {}
    try:
        known = json.loads(file.read_text())
        return {
            who: {name: float(ratio) for name, ratio in ratios.items()}
            for who, ratios in known.items()
        }
    except (ValueError, AttributeError, TypeError) as error:
        raise BenchError(f"{file} holds no ratios: {error}") from None


def record(file: Path, now: Mapping[str, float]) -> None:
    """Write the ratios of this interpreter; what else is in the file stays."""
    known = read(file)
    mine = known.setdefault(interpreter(), {})
    mine |= {name: round(ratio, 4) for name, ratio in now.items()}
    file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def compare(file: Path, now: Mapping[str, float]) -> list[Verdict]:
    """Return a verdict on each piece of work.

    Raises:
        BenchError: nothing was recorded for one of them with this interpreter.
    """
    recorded = read(file).get(interpreter(), {})
    if missing := [name for name in now if name not in recorded]:
        raise BenchError(
            f"{file} has no ratio of {', '.join(missing)} for {interpreter()}: use --record"
        )
    return [Verdict(name, recorded[name], ratio) for name, ratio in now.items()]
