"""What is to be done in a cluster, from what is wanted and what is there. Pure.

Where an object differs (`compare.py`), `managedFields` tells whether somebody else wrote that
(drift) or it is what we once wanted (upgrade). What is no longer wanted goes last (`prune.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple

from konnectivity.lifecycle.reconciling.compare import MANAGER as MANAGER
from konnectivity.lifecycle.reconciling.compare import Change, attributed, compare, is_drift
from konnectivity.lifecycle.reconciling.compare import is_ours as is_ours
from konnectivity.lifecycle.reconciling.compare import others as others
from konnectivity.lifecycle.reconciling.fields import Object, Path, value_at, without

PAUSED: Final = "konnectivity/paused"
"""Annotation of the workload: while it is there, and not `false`, nothing is changed."""
KEPT_BY: Final = "konnectivity/kept-by"
"""Annotation of the workload: the mark of a standing manager, which nobody else takes away."""
WORKLOADS: Final = frozenset(["DaemonSet", "Deployment"])
_THERE: Final[Object] = {"metadata": {}}
"""Stands for namespaces that are not ours to make."""


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
    ROLLOUT = "rollout"
    """A rollout is stopped or goes on, or the wait before fewer replicas is over."""
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Action:
    """One object to write: `body` is applied, by server-side apply with force.

    With `live`, the object that was looked at, there are `changes`. `recreate` means that it
    must be deleted first, because what differs is immutable. What is to be removed has no body.
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
    are as good. `added`: objects that were not wanted at first. `steered`: workloads of which
    another pace is wanted than before.
    """

    seen: Collection[Key] = ()
    installed: Collection[Key] = ()
    confirmed: Collection[Key] = ()
    settled: Mapping[Key, Mapping[Path, Any]] = field(default_factory=dict)
    added: Collection[Key] = ()
    steered: Collection[Key] = ()


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


def is_premature(key: Key, spaces: Mapping[Key, Object | None]) -> bool:
    """Whether an object cannot be made yet: its namespace is one of `spaces`, and not there."""
    if key.namespace:
        space = spaces.get(Key("v1", "Namespace", "", key.namespace), _THERE)
        return space is None or "deletionTimestamp" in space["metadata"]
    return False


def is_paused(observed: Mapping[Key, Object | None]) -> bool:
    """Whether a workload carries the annotation `PAUSED`."""
    for key, item in observed.items():
        if item is not None and key.kind in WORKLOADS:
            value = (item["metadata"].get("annotations") or {}).get(PAUSED)
            if value is not None and value != "false":
                return True
    return False


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
        before = key not in known.added and any(map(is_ours, former))
        missing = key in known.seen or before
        return Action(key, Reason.RESTORE if missing else Reason.INSTALL, item)
    if live["metadata"].get("deletionTimestamp"):
        return None
    keep = tuple(overrides) if key.kind in WORKLOADS else ()
    wanted = with_mark_of(live, with_selector_of(live, item)) if key.kind in WORKLOADS else item
    changes, left = compare(wanted, live, keep, known.settled.get(key, {}))
    adopting, confirmed = not is_ours(live), key in known.confirmed
    if not changes and not adopting:
        return None
    drift = not adopting and is_drift(changes, live, confirmed=confirmed)
    reason = Reason.ADOPT if adopting else Reason.DRIFT if drift else Reason.UPGRADE
    if reason is Reason.UPGRADE and key in known.steered:
        reason = Reason.ROLLOUT
    return Action(
        key,
        reason,
        without(wanted, left),
        tuple(attributed(changes, live, drift=drift, confirmed=confirmed)),
        live,
        recreate=_must_be_anew(key, live, changes),
        keep=keep,
    )


def _must_be_anew(key: Key, live: Object, changes: Sequence[Change]) -> bool:
    """Whether what differs is immutable: a binding's role, a Secret's type, or all of its data."""
    paths = {change.path for change in changes}
    fixed = {"Secret": ("f:type",)}.get(key.kind, ("f:roleRef",))
    return fixed in paths or bool(changes and live.get("immutable"))


def with_mark_of(live: Mapping[str, Any], wanted: Object) -> Object:
    """A workload as wanted, with the mark that a standing manager has left, if it has none."""
    there = (live["metadata"].get("annotations") or {}).get(KEPT_BY)
    meta = wanted["metadata"]
    annotations = meta.get("annotations") or {}
    if there is None or KEPT_BY in annotations:
        return wanted
    return {**wanted, "metadata": {**meta, "annotations": {**annotations, KEPT_BY: there}}}


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
