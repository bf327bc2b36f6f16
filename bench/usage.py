"""What a process and its children cost, read from /proc."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes resident, and the share of them when shared pages are divided among their users."""

    rss: int
    pss: int


def family(pid: int) -> list[int]:
    """Return `pid` and all its descendants: a program that forks does not get off lightly."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            with suppress(FileNotFoundError):  # the thread has just ended
                found += map(int, (task / "children").read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of the family so far, in steps of 10 ms; of 0 it is 0."""
    total = 0
    for member in family(pid) if pid else ():
        # Fields 14 and 15, counted behind the name, which may hold blanks: proc(5).
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def memory(pid: int) -> Memory:
    """Return the memory of the family now."""
    rss = pss = 0
    for member in family(pid):
        for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
            key, _, value = line.partition(":")
            if key == "Rss":
                rss += int(value.split()[0]) * 1024
            elif key == "Pss":
                pss += int(value.split()[0]) * 1024
    return Memory(rss, pss)
