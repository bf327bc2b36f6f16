"""What would be written: each object, each field with who wrote what is there.

The API is asked to apply each object without keeping it, so missing rights, quotas and admission
are met now and not later. Nothing is changed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from konnectivity.kube.client import failures
from konnectivity.kube.collection import Object
from konnectivity.lifecycle.reconciling.apply import Applier, refusal
from konnectivity.lifecycle.reconciling.compare import Change, is_ours
from konnectivity.lifecycle.reconciling.leftovers import leftovers
from konnectivity.lifecycle.reconciling.observe import Observer
from konnectivity.lifecycle.reconciling.plan import Action, Key, Reason, is_premature, key_of, plan
from konnectivity.lifecycle.reconciling.prune import may_go
from konnectivity.lifecycle.reconciling.suspects import UNKNOWN, suspects

if TYPE_CHECKING:
    from lightkube import AsyncClient


@dataclass(frozen=True, slots=True)
class Preview:
    """What is to be done, and what of it cannot be."""

    actions: tuple[Action, ...]
    unknown: dict[Key, str]
    """Objects that cannot be read, and why."""
    refused: dict[Key, str]
    """Objects that the API would refuse, and why."""
    same: int
    """How many objects are as specified."""
    leftovers: tuple[Key, ...] = ()
    """Ours, of an earlier specification, and no longer wanted."""
    staying: tuple[Key, ...] = ()
    """Namespaces of the specification before: they would take along what is not ours."""

    @property
    def blocked(self) -> bool:
        """Whether not all of it can be done, or be known."""
        return bool(self.unknown or self.refused)

    @property
    def differs(self) -> bool:
        return bool(self.actions or self.leftovers)

    @property
    def sum(self) -> str:
        created = sum(action.live is None for action in self.actions)
        changed = len(self.actions) - created
        removed = f", {len(self.leftovers)} to remove" if self.leftovers else ""
        return f"{created} to create, {changed} to change{removed}, {self.same} as specified"

    def lines(self) -> Iterator[str]:
        """A diff for people. A line that begins with `!` is about what cannot be done."""
        for key, why in self.unknown.items():
            yield f"! {key}: cannot be read: {why}"
        for action in self.actions:
            yield from _lines(action)
            if action.key in self.refused:
                yield f"! {action.key}: would be refused: {self.refused[action.key]}"
        for key in self.leftovers:
            yield f"- {key}"
        for key in self.staying:
            remedy = f"kubectl delete namespace {key.name}"
            yield f"! {key} is not wanted any more and stays, with what is in it: {remedy}"
        yield self.sum

    def as_json(self) -> dict[str, object]:
        """The same for programs; values that may be secret are left out."""
        return {
            "actions": [_as_json(action) for action in self.actions],
            "unreadable": {str(key): why for key, why in self.unknown.items()},
            "refused": {str(key): why for key, why in self.refused.items()},
            "leftovers": [str(key) for key in self.leftovers],
            "staying": [str(key) for key in self.staying],
            "unchanged": self.same,
        }


async def observe_once(
    client: AsyncClient, desired: Sequence[Object], *, limit: float
) -> tuple[dict[Key, Object | None], dict[Key, str]]:
    """What is there, and why the rest is not known."""
    moved = asyncio.Event()
    keys = [key_of(item) for item in desired]
    async with Observer(client, keys, changed=moved.set) as observer:
        try:
            async with asyncio.timeout(limit):
                while len({*observer.observed(), *observer.troubles}) < len(keys):
                    moved.clear()
                    await moved.wait()
        except TimeoutError:
            pass
        known, troubles = observer.observed(), observer.troubles
    silent = f"no answer within {limit:g} s"
    unknown = {key: troubles.get(key, silent) for key in keys if key not in known}
    return known, {key: _explained(key, why) for key, why in unknown.items()}


async def examine(
    client: AsyncClient,
    desired: Sequence[Object],
    *,
    overrides: Sequence[str],
    limit: float,
    former: Sequence[Object] = (),
) -> Preview:
    """Observe, plan, and try each write; `limit` is how long observing may take.

    What must be created anew, or in a namespace that is not there yet, cannot be tried. `former`
    are the objects of the specification before, if it is known: leftovers are looked for among
    them, too.
    """
    observed, unknown = await observe_once(client, desired, limit=limit)
    actions = plan(desired, observed, overrides=overrides)
    applier = Applier(client)
    refused = {}
    for action in actions:
        if action.recreate or is_premature(action.key, observed):
            continue
        try:
            await applier.perform(action, dry_run=True)
        except failures() as error:
            refused[action.key] = refusal(action.key, error)
    wanted = {key_of(item): item for item in desired}
    # Who could not be asked for what is wanted need not be asked for what is not.
    left: list[Key] = []
    staying: list[Key] = []
    if not unknown:
        keys = {key_of(item) for item in former} - wanted.keys()
        there, _ = await observe_once(client, [i for i in former if key_of(i) in keys], limit=limit)
        ours = {key for key, item in there.items() if item is not None and may_go(key, item)}
        left = sorted(ours | await leftovers(client, wanted))
        spaces = {key: item for key, item in there.items() if key.kind == "Namespace"}
        staying = [key for key, item in spaces.items() if item is not None and is_ours(item)]
    same = len(observed) - len(actions)
    return Preview(tuple(actions), unknown, refused, same, tuple(left), tuple(staying))


async def preview(
    client: AsyncClient, desired: Sequence[Object], *, overrides: Sequence[str], limit: float
) -> AsyncIterator[str]:
    """The lines of a diff; the last one is a sum."""
    found = await examine(client, desired, overrides=overrides, limit=limit)
    for line in found.lines():
        yield line


def _explained(key: Key, why: str) -> str:
    """A list is refused as not found only where its kind is not known."""
    if "HTTP 404" not in why:
        return why
    return f"{why}; this cluster does not know {key.kind} in {key.api_version}"


def owners(action: Action) -> list[str]:
    """Who has installed an object that is to be adopted, as far as it shows."""
    return [each for each in suspects(action.live) if each != UNKNOWN]


def _lines(action: Action) -> Iterator[str]:
    if action.live is None:
        yield f"+ {action.key}"
    else:
        yield f"~ {action.key} ({action.reason.value})"
    if action.reason is Reason.ADOPT and (found := owners(action)):
        yield f"    (it is taken over from: {', '.join(found)})"
    for text, change in zip(action.lines(), action.changes, strict=True):
        yield f"    {text}{f'  # {change.writer}' if change.writer else ''}"
        if text == str(change):  # else its values may be secret
            yield from _elements(change)
    if action.recreate:
        yield "    (deleted and created anew: roleRef is immutable)"


def _elements(change: Change) -> Iterator[str]:
    """Which elements of two lists differ; the lists themselves are cut to a line."""
    if isinstance(change.live, list) and isinstance(change.wanted, list):
        for mark, these, those in (
            ("-", change.live, change.wanted),
            ("+", change.wanted, change.live),
        ):
            yield from (f"        {mark} {json.dumps(each)}" for each in these if each not in those)


def _as_json(action: Action) -> dict[str, object]:
    return {
        "object": str(action.key),
        "reason": action.reason.value,
        "creates": action.live is None,
        "recreates": action.recreate,
        "owners": owners(action) if action.reason is Reason.ADOPT else [],
        "changes": [
            {"change": text, "writer": change.writer}
            for text, change in zip(action.lines(), action.changes, strict=True)
        ],
    }
