from __future__ import annotations

from pathlib import Path

from konnectivity.cli.commands_reference import COMMANDS, page
from konnectivity.cli.main import COMMANDS as ALL

PAGE = Path(__file__).parents[2] / "docs/reference/commands.md"


def test_the_page_of_commands_is_what_its_generator_prints() -> None:
    command = "python -m konnectivity.cli.commands_reference > docs/reference/commands.md"
    assert PAGE.read_text() == page(), f"run {command}"


def test_the_page_names_commands_that_there_are() -> None:
    assert {command.name.removeprefix("konnectivity ") for command, _ in COMMANDS} < ALL.keys()
