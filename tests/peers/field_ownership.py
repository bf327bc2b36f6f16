"""Server-side apply as the API server does it: merging, ownership of fields, conflicts.

A field is a path of `fieldsV1` keys. Lists with keys are merged by them, others are one field.
Written from the API's documentation, and on purpose without the package's own code.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]
Path = tuple[str, ...]
Fields = dict[Path, Any]
"""Values by path; `k:` steps hold the keys of a list's element."""

KEYS = {
    "containers": ["name"],
    "initContainers": ["name"],
    "volumes": ["name"],
    "env": ["name"],
    "volumeMounts": ["mountPath"],
    "ports": ["containerPort", "protocol"],
    "topologySpreadConstraints": ["topologyKey", "whenUnsatisfiable"],
}
ATOMIC = ["selector", "nodeSelector", "podSelector", "roleRef"]
NOT_OWNED = [
    ("f:apiVersion",),
    ("f:kind",),
    *[
        ("f:metadata", f"f:{name}")
        for name in (
            *("name", "namespace", "uid", "resourceVersion", "creationTimestamp"),
            *("generation", "managedFields", "selfLink", "deletionTimestamp"),
        )
    ],
]


class Conflict(Exception):
    """Fields are owned by others: their paths and managers."""

    def __init__(self, fields: list[tuple[Path, str]]) -> None:
        self.managers = sorted({manager for _, manager in fields})
        self.fields = sorted({_dotted(path) for path, _ in fields})
        few = "conflict" if len(fields) == 1 else "conflicts"
        whose = ", ".join(f'"{manager}"' for manager in self.managers)
        super().__init__(
            f"Apply failed with {len(fields)} {few}: {few} with {whose}: {', '.join(self.fields)}"
        )


def flatten(item: Object) -> Fields:
    """The fields of an object that somebody may own."""
    return {path: value for path, value in _flatten(item, ()) if path[:2] not in NOT_OWNED}


