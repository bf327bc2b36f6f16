"""The command line of commands that take flags alone, and no specification."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from konnectivity.cli.flags import parse, usage
from konnectivity.cli.run import MISUSED, OK, complain, guard, version
from konnectivity.errors import ConfigError
from konnectivity.gotext import one_line

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PlainCommand:
    """What the help of such a command says."""

    name: str
    about: str
    examples: Sequence[str]


def run(
    command: PlainCommand,
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
    for warning in line.warnings:
        sys.stderr.write(f"{one_line(warning)}\n")
    if line.wants_help:
        about, examples = command.about, command.examples
        sys.stdout.write(usage(options, command=command.name, about=about, examples=examples))
        return OK
    if line.wants_version:
        sys.stdout.write(version())
        return OK
    problems = list(check(line.options))
    for problem in problems:
        complain(problem, status=MISUSED)
    return MISUSED if problems else guard(lambda: start(line.options))
