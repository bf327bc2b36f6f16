"""Writes what was planned: server-side apply as field manager `konnectivity-manager`.

An object that another tool has installed is taken over first: what that tool wrote in its `spec`
becomes ours, so that what we do not want of it goes in the same write that makes the rest as we
want it. Its pods are replaced once, one after another, by the workload's own update strategy.

Source: client-go `util/csaupgrade` for the takeover.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from konnectivity.kube.client import describe, failures
from konnectivity.kube.collection import STRATEGIC_PATCH, Collection, Object, status_of
from konnectivity.kube.resources import collection_path, rule
from konnectivity.lifecycle.reconciling.fields import Path, within
from konnectivity.lifecycle.reconciling.plan import MANAGER, Action, Key, Reason

if TYPE_CHECKING:
    from lightkube import AsyncClient

TAKEN_OVER: Final = frozenset(["DaemonSet", "Deployment", "NetworkPolicy", "PodDisruptionBudget"])
"""Kinds of which nothing is kept that we do not want. Others hold what controllers allot."""
FORBIDDEN: Final = 403
MISSING: Final = 404


class Applier:
    """Performs actions, one request or a few for each."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def perform(self, action: Action, *, dry_run: bool = False) -> Object:
        """Write one object; return it as it is now, or would be, or as it was before it went.

        What must be created anew cannot be tried: the API refuses it while the old one is there.

        Raises one of `client.failures()`.
        """
        key = action.key
        path = collection_path(key.api_version, key.kind, key.namespace)
        collection = Collection(self._client, path, name=key.name)
        if action.reason is Reason.REMOVE:
            return await _removed(collection, action, dry_run=dry_run)
        if not dry_run and action.live is not None:
            if action.recreate:
                await collection.delete(key.name, version=_version(action.live))
            elif action.reason is Reason.ADOPT and key.kind in TAKEN_OVER:
                await self._take_over(collection, action)
        return await collection.apply(action.body, manager=MANAGER, force=True, dry_run=dry_run)

    async def _take_over(self, collection: Collection, action: Action) -> None:
        live = action.live or {}
        entries = taken_over(live, api_version=action.key.api_version, keep=action.keep)
        if entries is None:
            return
        meta = live["metadata"]
        # The version is a precondition: nobody has changed the object meanwhile.
        version = {"resourceVersion": meta["resourceVersion"]}
        patch = {"metadata": {**version, "managedFields": entries}}
        await collection.patch(meta["name"], patch, content=STRATEGIC_PATCH, manager=MANAGER)


async def _removed(collection: Collection, action: Action, *, dry_run: bool) -> Object:
    live = action.live or {}
    if not dry_run:
        try:
            await collection.delete(action.key.name, uid=str(live["metadata"].get("uid") or ""))
        except failures() as error:
            if (status := status_of(error)) is None or status[0] != MISSING:
                raise
    return live


def taken_over(
    live: Mapping[str, Any], *, api_version: str, keep: tuple[str, ...]
) -> list[Object] | None:
    """The `managedFields` of an object once all of its `spec` is ours, but for `keep`.

    Entries of other API versions stay as they are. None: nobody else owns any of it.
    """
    entries: list[Object] = copy.deepcopy(live["metadata"].get("managedFields") or [])
    taken: Object = {}
    for entry in entries:
        fields = entry.get("fieldsV1")
        foreign = entry.get("subresource") or entry.get("apiVersion") != api_version
        if foreign or not isinstance(fields, dict):
            continue
        part = fields.get("f:spec")
        if isinstance(part, dict):
            ours, theirs = _split(part, keep, ("f:spec",))
            _merge(taken, {"f:spec": ours} if ours else {})
            rest = {name: below for name, below in fields.items() if name != "f:spec"}
            entry["fieldsV1"] = {**rest, "f:spec": theirs} if theirs else rest
    if not taken:
        return None
    left = [each for each in entries if each.get("fieldsV1") or each.get("subresource")]
    left.append(
        {
            "manager": MANAGER,
            "operation": "Apply",
            "apiVersion": api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": taken,
        }
    )
    return left


def refusal(key: Key, error: BaseException) -> str:
    """One line for a write that failed: the API's words, and the right that is missing, if any."""
    text = describe(error)
    status = status_of(error)
    if status is None or status[0] != FORBIDDEN:
        return text
    missing = re.search(r"cannot (\w+) resource", text)
    if missing is None and " is forbidden" in text:
        return text  # a quota, an admission plugin, a namespace that goes
    verbs = (missing[1],) if missing else ("create", "patch")
    return f"{text}; {rule(verbs, key.api_version, key.kind, key.namespace)}"


def _version(item: Mapping[str, Any]) -> str:
    return str(item["metadata"].get("resourceVersion") or "")


def _split(fields: Mapping[str, Any], keep: tuple[str, ...], path: Path) -> tuple[Object, Object]:
    """Owned fields in two: those at `keep` are the second part.

    The entry `.`, an element of a list as such, must go along: without it the element would be
    emptied and stay.
    """
    taken: Object = {}
    rest: Object = {}
    for step, below in fields.items():
        at = (*path, step)
        if step == ".":
            continue
        if within(at, keep):
            rest[step] = below
        elif below:
            ours, theirs = _split(below, keep, at)
            taken |= {step: ours} if ours else {}
            rest |= {step: theirs} if theirs else {}
        else:
            taken[step] = {}
    if "." in fields:
        taken["."] = {}
        rest |= {".": {}} if rest else {}
    return taken, rest


def _merge(into: Object, fields: Mapping[str, Any]) -> None:
    for step, below in fields.items():
        _merge(into.setdefault(step, {}), below)
