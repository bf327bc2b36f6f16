"""Start one of the two programs from its command line, and say what went wrong in one line.

Exit statuses: 0 ended as asked, 1 failed while running, 2 the command line or what it names is
wrong. Standard output is for help and version, everything else goes to standard error.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ExtensionFileLoader
from importlib.util import find_spec
from pkgutil import resolve_name
from typing import Any, Generic, Protocol, TypeVar

from konnectivity import __version__
from konnectivity.cli.flags import CommandLine, parse, settings, usage
from konnectivity.errors import ConfigError, KonnectivityError
from konnectivity.flag import flags_of
from konnectivity.gotext import one_line
from konnectivity.observe import logs
from konnectivity.observe.log_options import LogOptions

OK, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130

T = TypeVar("T", bound=LogOptions)


@dataclass(frozen=True, slots=True)
class Program(Generic[T]):
    """What there is to know of a program before it runs.

    `app` names its `run(options) -> int`, as `module:function`: importing it is what costs time
    and memory, so it happens last.
    """

    name: str
    options: type[T]
    validate: Callable[[T], list[str]]
    app: str
    about: str
    examples: Sequence[str]


def start(
    program: Program[T], argv: Sequence[str], environ: Mapping[str, str], *, command: str
) -> int:
    """Read the flags and run the program until it ends; return the exit status."""
    try:
        line = parse(program.options, argv, defaults=identity(program.options, environ))
    except ConfigError as error:
        return complain(f"{error}; see {command} --help", status=MISUSED)
    warn(line)
    if has_told(line, program.options, command=command, of=program):
        return OK
    problems = program.validate(line.options)
    for problem in problems:
        complain(f"failed to validate {program.name} options with {problem}", status=MISUSED)
    return MISUSED if problems else guard(lambda: _run(program, line.options))


@dataclass(frozen=True, slots=True)
class Description:
    """What the help of a command says of it; `name` is how it is called."""

    name: str
    about: str
    examples: Sequence[str]


class Described(Protocol):
    """What the help of a command says of it."""

    @property
    def about(self) -> str: ...
    @property
    def examples(self) -> Sequence[str]: ...


def warn(line: CommandLine[Any]) -> None:
    """Say what is odd about the flags that were given, and does no harm."""
    for warning in line.warnings:
        sys.stderr.write(f"{one_line(warning)}\n")


def has_told(line: CommandLine[Any], options: type, *, command: str, of: Described) -> bool:
    """Print the help or the version, if that is what was asked for."""
    if line.wants_help:
        sys.stdout.write(usage(options, command=command, about=of.about, examples=of.examples))
    elif line.wants_version:
        sys.stdout.write(version())
    return line.wants_help or line.wants_version


def guard(run: Callable[[], int]) -> int:
    """Run, and turn the errors that have one clear line into that line and an exit status."""
    try:
        return run()
    except ConfigError as error:
        return complain(str(error), status=MISUSED)
    except KonnectivityError as error:
        return complain(str(error), status=FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED


def complain(text: str, *, status: int) -> int:
    sys.stderr.write(f"Error: {one_line(text)}\n")
    return status


def version() -> str:
    """The line of `--version`: which one, and whether `wire/` is compiled."""
    core = find_spec("konnectivity.wire.http2")
    compiled = core is not None and isinstance(core.loader, ExtensionFileLoader)
    return f"konnectivity {__version__}{' (compiled)' if compiled else ''}\n"


def identity(options: type, environ: Mapping[str, str]) -> dict[str, str]:
    """Values for the flags whose default comes from the environment, or is a random UUID."""
    import uuid

    return {
        each.field: environ.get(each.variable) or str(uuid.uuid4())
        for each in flags_of(options)
        if each.variable
    }


def _run(program: Program[T], options: T) -> int:
    logs.setup(options)
    try:
        for line in settings(options):
            logging.getLogger(__name__).log(logging.INFO - 1, line)
        run: Callable[[T], int] = resolve_name(program.app)
        return run(options)
    finally:
        logs.close()
