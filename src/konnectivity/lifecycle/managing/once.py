"""One cluster made as specified once, or shown what that would change, and no standing manager."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from konnectivity.kube.collection import Object
from konnectivity.lifecycle.reconciling.plan import PAUSED
from konnectivity.lifecycle.reconciling.preview import preview
from konnectivity.lifecycle.reconciling.reconcile import ReconcileOptions, Reconciler

if TYPE_CHECKING:
    from lightkube import AsyncClient

OK: Final = 0
FAILED: Final = 1


async def show(
    client: AsyncClient, desired: Sequence[Object], *, overrides: tuple[str, ...], limit: float
) -> int:
    """Write what would be changed to standard output; return the exit status."""
    status = OK
    async for line in preview(client, desired, overrides=overrides, limit=limit):
        sys.stdout.write(f"{line}\n")
        if line.startswith("!"):
            status = FAILED
    return status


async def reconcile_once(
    client: AsyncClient, desired: Sequence[Object], *, overrides: tuple[str, ...], limit: float
) -> int:
    """Reconcile until all is as specified, or for `limit` seconds; return the exit status."""
    reconciler = Reconciler(
        client,
        desired,
        options=ReconcileOptions(resync=0, probe=0, overrides=overrides),
    )
    task = asyncio.create_task(reconciler.run())
    ending = asyncio.ensure_future(reconciler.until_settled())
    await asyncio.wait({task, ending}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
    if ending.done():
        await reconciler.recorder.flush()
    for each in (ending, task):
        each.cancel()
    await asyncio.wait({task, ending})
    if not task.cancelled():
        task.result()
    if reconciler.converged:
        return OK
    reasons = [f"{key}: {text}" for key, text in reconciler.stuck.items()]
    if reconciler.paused:
        reasons = [f"the workload has the annotation {PAUSED}"]
    for reason in reasons or [f"not as specified within {limit:g} s"]:
        sys.stderr.write(f"Error: {reason}\n")
    return FAILED
