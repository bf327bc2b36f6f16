"""The load generator: compiled when its sources are newer than the program, run for one row."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.error import BenchError

SOURCES = Path(__file__).parent / "load"
PROGRAM = Path(__file__).parent / "build" / "load"
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-pthread")
COMPILE_LIMIT = 120.0  # seconds
RUN_LIMIT = 120.0  # seconds beyond warm-up and measurement; the generator's own limits are less

Report = dict[str, Any]


def find_compiler() -> str:
    """Return the C compiler: `CC` from the environment, else the first of cc, gcc, clang."""
    names = [os.environ["CC"]] if os.environ.get("CC") else ["cc", "gcc", "clang"]
    for name in names:
        if found := shutil.which(name):
            return found
    raise BenchError(
        f"no C compiler found (looked for {', '.join(names)}): "
        "install one, e.g. the packages gcc and libc6-dev, or name it in CC"
    )


def build() -> Path:
    """Compile the generator if need be and return its path."""
    sources = sorted(SOURCES.glob("*.[ch]"))
    newest = max(path.stat().st_mtime for path in sources)
    if PROGRAM.exists() and PROGRAM.stat().st_mtime >= newest:
        return PROGRAM
    PROGRAM.parent.mkdir(exist_ok=True)
    partial = PROGRAM.with_name(f"load.{os.getpid()}")  # two runs may build at once
    command = [find_compiler(), *FLAGS, "-o", str(partial)]
    command += [str(path) for path in sources if path.suffix == ".c"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_LIMIT)
    if done.returncode != 0:
        raise BenchError(f"the load generator does not compile:\n{done.stderr.strip()}")
    partial.replace(PROGRAM)
    return PROGRAM


def run(
    program: Path, arguments: Sequence[str], *, while_idle: Callable[[], None] | None = None
) -> Report:
    """Run one row and return the generator's report.

    `while_idle` is called while the tunnels of an idle row are open; afterwards each of them must
    still echo. Errors that the generator met are in the report, not raised.

    Raises:
        BenchError: the generator refused its options, crashed or never ended.
    """
    command = [str(program), *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            if while_idle and process.stdout and process.stdout.readline() == "ready\n":
                while_idle()
            output, errors = process.communicate(timeout=RUN_LIMIT)
        except subprocess.TimeoutExpired:
            raise BenchError(f"`{' '.join(command)}` did not end in {RUN_LIMIT:.0f} s") from None
        finally:
            process.kill()
    try:
        report: Report = json.loads(output)
    except ValueError:
        reason = errors.strip().partition("\n")[0] or f"exit status {process.returncode}"
        raise BenchError(f"`{' '.join(command)}` gave no report: {reason}") from None
    return report
