"""A Containerfile, read as its stages and instructions."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Instruction:
    """`RUN`, `COPY` and so on, with the rest of the line."""

    word: str
    rest: str

    @property
    def words(self) -> list[str]:
        """As a JSON list, or as a shell splits it."""
        return json.loads(self.rest) if self.rest.startswith("[") else shlex.split(self.rest)


@dataclass(frozen=True)
class Stage:
    """What follows one `FROM`."""

    base: str
    name: str
    instructions: tuple[Instruction, ...]

    @classmethod
    def parse(cls, text: str) -> list[Self]:
        """All stages; what stands before the first is left out."""
        lines = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*(#.*)?\n", "", text)).splitlines()
        every = [Instruction(*line.split(maxsplit=1)) for line in lines]
        starts = [at for at, each in enumerate(every) if each.word == "FROM"]
        ends = [*starts[1:], len(every)]
        return [
            cls(
                base=every[at].words[0],
                name=every[at].words[-1] if "AS" in every[at].words else "",
                instructions=tuple(every[at + 1 : end]),
            )
            for at, end in zip(starts, ends, strict=True)
        ]

    def all(self, word: str) -> list[Instruction]:
        """Its instructions of one kind."""
        return [each for each in self.instructions if each.word == word]

    def last(self, word: str) -> list[str]:
        """The words of the one that counts."""
        return self.all(word)[-1].words
