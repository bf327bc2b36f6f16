"""Several renderings of one object, merged into one that asks values which of them it is.

A chart is made by rendering a specification with each option off and on. What all renderings have
stays as it is; what comes or goes with an option is put under that option's condition. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, Final, TypeAlias

from konnectivity.lifecycle.rendering.yaml_text import to_yaml

Tree: TypeAlias = Any
"""Plain JSON, with the nodes below in between."""
Variants: TypeAlias = Mapping[str, Any]
"""The same part of an object, by the condition under which it is so."""
INDENT: Final = 2


@dataclass(frozen=True, slots=True)
class Only:
    """An entry of a map or a list that is there under a condition."""

    condition: str
    value: Tree


@dataclass(frozen=True, slots=True)
class Either:
    """A scalar that is another one under a condition."""

    condition: str
    value: Tree
    otherwise: Tree


@dataclass(frozen=True, slots=True)
class Text:
    """Lines of a template. `lines` gets the column at which they begin."""

    lines: Callable[[int], list[str]]


def merge(base: Any, variants: Variants) -> Tree:
    """`base`, with what each variant has otherwise under its condition.

    Options must be independent of each other: where two change the same value, both must make the
    same of it.

    Raises:
        ValueError: two options make different things of a value, or elements of a list look the
            same.
    """
    changed = {name: value for name, value in variants.items() if value != base}
    if not changed:
        return base
    if isinstance(base, dict):
        return _merge_entries(base, changed)
    if isinstance(base, list):
        listed = {name: _keyed(value) for name, value in changed.items()}
        return list(_merge_entries(_keyed(base), listed).values())
    return Either(*_agreed(changed, repr(base)), base)


def _agreed(values: Mapping[str, Any], what: str) -> tuple[str, Any]:
    """When a value is so, and the value, on which all options must agree."""
    first, *others = values.values()
    if any(each != first for each in others):
        raise ValueError(f"{what} depends on {' and '.join(values)}")
    conditions = list(values)
    return conditions[0] if not others else f"or ({') ('.join(conditions)})", first


def _merge_entries(base: dict[str, Any], variants: Mapping[str, dict[str, Any]]) -> dict[str, Tree]:
    found: dict[str, Tree] = {}
    for name, value in base.items():
        having = {each: other[name] for each, other in variants.items() if name in other}
        found[name] = merge(value, having)
        lacking = [each for each in variants if each not in having]
        if len(lacking) > 1:
            raise ValueError(f"{name} depends on {' and '.join(lacking)}")
        if lacking:
            found[name] = Only(f"not ({lacking[0]})", found[name])
    for name in {name for other in variants.values() for name in other} - base.keys():
        having = {each: other[name] for each, other in variants.items() if name in other}
        found[name] = Only(*_agreed(having, name))
    return _ordered(found, base, variants.values())


def _ordered(
    found: dict[str, Tree], base: dict[str, Any], others: Iterable[dict[str, Any]]
) -> dict[str, Tree]:
    """New entries behind the entry that they follow in their own rendering."""
    order = list(base)
    for other in others:
        before = ""
        for name in other:
            if name not in order:
                at = order.index(before) + 1 if before else 0
                while at < len(order) and order[at] not in base and order[at] not in other:
                    at += 1  # behind what earlier options put there
                order.insert(at, name)
            before = name
    return {name: found[name] for name in order}


def _keyed(items: list[Any]) -> dict[str, Any]:
    """A list by what tells its elements apart."""
    keyed = {_identity(each): each for each in items}
    if len(keyed) < len(items):
        raise ValueError(f"elements cannot be told apart: {items}")
    return keyed


def _identity(item: Any) -> str:
    if isinstance(item, dict) and "name" in item:
        return f"name {item['name']}"
    if isinstance(item, str):
        return item.partition("=")[0]  # a flag's value may differ
    return json.dumps(item)


def emit(tree: Tree, column: int = 0) -> list[str]:
    """The lines of a template, which begin at `column`."""
    if isinstance(tree, Text):
        return tree.lines(column)
    if isinstance(tree, dict) and tree:
        return _sequence(
            [(value, partial(_entry, name, column=column)) for name, value in tree.items()]
        )
    if isinstance(tree, list) and tree:
        return _sequence([(value, partial(_element, column=column)) for value in tree])
    return [" " * column + _scalar(tree)]


def _sequence(parts: Sequence[tuple[Tree, Callable[[Tree], list[str]]]]) -> list[str]:
    """Neighbours under one condition share it."""
    found: list[str] = []
    for condition, group in groupby(parts, key=_condition):
        lines = [line for value, write in group for line in write(_inner(value))]
        found += _under(condition, lines) if condition else lines
    return found


def _condition(part: tuple[Tree, Any]) -> str:
    return part[0].condition if isinstance(part[0], Only) else ""


def _inner(value: Tree) -> Tree:
    return value.value if isinstance(value, Only) else value


def _entry(name: str, value: Tree, column: int) -> list[str]:
    if isinstance(value, Either):
        return _either(value, lambda each: _entry(name, each, column))
    head = " " * column + f"{_scalar(name)}:"
    if isinstance(value, Text) or (isinstance(value, dict | list) and value):
        return [head, *emit(value, column + INDENT)]
    return [f"{head} {_scalar(value)}"]


def _element(value: Tree, column: int) -> list[str]:
    if isinstance(value, Either):
        return _either(value, lambda each: _element(each, column))
    if isinstance(value, Text):
        return value.lines(column)
    first, *rest = emit(value, column + INDENT)
    return [" " * column + "- " + first[column + INDENT :], *rest]


def _either(value: Either, write: Callable[[Tree], list[str]]) -> list[str]:
    on, off = write(value.value), write(value.otherwise)
    return [f"{{{{- if {value.condition} }}}}", *on, "{{- else }}", *off, "{{- end }}"]


def _under(condition: str, lines: Sequence[str]) -> list[str]:
    return [f"{{{{- if {condition} }}}}", *lines, "{{- end }}"]


def _scalar(value: Any) -> str:
    """As in YAML; braces that are not the template's are told apart from its own."""
    text = to_yaml([{"k": value}]).removeprefix("k:").strip()
    return text.replace("{{", "\0").replace("}}", '{{ "}}" }}').replace("\0", '{{ "{{" }}')
