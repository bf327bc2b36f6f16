"""What a command tells while it works: lines, and on a terminal one that moves."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final, Self

from rich.console import Console
from rich.status import Status
from rich.text import Text

STYLES: Final = {"+": "green", "-": "red", "~": "yellow", "!": "bold red"}
"""Of the lines of a preview, by how they begin."""


class Progress:
    """Lines on standard output; nothing if `quiet`, as programs want it.

    `now` is how far it is: on a terminal one line that moves, else a line for each change.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(quiet=quiet, highlight=False)
        self._moving: Status | None = None
        self._last = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.rest()

    def say(self, line: str, *, style: str = "") -> None:
        """A line that stays."""
        self._console.print(Text(line, style=style), soft_wrap=True)

    def diff(self, lines: Iterable[str]) -> None:
        """Lines of a preview, in colour where there is some."""
        for line in lines:
            self.say(line, style=STYLES.get(line[:1], ""))

    def now(self, text: str) -> None:
        """Say how far it is."""
        if text == self._last:
            return
        self._last = text
        if not self._console.is_terminal:
            self.say(text)
        elif self._moving is None:
            self._moving = self._console.status(Text(text))
            self._moving.start()
        else:
            self._moving.update(Text(text))

    def rest(self) -> None:
        """Nothing is waited for any more."""
        if self._moving is not None:
            self._moving.stop()
            self._moving = None
        self._last = ""


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2))  # noqa: T201 - this is the output
