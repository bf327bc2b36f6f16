"""Figures of this process, under the names that every Prometheus client library gives them.

Source: `/proc/self`, as the libraries of Go and Python read it. Those files are memory, not a
disk, and reading them does not wait.
"""

from __future__ import annotations

import os
import platform
import resource
from contextlib import suppress
from pathlib import Path
from typing import Final

from konnectivity.observe.exposition import Catalogue, Family

PROC: Final = Path("/proc/self")

PROCESS: Final = Catalogue("")
_CPU = PROCESS.counter(
    "process_cpu_seconds_total", "Seconds of CPU time spent, by user and system together."
)
_RESIDENT = PROCESS.gauge("process_resident_memory_bytes", "Memory in use.")
_VIRTUAL = PROCESS.gauge("process_virtual_memory_bytes", "Address space in use.")
_VIRTUAL_MAX = PROCESS.gauge(
    "process_virtual_memory_max_bytes", "Address space that may be used; -1 is no limit."
)
_OPEN = PROCESS.gauge("process_open_fds", "Open file descriptors.")
_MAX = PROCESS.gauge("process_max_fds", "File descriptors that may be open.")
_START = PROCESS.gauge(
    "process_start_time_seconds", "When the process was started, in seconds since 1970."
)
_PYTHON = PROCESS.gauge(
    "python_info",
    "The interpreter; the value is 1.",
    *("implementation", "version"),
    ours=True,
)


def families(proc: Path = PROC) -> list[Family]:
    """The figures of this process; without `/proc`, those that need no file."""
    found = [_CPU.value(_cpu_seconds())]
    with suppress(OSError, ValueError, IndexError):  # another kernel than Linux
        found += _memory_and_start(proc)
    descriptors = open_descriptors(proc)
    if descriptors is not None:
        found.append(_OPEN.value(descriptors))
    found.append(_MAX.value(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
    implementation = (platform.python_implementation(), platform.python_version())
    found.append(_PYTHON.each({implementation: 1}))
    return found


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _memory_and_start(proc: Path) -> list[Family]:
    # Behind the name of the program, which may hold anything, from the third field on: proc(5).
    fields = (proc / "stat").read_text("latin-1").rpartition(")")[2].split()
    started, virtual, resident = int(fields[19]), int(fields[20]), int(fields[21])
    since_boot = started / os.sysconf("SC_CLK_TCK")
    return [
        _RESIDENT.value(resident * resource.getpagesize()),
        _VIRTUAL.value(virtual),
        _VIRTUAL_MAX.value(resource.getrlimit(resource.RLIMIT_AS)[0]),
        _START.value(_boot_time() + since_boot),
    ]


def open_descriptors(proc: Path = PROC) -> int | None:
    """Open file descriptors; None where the kernel does not tell.

    Linux gives their number as the size of the directory since 6.2; listing it takes long where
    there are many.
    """
    directory = proc / "fd"
    try:
        return directory.stat().st_size or len(list(directory.iterdir())) - 1
    except OSError:
        return None


def _boot_time() -> int:
    lines = Path("/proc/stat").read_text("latin-1").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("btime "))
