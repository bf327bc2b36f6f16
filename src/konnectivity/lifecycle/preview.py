"""What would be written, for people: each object, each field with who wrote what is there.

The API is asked to apply each object without keeping it, so missing rights, quotas and admission
are met now and not later. Nothing is changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from konnectivity.kube.client import failures
from konnectivity.kube.collection import Object
from konnectivity.lifecycle.apply import Applier, refusal
from konnectivity.lifecycle.observe import Observer
from konnectivity.lifecycle.plan import Action, Key, key_of, plan

if TYPE_CHECKING:
    from lightkube import AsyncClient


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
    return known, unknown


async def preview(
    client: AsyncClient,
    desired: Sequence[Object],
    *,
    overrides: Sequence[str],
    limit: float,
) -> AsyncIterator[str]:
    """The lines of a diff; the last one is a sum.

    A line that begins with `!` is about what cannot be done.
    """
    observed, unknown = await observe_once(client, desired, limit=limit)
    for key, why in unknown.items():
        yield f"! {key}: cannot be read: {why}"
    actions = plan(desired, observed, overrides=overrides)
    applier = Applier(client)
    for action in actions:
        for line in _lines(action):
            yield line
        if action.recreate:
            yield "    (deleted and created anew: roleRef is immutable)"
            continue
        try:
            await applier.perform(action, dry_run=True)
        except failures() as error:
            yield f"! {action.key}: would be refused: {refusal(action.key, error)}"
    created = sum(action.live is None for action in actions)
    same = len(observed) - len(actions)
    yield f"{created} to create, {len(actions) - created} to change, {same} as specified"


def _lines(action: Action) -> list[str]:
    if action.live is None:
        return [f"+ {action.key}"]
    lines = [f"~ {action.key} ({action.reason.value})"]
    for text, change in zip(action.lines(), action.changes, strict=True):
        lines.append(f"    {text}{f'  # {change.writer}' if change.writer else ''}")
    return lines
