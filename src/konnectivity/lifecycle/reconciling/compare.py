"""How an object in a cluster differs from what is wanted of it, and who made it so. Pure.

Only fields that we write are looked at: what others add is theirs. Fields that users may override
are left alone once somebody else has written them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from konnectivity.lifecycle.reconciling.fields import (
    MISSING,
    Object,
    Path,
    Writer,
    covers,
    leaves,
    owned,
    show,
    value_at,
    within,
    writers,
)

MANAGER: Final = "konnectivity-manager"
"""Our field manager."""
NOBODY: Final = "unknown: a removed field has no owner"


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs. `writer` says who wrote what is there."""

    path: Path
    live: Any
    wanted: Any
    writer: str

    def __str__(self) -> str:
        return f"{show(self.path)}: {_text(self.live)} -> {_text(self.wanted)}"

    def concealed(self) -> str:
        """The change without its values, which may be secret."""
        return f"{show(self.path)}: (values not shown)"


def is_ours(item: Mapping[str, Any]) -> bool:
    """Whether we have applied fields of this object."""
    return written_by_us(item) is not None


def others(item: Mapping[str, Any]) -> list[Writer]:
    """Who else writes to an object, its status aside."""
    return [each for each in writers(item) if each.manager != MANAGER and not each.subresource]


def written_by_us(item: Mapping[str, Any]) -> Writer | None:
    """What we have applied of this object."""
    for each in writers(item):
        if each.manager == MANAGER and each.operation == "Apply" and not each.subresource:
            return each
    return None


def compare(
    wanted: Object, live: Object, overrides: Sequence[str], settled: Mapping[Path, Any]
) -> tuple[list[Change], list[Path]]:
    """What differs, and what is left to others."""
    changes, left = [], []
    ours, foreign = written_by_us(live), others(live)
    for path, value in leaves(wanted):
        have = value_at(live, path)
        same = covers(have, value, path) and not _replaced(path, have, value, ours, foreign)
        if same or (path in settled and settled[path] == have):
            continue
        theirs = have is not MISSING and not (ours and ours.owns(path))
        if theirs and within(path, overrides) and any(each.owns(path) for each in foreign):
            left.append(path)
        else:
            changes.append(Change(path, have, value, ""))
    if ours is not None:
        changes += _leftovers(ours, wanted, live, settled)
    return changes, left


def _replaced(
    path: Path, have: Any, value: Any, ours: Writer | None, foreign: Sequence[Writer]
) -> bool:
    """Whether a list or map that is one field is somebody else's, and more than ours.

    In what we own, more is what the API sets by default.
    """
    if have == value or not isinstance(value, list | dict) or (ours and ours.owns(path)):
        return False
    return have is not MISSING and any(each.owns(path) for each in foreign)


def _leftovers(
    ours: Writer, wanted: Object, live: Object, settled: Mapping[Path, Any]
) -> Iterator[Change]:
    """Fields that we have applied and no longer want."""
    ends = {path for path, _ in leaves(wanted)}
    wholes = {path[:depth] for path in ends for depth in range(1, len(path) + 1)}
    for path in owned(ours.fields):
        if path in wholes or any(path[:depth] in ends for depth in range(1, len(path))):
            continue
        have = value_at(live, path)
        if have is not MISSING and path not in settled:
            yield Change(path, have, MISSING, "")


def is_drift(changes: Iterable[Change], live: Object, *, confirmed: bool) -> bool:
    """Whether somebody else made a difference; else it is what we once wanted."""
    ours, foreign = written_by_us(live), others(live)
    for change in changes:
        owned_by_us = ours is not None and ours.owns(change.path)
        if confirmed or (not owned_by_us and _owners(change, foreign)):
            return True
    return False


def attributed(
    changes: Iterable[Change], live: Object, *, drift: bool, confirmed: bool
) -> Iterator[Change]:
    """The changes with who wrote what is there; of what is not there nobody is known."""
    ours, foreign = written_by_us(live), others(live)
    for change in changes:
        found = _owners(change, foreign)
        if not found and ours is not None and _owners(change, [ours]):
            found = [f"another writer that calls itself {ours}" if confirmed else str(ours)]
        if not found and drift:
            found = [NOBODY]
        yield Change(change.path, change.live, change.wanted, ", ".join(found))


def _owners(change: Change, among: Iterable[Writer]) -> list[str]:
    if change.live is MISSING:
        return []
    return [str(each) for each in among if each.owns(change.path)]


def _text(value: Any) -> str:
    if value is MISSING:
        return "(none)"
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 120 else f"{text[:117]}..."
