"""What is to be done in a cluster, from what is wanted and what is there. Pure.

Only fields that we write are looked at: what others add is theirs. Where a field differs,
`managedFields` tells whether somebody else wrote it (drift) or it is what we once wanted
(upgrade). Fields that users may override are left alone once somebody else has written them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple

from konnectivity.lifecycle.fields import (
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
    without,
    writers,
)

MANAGER: Final = "konnectivity-manager"
"""Our field manager."""
PAUSED: Final = "konnectivity/paused"
"""Annotation of the workload: while it is there, and not `false`, nothing is changed."""
WORKLOADS: Final = frozenset(["DaemonSet", "Deployment"])
NOBODY: Final = "unknown: a removed field has no owner"


class Key(NamedTuple):
    """What an object is found by. Cluster-scoped ones have no namespace."""

    api_version: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}"


class Reason(Enum):
    """Why an object is written; the value is the `reason` of metrics."""

    INSTALL = "install"
    RESTORE = "restore"
    DRIFT = "drift"
    UPGRADE = "upgrade"
    ADOPT = "adopt"


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


@dataclass(frozen=True, slots=True)
class Action:
    """One object to write: `body` is applied, by server-side apply with force.

    With `live`, the object that was looked at, there are `changes`. `recreate` means that it
    must be deleted first, because what differs is immutable.
    """

    key: Key
    reason: Reason
    body: Object
    changes: tuple[Change, ...] = ()
    live: Object | None = None
    recreate: bool = False
    keep: tuple[str, ...] = ()
    """Fields whose owners stay, as `show` writes them."""

    def lines(self) -> list[str]:
        """Its changes for people, without what may be secret: Secrets, environments."""
        return [
            each.concealed() if self.key.kind == "Secret" or "f:env" in each.path else str(each)
            for each in self.changes
        ]

    @property
    def writers(self) -> list[str]:
        """Who wrote what differs, each once."""
        return list(dict.fromkeys(each.writer for each in self.changes if each.writer))


@dataclass(frozen=True, slots=True)
class Known:
    """What a manager has learnt while it runs.

    `seen`: objects that were there. `installed`: those that it created itself. `confirmed`: those
    that were as wanted since. `settled`: values that the API made of ours, by object and path; they
    are as good.
    """

    seen: Collection[Key] = ()
    installed: Collection[Key] = ()
    confirmed: Collection[Key] = ()
    settled: Mapping[Key, Mapping[Path, Any]] = field(default_factory=dict)


def key_of(item: Mapping[str, Any]) -> Key:
    """The key of an object that names its kind."""
    meta = item["metadata"]
    return Key(item["apiVersion"], item["kind"], meta.get("namespace") or "", meta["name"])


def plan(
    desired: Sequence[Object],
    observed: Mapping[Key, Object | None],
    *,
    overrides: Sequence[str] = (),
    known: Known | None = None,
) -> list[Action]:
    """The actions that make `observed` as `desired`, in the order of `desired`.

    An object of which nothing was observed, not even its absence (None), is left alone; so is
    one that is being deleted, until it is gone. `overrides` are fields of the workload.
    """
    known = known or Known()
    actions = (
        _plan_one(item, observed, overrides, known) for item in desired if key_of(item) in observed
    )
    return [action for action in actions if action is not None]


def is_paused(observed: Mapping[Key, Object | None]) -> bool:
    """Whether a workload carries the annotation `PAUSED`."""
    for key, item in observed.items():
        if item is not None and key.kind in WORKLOADS:
            value = (item["metadata"].get("annotations") or {}).get(PAUSED)
            if value is not None and value != "false":
                return True
    return False


def is_ours(item: Mapping[str, Any]) -> bool:
    """Whether we have applied fields of this object."""
    return _ours(item) is not None


def others(item: Mapping[str, Any]) -> list[Writer]:
    """Who else writes to an object, its status aside."""
    return [each for each in writers(item) if each.manager != MANAGER and not each.subresource]


def _plan_one(
    item: Object,
    observed: Mapping[Key, Object | None],
    overrides: Sequence[str],
    known: Known,
) -> Action | None:
    key = key_of(item)
    live = observed[key]
    if live is None:
        # What is missing beside objects of an earlier run was there in that run.
        former = (each for at, each in observed.items() if each and at not in known.installed)
        missing = key in known.seen or any(map(is_ours, former))
        return Action(key, Reason.RESTORE if missing else Reason.INSTALL, item)
    if live["metadata"].get("deletionTimestamp"):
        return None
    keep = tuple(overrides) if key.kind in WORKLOADS else ()
    wanted = with_selector_of(live, item) if key.kind in WORKLOADS else item
    changes, left = _compare(wanted, live, keep, known.settled.get(key, {}))
    adopting, confirmed = not is_ours(live), key in known.confirmed
    if not changes and not adopting:
        return None
    reason = Reason.ADOPT if adopting else _reason(changes, live, confirmed=confirmed)
    return Action(
        key,
        reason,
        without(wanted, left),
        tuple(_attributed(changes, live, reason, confirmed=confirmed)),
        live,
        recreate=any(change.path == ("f:roleRef",) for change in changes),
        keep=keep,
    )


def with_selector_of(live: Mapping[str, Any], wanted: Object) -> Object:
    """A workload as wanted, with the selector that it has: nobody may change that.

    The labels of its pods are made to match as those that are there do.
    """
    selector = (live.get("spec") or {}).get("selector")
    if not isinstance(selector, dict) or selector == wanted["spec"]["selector"]:
        return wanted
    there = value_at(live, ("f:spec", "f:template", "f:metadata", "f:labels"))
    there = there if isinstance(there, dict) else {}
    template = wanted["spec"]["template"]
    labels = dict(template["metadata"].get("labels") or {})
    expressions = selector.get("matchExpressions") or []
    for name in (*(selector.get("matchLabels") or {}), *(each["key"] for each in expressions)):
        labels.pop(name, None)
        if name in there:
            labels[name] = there[name]
    meta = {**template["metadata"], "labels": labels}
    spec = {**wanted["spec"], "selector": selector, "template": {**template, "metadata": meta}}
    return {**wanted, "spec": spec}


def _compare(
    wanted: Object, live: Object, overrides: Sequence[str], settled: Mapping[Path, Any]
) -> tuple[list[Change], list[Path]]:
    """What differs, and what is left to others."""
    changes, left = [], []
    ours, foreign = _ours(live), others(live)
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


def _reason(changes: Iterable[Change], live: Object, *, confirmed: bool) -> Reason:
    ours, foreign = _ours(live), others(live)
    for change in changes:
        owned_by_us = ours is not None and ours.owns(change.path)
        if confirmed or (not owned_by_us and _owners(change, foreign)):
            return Reason.DRIFT
    return Reason.UPGRADE


def _attributed(
    changes: Iterable[Change], live: Object, reason: Reason, *, confirmed: bool
) -> Iterator[Change]:
    """The changes with who wrote what is there; of what is not there nobody is known."""
    ours, foreign = _ours(live), others(live)
    for change in changes:
        found = _owners(change, foreign)
        if not found and ours is not None and _owners(change, [ours]):
            found = [f"another writer that calls itself {ours}" if confirmed else str(ours)]
        if not found and reason is Reason.DRIFT:
            found = [NOBODY]
        yield Change(change.path, change.live, change.wanted, ", ".join(found))


def _owners(change: Change, among: Iterable[Writer]) -> list[str]:
    if change.live is MISSING:
        return []
    return [str(each) for each in among if each.owns(change.path)]


def _ours(item: Mapping[str, Any]) -> Writer | None:
    for each in writers(item):
        if each.manager == MANAGER and each.operation == "Apply" and not each.subresource:
            return each
    return None


def _text(value: Any) -> str:
    if value is MISSING:
        return "(none)"
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 120 else f"{text[:117]}..."
