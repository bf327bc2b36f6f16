"""The command line of commands that take a specification: a file, and flags that win over it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from konnectivity.cli.flags import parse
from konnectivity.cli.run import FAILED, MISUSED, OK, Description, complain, guard, has_told, warn
from konnectivity.errors import ClusterError, ConfigError
from konnectivity.flag import flag
from konnectivity.lifecycle.specification import spec_check, spec_file
from konnectivity.lifecycle.specification.spec import AgentSpec


@dataclass(frozen=True)
class SpecOptions(AgentSpec):
    """An `AgentSpec`, and the file it may come from."""

    flags_title: ClassVar[str] = "Specification's file"

    spec: str = flag("", "TOML file with the flags below as keys; flags win over it.")


T = TypeVar("T", bound=SpecOptions)


def run(
    command: Description,
    options: type[T],
    argv: Sequence[str],
    start: Callable[[T], int],
    *,
    check: Callable[[T], Sequence[str]] = lambda _: (),
    stored: Callable[[T], Mapping[str, object]] | None = None,
) -> int:
    """Read flags and file, say all that is wrong with them, or `start`; return the exit status.

    `check` gives what else is wrong with the options, a line each. `stored` gives values by field
    where no file is named, for flags to win over.
    """
    try:
        line = parse(options, argv)
        wrong: list[str] = []
        if not (line.wants_help or line.wants_version):
            values: Mapping[str, object] = {}
            if line.options.spec:
                values, wrong = _from_file(options, line.options.spec)
            elif stored is not None:
                values = stored(line.options)
            line = parse(options, argv, defaults=values)
    except ClusterError as error:
        return complain(str(error), status=FAILED)
    except ConfigError as error:
        return complain(f"{error}; see {command.name} --help", status=MISUSED)
    warn(line)
    if has_told(line, options, command=command.name, of=command):
        return OK
    problems = [*wrong, *spec_check.problems(line.options), *check(line.options)]
    for problem in problems:
        complain(problem, status=MISUSED)
    return MISUSED if problems else guard(lambda: start(line.options))


def _from_file(options: type, path: str) -> tuple[dict[str, object], list[str]]:
    """The file's values for fields that these options have, and what is wrong with it."""
    values, wrong = spec_file.read(path)
    known = {each.name for each in dataclasses.fields(options)}
    return (
        {name: value for name, value in values.items() if name in known},
        [f"{path}: {each}" for each in wrong],
    )


def only(options: SpecOptions) -> AgentSpec:
    """The specification alone, without the command's own flags."""
    fields = (each.name for each in dataclasses.fields(AgentSpec))
    return AgentSpec(**{name: getattr(options, name) for name in fields})
