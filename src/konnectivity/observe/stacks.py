"""Stacks of Python frames as text, counted where they are equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Final

Stack = tuple[str, ...]
"""Places in the code, from the outermost function in."""

DEEPEST: Final = 128
"""Frames of a stack; what is further out is cut."""
MOST_STACKS: Final = 500
"""Different stacks in an answer; the most frequent ones."""


def stack_of(frame: FrameType | None) -> Stack:
    """The stack that ends in `frame`."""
    frames: list[FrameType] = []
    while frame is not None and len(frames) < DEEPEST:
        frames.append(frame)
        frame = frame.f_back
    return places(reversed(frames))


def places(frames: Iterable[FrameType]) -> Stack:
    """Where each of `frames` is: `module.function:line`, without the `;` that separates them."""
    return tuple(_place(frame).replace(";", ",") for frame in frames)


def _place(frame: FrameType) -> str:
    module = frame.f_globals.get("__name__", "?")
    return f"{module}.{frame.f_code.co_qualname}:{frame.f_lineno}"


def collapsed(counts: Counter[Stack]) -> str:
    """A line for each stack, as flame graph tools read it: `a;b;c 12`."""
    return "".join(
        f"{';'.join(stack)} {count}\n" for stack, count in counts.most_common(MOST_STACKS)
    )


def listed(counts: Counter[Stack]) -> Iterator[str]:
    """A paragraph for each stack, a line for each frame."""
    for stack, count in counts.most_common(MOST_STACKS):
        yield "".join([f"{count} @\n", *(f"    {place}\n" for place in stack)])