def _flatten(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    name = path[-1][2:] if path else ""
    if isinstance(value, dict) and value and name not in ATOMIC:
        for key, inner in value.items():
            yield from _flatten(inner, (*path, f"f:{key}"))
    elif isinstance(value, list) and value and _has_keys(name, value):
        for element in value:
            at = (*path, _key(name, element))
            yield at, "an element"
            yield from _flatten(element, at)
    else:
        yield path, value


def _has_keys(name: str, value: list[Any]) -> bool:
    wanted = KEYS.get(name, [])
    return bool(wanted) and all(isinstance(each, dict) and wanted[0] in each for each in value)


def _key(name: str, element: Object) -> str:
    default = {"protocol": "TCP"}
    keys = {key: element.get(key, default.get(key)) for key in KEYS[name]}
    return "k:" + json.dumps(keys, sort_keys=True, separators=(",", ":"))


def merge(into: Object, patch: Object) -> None:
    """Merge `patch` in place, lists by their keys; null removes (strategic merge patch)."""
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        if value is None:
            into.pop(name, None)
        elif isinstance(value, dict) and isinstance(into.get(name), dict) and name not in ATOMIC:
            merge(into[name], value)
        elif isinstance(value, list) and _has_keys(name, value) and into.get(name):
            for element in value:
                _merge_element(into[name], name, element)
        else:
            into[name] = copy.deepcopy(value)


def _merge_element(items: list[Any], name: str, element: Object) -> None:
    found = next((each for each in items if _key(name, each) == _key(name, element)), None)
    if element.get("$patch") == "delete":
        items[:] = [each for each in items if each is not found]
    elif found is not None:
        merge(found, element)
    else:
        items.append(copy.deepcopy(element))


def apply(live: Object | None, config: Object, *, manager: str, force: bool) -> Object:
    """The object after a server-side apply.

    Raises:
        Conflict: others own fields that would change, and there is no `force`.
    """
    result = copy.deepcopy(live) if live is not None else {}
    managed = _decode(result)
    wanted, have = flatten(config), flatten(result)
    mine = (manager, "Apply")
    taken = [
        (path, who[0])
        for who, paths in managed.items()
        if who != mine
        for path in paths
        if path in wanted and have.get(path) != wanted[path]
    ]
    if taken and not force:
        raise Conflict(taken)
    for path, _ in taken:
        for who in list(managed):
            if who != mine:
                managed[who].discard(path)
    former = managed.get(mine, set())
    managed[mine] = set(wanted)
    still = set().union(*managed.values())
    # What an element of a list is found by goes last.
    for path in sorted(former - still, key=lambda path: (_is_key(path), -len(path))):
        _remove(result, path)
    meta = {"managedFields", "resourceVersion", "uid"}
    body = {**config, "metadata": {k: v for k, v in config["metadata"].items() if k not in meta}}
    merge(result, body)
    _encode(result, managed, live)
    return result


def update(live: Object | None, item: Object, *, manager: str) -> Object:
    """The object after another kind of write: who changed a field owns it."""
    result = copy.deepcopy(item)
    if live is not None and "managedFields" in item["metadata"]:
        managed = _decode(item)  # somebody may write these, too
    else:
        managed = _decode(live or {})
    before, after = flatten(live or {}), flatten(result)
    changed = {path for path, value in after.items() if before.get(path, ...) != value}
    mine = (manager, "Update")
    for paths in managed.values():
        paths -= changed
        paths &= set(after)
    managed.setdefault(mine, set()).update(changed)
    _encode(result, managed, live)
    return result


def _is_key(path: Path) -> bool:
    keys = json.loads(path[-2][2:]) if len(path) > 1 and path[-2].startswith("k:") else {}
    return path[-1][2:] in keys


def _remove(item: Any, path: Path) -> None:
    """Remove a field, and what it leaves empty; an element only if it is itself what goes."""
    child = _child(item, path[0])
    if child is None and len(path) > 1:
        return
    if len(path) > 1:
        _remove(child, path[1:])
    if isinstance(item, dict) and (len(path) == 1 or child in ({}, [])):
        item.pop(path[0][2:], None)
    elif isinstance(item, list) and len(path) == 1:
        item[:] = [each for each in item if each is not child]


def _child(parent: Any, step: str) -> Any:
    if isinstance(parent, dict):
        return parent.get(step[2:])
    keys = json.loads(step[2:])
    for each in parent if isinstance(parent, list) else []:
        if all(each.get(key, "TCP") == value for key, value in keys.items()):
            return each
    return None


def _decode(item: Object) -> dict[tuple[str, str], set[Path]]:
    return {
        (entry["manager"], entry["operation"]): set(_paths(entry["fieldsV1"], ()))
        for entry in item.get("metadata", {}).get("managedFields") or []
    }


def _paths(fields: Object, path: Path) -> Iterator[Path]:
    for step, below in fields.items():
        if step == ".":
            continue
        if not below or "." in below:
            yield (*path, step)
        yield from _paths(below, (*path, step))


def _encode(item: Object, managed: dict[tuple[str, str], set[Path]], live: Object | None) -> None:
    former = ((live or {}).get("metadata") or {}).get("managedFields") or []
    old = {(each["manager"], each["operation"]): each for each in former}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    entries = []
    for who, paths in managed.items():
        if not paths:
            continue
        fields: Object = {}
        for path in sorted(paths):
            at = fields
            for step in path:
                at = at.setdefault(step, {})
            if path[-1].startswith("k:"):
                at["."] = {}
        before = old.get(who)
        same = before is not None and set(_paths(before["fieldsV1"], ())) == paths
        time = before.get("time", now) if before is not None and same else now
        entries.append(
            {
                "manager": who[0],
                "operation": who[1],
                "apiVersion": item.get("apiVersion", "v1"),
                "time": time,
                "fieldsType": "FieldsV1",
                "fieldsV1": fields,
            }
        )
    item["metadata"]["managedFields"] = entries


def _dotted(path: Path) -> str:
    return "".join(f".{step[2:]}" if step[0] == "f" else f"[{step[2:]}]" for step in path)
