"""The command line of `status` and `top`: flags over a configuration file, and where to look."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from rich.console import Console

from konnectivity.cli.flags import parse
from konnectivity.cli.run import INTERRUPTED, MISUSED, OK, Description, complain, guard, has_told
from konnectivity.diagnose.sources import SourceOptions, Sources, configured, from_options, problems
from konnectivity.errors import ConfigError

T = TypeVar("T", bound=SourceOptions)

PIPE_WIDTH: Final = 200
"""Columns where there is no terminal and COLUMNS is not set."""


def run(
    command: Description,
    options: type[T],
    argv: Sequence[str],
    start: Callable[[T, Sources], int],
    *,
    check: Callable[[T], Sequence[str]],
) -> int:
    """Read flags and file, say all that is wrong with them, or `start`; return the exit status.

    `check` gives what else is wrong with the options, a line each.
    """
    try:
        line = parse(options, argv)
        if not (line.wants_help or line.wants_version):
            line = parse(options, argv, defaults=configured(line.options, os.environ))
    except ConfigError as error:
        return complain(f"{error}; see {command.name} --help", status=MISUSED)
    if has_told(line, options, command=command.name, of=command):
        return OK
    wrong = [*line.warnings, *problems(line.options), *check(line.options)]
    for each in wrong:
        complain(each, status=MISUSED)
    if wrong:
        return MISUSED
    try:
        return guard(lambda: start(line.options, from_options(line.options, os.environ)))
    except BrokenPipeError:  # whoever read has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED


def console() -> Console:
    """Where it is shown; without a terminal wide enough for all columns."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return Console(highlight=False)
    return Console(highlight=False, width=PIPE_WIDTH)
