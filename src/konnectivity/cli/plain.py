"""The command line of commands that take flags alone, and no specification."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from konnectivity.cli.flags import parse
from konnectivity.cli.run import MISUSED, OK, complain, guard, has_told, warn
from konnectivity.errors import ConfigError

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
    warn(line)
    if has_told(line, options, command=command.name, of=command):
        return OK
    problems = list(check(line.options))
    for problem in problems:
        complain(problem, status=MISUSED)
    return MISUSED if problems else guard(lambda: start(line.options))
