"""Kubernetes' own schema of the kinds that we make, offline, for each supported minor.

The table `kubernetes.json` is written by `schema_extract.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tests.lifecycle.schema_extract import KINDS, TABLE, Types

CUSTOM: Final = "monitoring.coreos.com/v1"
"""Kinds of the Prometheus operator, which Kubernetes has no schema of."""

_table: Final = json.loads(TABLE.read_text())
MINORS: Final[tuple[str, ...]] = tuple(_table["minors"])
MAP: Final = "{any}"
"""The models do not say of what; in all maps that we make, such as labels, it is texts."""
PLAIN: Final[Mapping[str, tuple[type, ...]]] = {
    "str": (str,),
    "time": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "quantity": (str, int, float),
    "int-or-str": (int, str),
}


def types(minor: str) -> Types:
    """The types of one minor of Kubernetes."""
    at = MINORS.index(minor)
    found: Types = {}
    for name, fields in _table["types"].items():
        for field, spans in fields.items():
            for span in spans:
                kind, since, until = _span(span)
                if since <= at <= until:
                    found.setdefault(name, {})[field] = kind
    return found


def problems(item: Mapping[str, Any], minor: str) -> list[str]:
    """Fields that this Kubernetes does not have, has with another type, or misses."""
    module, *kinds = KINDS[item["apiVersion"]]
    known = types(minor)
    name = f"{module}.{item['kind']}"
    if item["kind"] not in kinds or name not in known:
        return [f"{item['apiVersion']} {item['kind']} is not in Kubernetes {minor}"]
    return list(_problems(item, name, known, item["kind"]))


def problems_anywhere(item: Mapping[str, Any]) -> list[str]:
    """The problems of each minor."""
    return [f"{each} ({minor})" for minor in MINORS for each in problems(item, minor)]


def _problems(value: Any, kind: str, known: Types, path: str) -> Iterator[str]:
    if kind.startswith("["):
        if not isinstance(value, list):
            yield f"{path}: {value!r} is not a list"
            return
        for index, each in enumerate(value):
            yield from _problems(each, kind[1:-1], known, f"{path}[{index}]")
    elif kind == MAP:
        if not isinstance(value, Mapping):
            yield f"{path}: {value!r} is not a map"
            return
        for key, each in value.items():
            if not isinstance(each, str):
                yield f"{path}.{key}: {each!r} is not str"
    elif kind in PLAIN:
        # A bool is an int in Python, and in no schema.
        wrong = isinstance(value, bool) and kind != "bool"
        if wrong or not isinstance(value, PLAIN[kind]):
            yield f"{path}: {value!r} is not {kind}"
    elif not isinstance(value, Mapping):
        yield f"{path}: {value!r} is not an object"
    else:
        yield from _fields(value, known[kind], known, path)


def _fields(
    value: Mapping[str, Any], fields: Mapping[str, str], known: Types, path: str
) -> Iterator[str]:
    for name, kind in fields.items():
        if kind.endswith("!") and name not in value:
            yield f"{path}.{name} is missing"
    for name, each in value.items():
        if name in fields:
            yield from _problems(each, fields[name].rstrip("!"), known, f"{path}.{name}")
        else:
            yield f"{path}.{name} is no field"


def _span(text: str) -> tuple[str, int, int]:
    """A type, and from which to which minor it holds."""
    found = re.fullmatch(r"(\S+)(?: since (\S+))?(?: until (\S+))?", text)
    assert found is not None, text
    since = MINORS.index(found[2]) if found[2] else 0
    until = MINORS.index(found[3]) if found[3] else len(MINORS)
    return found[1], since, until
