"""The command line of commands that take flags alone, and no specification."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from konnectivity.cli.flags import parse
from konnectivity.cli.run import MISUSED, OK, Description, complain, guard, has_told, warn
from konnectivity.errors import ConfigError

T = TypeVar("T")


def run(
    command: Description,
    options: type[T],
    argv: Sequence[str],
    start: Callable[[T], int],
    *,
    check: Callable[[T], Iterable[str]],
) -> int:
    """Read the flags, say all that is wrong with them, or `start`; return the exit status."""
    try:
        line = parse(options, argv)
    except ConfigError as error:
        return complain(f"{error}; see {command.name} --help", status=MISUSED)
    warn(line)
    if has_told(line, options, command=command.name, of=command):
        return OK
    problems = list(check(line.options))
    for problem in problems:
        complain(problem, status=MISUSED)
    return MISUSED if problems else guard(lambda: start(line.options))
