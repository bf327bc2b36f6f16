"""Names, types and defaults of the flags are upstream's; the page of differences has the others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.spec import flags

from konnectivity.agent.options import AgentOptions
from konnectivity.cli.flags import parse, usage
from konnectivity.flag import Flag, flags_of
from konnectivity.server.options import ServerOptions

PAGE = (Path(__file__).parents[2] / "docs/compatibility.md").read_text()
OPTIONS = {"server": ServerOptions, "agent": AgentOptions}
UPSTREAM = {
    "server": (*flags.SERVER, *flags.LOGGING),
    "agent": (*flags.AGENT, *flags.LOGGING),
}

pytestmark = pytest.mark.parametrize("program", OPTIONS)

Row = tuple[str, str, str]


def rows(program: str) -> Iterator[Row]:
    """Our flags as upstream's table has them; an old name is a flag of its own there."""
    for each in flags_of(OPTIONS[program]):
        yield each.name, each.kind.name or "bool", default(each)
        if each.old_name:
            yield each.old_name, each.kind.name, default(each)


def default(each: Flag) -> str:
    return f"${each.variable}" if each.variable else each.kind.show(each.default)


def table(title: str, program: str) -> list[list[str]]:
    """The rows for a program of the page's table under `title`: code spans, cell by cell."""
    section = PAGE.partition(f"### {title}\n")[2].partition("\n#")[0]
    cells = [re.split(r" ?\| ?", line)[1:-1] for line in section.splitlines() if "| `--" in line]
    assert cells
    wanted = (program, "both")
    return [[cell.strip("`") for cell in row] for row in cells if row[1] in wanted]


def test_every_flag_of_upstream_is_there_with_its_type_and_default(program: str) -> None:
    """Scenarios 55 and 56."""
    theirs = set(UPSTREAM[program])
    ours = {name: (kind, value) for name, kind, value in rows(program)}
    other = {(name, value, ours[name][1]) for name, _, value in theirs - set(rows(program))}
    assert {(program, *row) for row in other} <= flags.DIFFERENT
    assert [row for row in theirs if ours[row[0]][0] != row[1]] == []


def test_every_default_that_differs_is_on_the_page_and_no_other(program: str) -> None:
    listed = {(row[1], row[0].strip("-"), row[2], row[3]) for row in table("Defaults", program)}
    assert listed == {row for row in flags.DIFFERENT if row[0] == program}
    ours = {(name, value) for name, _, value in rows(program)}
    assert all((name, value) in ours for _, name, _, value in listed)


def test_every_flag_that_upstream_lacks_is_on_the_page_with_its_default(program: str) -> None:
    listed = {(row[0].strip("-"), row[2]) for row in table("Flags of ours", program)}
    theirs = {name for name, _, _ in UPSTREAM[program]}
    assert listed == {(name, value) for name, _, value in rows(program) if name not in theirs}


def test_the_defaults_printed_by_go_are_read_back_as_the_defaults(program: str) -> None:
    other = {name for of, name, theirs, ours in flags.DIFFERENT if of == program and theirs != ours}
    theirs = [row for row in UPSTREAM[program] if row[0] not in other]
    argv = [f"--{name}={value.strip(chr(34))}" for name, _, value in theirs if value[:1] != "$"]
    assert parse(OPTIONS[program], argv).options == OPTIONS[program]()


def test_the_help_names_every_flag_but_the_deprecated_ones(program: str) -> None:
    lines = usage(OPTIONS[program], command=program, about="About.", examples=[]).splitlines()
    named = {found[1] for line in lines if (found := re.match(r"  (?:-\w, )?--?([\w-]+)", line))}
    hidden = flags.DEPRECATED[program]
    assert {name for name, _, _ in UPSTREAM[program]} - named == hidden
    assert parse(OPTIONS[program], [f"--{name}=true" for name in hidden]).warnings


def test_every_flag_says_what_it_does_in_a_sentence(program: str) -> None:
    for each in flags_of(OPTIONS[program]):
        if not each.deprecated:
            assert each.help[:1].isupper(), each.name
            assert each.help.endswith("."), each.name
