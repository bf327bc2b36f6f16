"""The way to one callee, link by link, and what it comes to: `Chain`. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DIAL: Final = "dial"
"""The title of the link that shows most."""


class State(StrEnum):
    """What is known of one link."""

    WORKS = "works"
    BROKEN = "broken"
    UNKNOWN = "unknown"
    """It was asked for, and nobody told."""
    NOTE = "note"
    """Worth knowing; the verdict does not depend on it."""


class Verdict(StrEnum):
    """What the links come to; the dial, where there was one, counts more than what is not known."""

    WHOLE = "whole"
    BROKEN = "broken"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Link:
    """One link. `remedy` says what to do about a broken or unknown one."""

    title: str
    state: State
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """All links to one callee. Behind a broken one nothing can be said, and nothing is."""

    callee: str
    links: tuple[Link, ...]

    @property
    def verdict(self) -> Verdict:
        states = {each.state for each in self.links}
        if State.BROKEN in states:
            return Verdict.BROKEN
        if any(each.title == DIAL and each.state is State.WORKS for each in self.links):
            return Verdict.WHOLE
        return Verdict.UNKNOWN if State.UNKNOWN in states else Verdict.WHOLE

    @property
    def summary(self) -> str:
        """One line: where it breaks, or that it does not."""
        wanted = {Verdict.BROKEN: State.BROKEN, Verdict.UNKNOWN: State.UNKNOWN}.get(self.verdict)
        for link in self.links:
            if link.state is wanted:
                what = "BROKEN at" if wanted is State.BROKEN else "CANNOT TELL,"
                return f"{self.callee}: {what} {link.title}: {link.text}"
        dials = [each.state for each in self.links if each.title == DIAL]
        if State.WORKS in dials:
            return f"{self.callee}: WHOLE, a dial came through"
        return f"{self.callee}: WHOLE, nothing is wrong{'; no dial was tried' if dials else ''}"
