"""Counts instructions of pieces of work with valgrind, each in a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import konnectivity
from bench.error import BenchError
from bench.micro.work import WORK, YARDSTICK

# Instructions alone are counted; caches are not simulated.
VALGRIND = ("--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
COUNTED = re.compile(r"I +refs: +([\d,]+)")
# One way to copy bytes, which every x86-64 has: glibc takes the processor's best, and valgrind
# counts that of some once for each byte.
COPYING = "glibc.cpu.hwcaps=" + ",".join(
    f"-{each}"
    for each in ("AVX2", "AVX512F", "AVX512VL", "AVX_Fast_Unaligned_Load", "ERMS", "FSRM")
)
LIMIT = 120.0  # seconds for one process
ROOT = Path(__file__).parents[2]


def find() -> str:
    """Return valgrind.

    Raises:
        BenchError: there is none.
    """
    if found := shutil.which("valgrind"):
        return found
    raise BenchError("valgrind not found: install it, e.g. the package valgrind")


def count(names: Iterable[str], *, jobs: int) -> dict[str, float]:
    """Return the instructions of doing each piece once; `jobs` of them are counted at a time.

    Raises:
        BenchError: valgrind is missing, or the work fails.
    """
    valgrind = find()
    asked = [(YARDSTICK, 0), *((name, WORK[name][0]) for name in names)]
    with tempfile.TemporaryDirectory(prefix="bench-") as cache, ThreadPoolExecutor(jobs) as pool:
        environment = _environment(cache)
        _run([], YARDSTICK, 0, environment)  # compiles: modules are only read from now on
        environment["PYTHONDONTWRITEBYTECODE"] = "1"

        def instructions(asked: tuple[str, int]) -> int:
            found = COUNTED.search(_run([valgrind, *VALGRIND], *asked, environment))
            if found is None:
                raise BenchError(f"{valgrind} says nothing of instructions")
            return int(found[1].replace(",", ""))

        rest, *counted = pool.map(instructions, asked)
    return {
        name: (all_ - rest) / times for (name, times), all_ in zip(asked[1:], counted, strict=True)
    }


def _environment(cache: str) -> dict[str, str]:
    """Return an environment in which two runs do the same."""
    package = Path(konnectivity.__file__).parents[1]
    return {
        "GLIBC_TUNABLES": COPYING,
        "PATH": os.defpath,
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": f"{package}:{ROOT}",
        "PYTHONPYCACHEPREFIX": cache,
    }


def _run(prefix: list[str], name: str, times: int, environment: dict[str, str]) -> str:
    """Do a piece of work so many times; what was written to standard error."""
    command = [*prefix, sys.executable, "-m", "bench.micro.repeat", name, str(times)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{name} did not end in {LIMIT:.0f} s") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise BenchError(f"{name} ended with status {done.returncode}: {last}")
    return done.stderr
