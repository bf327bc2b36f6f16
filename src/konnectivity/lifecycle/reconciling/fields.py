"""The fields of an object: their paths, their values, and who owns them.

A path is written as `managedFields` writes it: `f:name` for a field, `k:{...}` for the element of
a list by its keys. A list without keys and a selector are one field, as in server-side apply.
Pure.

Source: Kubernetes' structured-merge-diff (`fieldpath`), the list types of `k8s.io/api`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Object: TypeAlias = dict[str, Any]
Path: TypeAlias = tuple[str, ...]

MISSING: Final = object()
"""The value of a field that is not there."""

_NAMED: Final = ("name",)
_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": _NAMED,
    "initContainers": _NAMED,
    "volumes": _NAMED,
    "env": _NAMED,
    "volumeMounts": ("mountPath",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "hostAliases": ("ip",),
}
_DEFAULTS: Final = {"protocol": "TCP"}
_WHOLE: Final = frozenset(["selector", "nodeSelector", "podSelector", "roleRef", "labelSelector"])
"""Maps that are one field: another key in them changes what they mean."""


def leaves(item: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Each field of an object with its value, but for what identifies the object."""
    for path, value in _leaves(item, ()):
        if path not in _IDENTITY:
            yield path, value


_IDENTITY: Final = frozenset(
    [("f:apiVersion",), ("f:kind",), ("f:metadata", "f:name"), ("f:metadata", "f:namespace")]
)


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, Mapping) and value and not _is_whole(path):
        for name, inner in value.items():
            yield from _leaves(inner, (*path, f"f:{name}"))
    elif isinstance(value, list) and value and (keys := _keys_of(path)):
        for element in value:
            yield from _leaves(element, (*path, _element(element, keys)))
    else:
        yield path, value


def value_at(item: Any, path: Path) -> Any:
    """The value at a path, or `MISSING`."""
    for at, step in enumerate(path):
        if step.startswith("f:") and isinstance(item, Mapping):
            item = item.get(step[2:], MISSING)
        elif step.startswith("k:") and isinstance(item, list):
            item = _find(item, step, path[:at])
        else:
            return MISSING
        if item is MISSING:
            return MISSING
    return item


def covers(live: Any, wanted: Any, path: Path = ()) -> bool:
    """Whether all of `wanted` is in `live`, which may have more: defaults that the API set.

    An empty value is the same as none: the API drops most of them.
    """
    if live is MISSING:
        return wanted is None or wanted in ("", [], {})
    if isinstance(wanted, Mapping) and isinstance(live, Mapping) and not _is_whole(path):
        return all(covers(live.get(key, MISSING), value) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(live, list):
        pairs = zip(live, wanted, strict=False)
        return len(live) == len(wanted) and all(covers(*pair) for pair in pairs)
    return type(live) is type(wanted) and bool(live == wanted)


def without(item: Object, paths: Iterable[Path]) -> Object:
    """A copy of an object without the fields at `paths`; maps that were emptied go too."""
    rest = copy.deepcopy(item)
    for path in paths:
        for depth in range(len(path), 0, -1):
            parent, step = value_at(rest, path[: depth - 1]), path[depth - 1]
            if not isinstance(parent, dict) or not step.startswith("f:"):
                break
            parent.pop(step[2:], None)
            if parent:
                break
    return rest


def show(path: Path) -> str:
    """A path for people: `spec.template.spec.containers[konnectivity-agent].image`."""
    text = ""
    for step in path:
        if step.startswith("f:"):
            text += f".{step[2:]}"
        elif step.startswith("v:"):
            text += f"[{step[2:]}]"
        else:
            text += f"[{'/'.join(str(each) for each in json.loads(step[2:]).values())}]"
    return text.removeprefix(".")


def within(path: Path, shown: Iterable[str]) -> bool:
    """Whether a path is at or below one of those that are given as `show` writes them."""
    text = show(path)
    return any(text == each or text.startswith((f"{each}.", f"{each}[")) for each in shown)


@dataclass(frozen=True, slots=True)
class Writer:
    """Who wrote fields, by one entry of `managedFields`. `time` is RFC 3339, or empty."""

    manager: str
    operation: str
    time: str
    fields: Mapping[str, Any]
    subresource: str = ""

    def owns(self, path: Path) -> bool:
        """Whether it owns the field, what is below it, or the whole that it is part of."""
        fields: Any = self.fields
        for step in path:
            if not isinstance(fields, Mapping) or step not in fields:
                return False
            fields = fields[step]
            if not fields:
                return True
        return True

    def __str__(self) -> str:
        return f"{self.manager} ({self.operation}{f' at {self.time}' if self.time else ''})"


def writers(item: Mapping[str, Any]) -> list[Writer]:
    """All entries of an object's `managedFields`; odd ones are left out."""
    entries = (item.get("metadata") or {}).get("managedFields")
    return [
        Writer(
            str(each.get("manager") or "unknown"),
            str(each.get("operation") or ""),
            str(each.get("time") or ""),
            each["fieldsV1"],
            str(each.get("subresource") or ""),
        )
        for each in (entries if isinstance(entries, list) else [])
        if isinstance(each, dict) and isinstance(each.get("fieldsV1"), dict)
    ]


def owned(fields: Mapping[str, Any], path: Path = ()) -> Iterator[Path]:
    """The paths of a `fieldsV1` that have nothing below them."""
    for step, below in fields.items():
        if step == "." or step.startswith("v:"):
            continue
        at = (*path, step)
        if not below or all(each == "." or each.startswith("v:") for each in below):
            yield at
        else:
            yield from owned(below, at)


def _is_whole(path: Path) -> bool:
    return bool(path) and path[-1][2:] in _WHOLE


def _keys_of(path: Path) -> tuple[str, ...]:
    """The keys of the list at `path`; none: it is one field."""
    name = path[-1][2:]
    if name == "ports":
        in_service = path == ("f:spec", "f:ports")
        return ("port", "protocol") if in_service else ("containerPort", "protocol")
    return _KEYS.get(name, ())


def _element(element: Any, keys: tuple[str, ...]) -> str:
    values = element if isinstance(element, Mapping) else {}
    found = {key: values.get(key, _DEFAULTS.get(key)) for key in keys}
    present = {key: value for key, value in found.items() if value is not None}
    return "k:" + json.dumps(present, sort_keys=True, separators=(",", ":"))


def _find(items: list[Any], step: str, path: Path) -> Any:
    keys = _keys_of(path)
    return next((each for each in items if keys and _element(each, keys) == step), MISSING)
