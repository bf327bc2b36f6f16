"""The command line of the guard: `python -m bench.micro`, or `make bench-check`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from bench.error import BenchError
from bench.micro.count import count
from bench.micro.ratios import TOLERANCE, Verdict, compare, record
from bench.micro.work import WORK, YARDSTICK

RATIOS = Path(__file__).parents[1] / "ratios.json"
PIECES = [name for name in WORK if name != YARDSTICK]


def main() -> int:
    """Count, and compare or record; 0, 1 if something became dearer, 2 if it cannot be told."""
    arguments = _parser().parse_args()
    try:
        counts = count([YARDSTICK, *_chosen(arguments.only)], jobs=arguments.jobs)
        per_unit = counts.pop(YARDSTICK)
        now = {name: instructions / per_unit for name, instructions in counts.items()}
        if arguments.record:
            record(arguments.file, now)
        found = compare(arguments.file, now)
    except BenchError as error:
        print(f"bench.micro: {error}", file=sys.stderr)
        return 2
    _tell(found)
    return int(any(one.is_dearer for one in found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.micro",
        description="Count instructions of small pieces of work and compare with recorded ratios.",
        epilog="pieces: " + ", ".join(PIECES),
    )
    add = parser.add_argument
    add("--record", action="store_true", help="write what was counted, and compare with that")
    add("--only", default="*", metavar="PATTERNS", help="comma-separated shell patterns (*)")
    add("--file", type=Path, default=RATIOS, help="the recorded ratios (bench/ratios.json)")
    add("--jobs", type=int, default=os.cpu_count() or 1, help="counted at once (one a processor)")
    return parser


def _chosen(patterns: str) -> list[str]:
    names = [name for name in PIECES if any(fnmatchcase(name, one) for one in patterns.split(","))]
    if not names:
        raise BenchError(f"--only {patterns!r} matches none of {', '.join(PIECES)}")
    return names


def _tell(found: Sequence[Verdict]) -> None:
    print(f"{'work':16}{'recorded':>10}{'now':>10}{'change':>9}")
    for one in found:
        verdict = "  DEARER" if one.is_dearer else "  cheaper" if one.is_cheaper else ""
        print(f"{one.name:16}{one.recorded:10.3f}{one.now:10.3f}{one.change:+9.1%}{verdict}")
    if any(one.is_dearer for one in found):
        print(f"dearer by more than {TOLERANCE:.0%}: find out why, or --record what it costs now")
    elif any(one.is_cheaper for one in found):
        print(f"cheaper by more than {TOLERANCE:.0%}: --record, so that it stays so")


if __name__ == "__main__":
    sys.exit(main())
