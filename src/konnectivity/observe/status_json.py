"""Status in JSON, both ways, from the types of `status.py` alone.

Coders are made once for each type. Large lists are written in slices, so that the event loop
serves tunnels in between.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import types
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from konnectivity.observe.status import API_VERSION, AgentStatus, Event, ServerStatus, Status, Time

T = TypeVar("T")

Encode = Callable[[Any], Any]
Decode = Callable[[Any, str], Any]

SLICE: Final = 100
"""Items coded in one go: about a millisecond."""


# Out


def to_json(value: Status | Event) -> bytes:
    """The whole document at once; see `render` for large ones."""
    return _dump(_encoder(cast(Any, type(value)))(value))


def to_plain(value: object) -> Any:
    """Any dataclass of such fields as dicts, lists and texts, as `json.dumps` takes them."""
    return _encoder(cast(Any, type(value)))(value)


async def render(status: Status) -> AsyncIterator[bytes]:
    """The document of `to_json`, bit by bit."""
    opening = b"{"
    for name, title, _, encode in _fields(cast(Any, type(status))):
        value = getattr(status, name)
        yield opening + _dump(title) + b":"
        opening = b","
        if not isinstance(value, tuple):
            yield _dump(encode(value))
            continue
        separator = b"["
        for start in range(0, len(value), SLICE):
            yield separator + _dump(encode(value[start : start + SLICE]))[1:-1]
            separator = b","
            await asyncio.sleep(0)
        yield b"]" if value else b"[]"
    yield b"}"


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def rfc3339(moment: float) -> str:
    """Unix seconds as `2026-11-22T05:36:16.218Z`."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


@cache
def _encoder(hint: Any) -> Encode:
    inner = _optional(hint)
    if inner is not None:
        encode = _encoder(inner)
        return lambda value: None if value is None else encode(value)
    if hint is Time:
        return rfc3339
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        fields = _fields(cast(Any, hint))
        return lambda value: {
            title: encode(getattr(value, name)) for name, title, _, encode in fields
        }
    if get_origin(hint) is tuple:
        encode = _encoder(get_args(hint)[0])
        return lambda value: [encode(each) for each in value]
    return dict if get_origin(hint) is Mapping else _as_is


def _as_is(value: Any) -> Any:
    return value


# In


def from_json(body: bytes | str) -> Status:
    """A status document.

    Raises:
        ValueError: no JSON, another version or kind, or a field that is missing or of a wrong
            type: the text names it.
    """
    plain = _mapping(json.loads(body), "the document")
    if plain.get("apiVersion") != API_VERSION:
        raise ValueError(f"apiVersion is {plain.get('apiVersion')!r}, {API_VERSION!r} is read here")
    kinds = {"ServerStatus": ServerStatus, "AgentStatus": AgentStatus}
    kind = kinds.get(str(plain.get("kind")))
    if kind is None:
        raise ValueError(f"kind is {plain.get('kind')!r}, one of {', '.join(kinds)} is read here")
    found: Status = _decoder(kind)(plain, "")
    return found


def event_from_json(body: bytes | str) -> Event:
    """The data of one event.

    Raises:
        ValueError: as `from_json`.
    """
    found: Event = _decoder(Event)(json.loads(body), "")
    return found


def from_plain(kind: type[T], plain: object) -> T:
    """The other way round: a dataclass from what `json.loads` gave.

    Raises:
        ValueError: a field is missing or of a wrong type: the text names it.
    """
    found: T = _decoder(cast(Any, kind))(plain, "")
    return found


@cache
def _decoder(hint: Any) -> Decode:
    inner = _optional(hint)
    if inner is not None:
        decode = _decoder(inner)
        return lambda value, where: None if value is None else decode(value, where)
    if hint is Time:
        return _time
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return lambda value, where: _record(hint, value, where)
    if get_origin(hint) is tuple:
        decode = _decoder(get_args(hint)[0])
        return lambda value, where: tuple(
            decode(each, f"{where}[{at}]") for at, each in enumerate(_listed(value, where))
        )
    if get_origin(hint) is Mapping:
        decode = _decoder(get_args(hint)[1])
        return lambda value, where: {
            key: decode(each, f"{where}.{key}") for key, each in _mapping(value, where).items()
        }
    if get_origin(hint) is Literal:
        return lambda value, where: _one_of(get_args(hint), value, where)
    if get_origin(hint) in (Union, types.UnionType):
        return lambda value, where: _plain(get_args(hint), value, where)
    return lambda value, where: _plain((hint,), value, where)


def _record(kind: type, value: Any, where: str) -> Any:
    plain = _mapping(value, where or "the document")
    found = {}
    for name, title, hint, _ in _fields(kind):
        if title in plain:
            found[name] = _decoder(hint)(plain[title], f"{where}.{title}".lstrip("."))
        elif name not in _optional_fields(cast(Any, kind)):
            raise ValueError(f"{where}.{title}".lstrip(".") + " is missing")
    return kind(**found)


def _plain(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if float in kinds and type(value) is int and int not in kinds:
        return float(value)
    if type(value) not in kinds:
        names = " or ".join(each.__name__ for each in kinds)
        raise ValueError(f"{where} is {value!r}, {names} is wanted")
    return value


def _one_of(known: tuple[Any, ...], value: Any, where: str) -> Any:
    if value not in known:
        raise ValueError(f"{where} is {value!r}, one of {', '.join(known)} is wanted")
    return value


def _time(value: Any, where: str) -> Time:
    try:
        return Time(datetime.fromisoformat(value).timestamp())
    except (TypeError, ValueError):
        raise ValueError(f"{where} is {value!r}, a time of RFC 3339 is wanted") from None


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is no object")  # noqa: TRY004 - of the document, not of ours
    return value


def _listed(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{where} is no list")  # noqa: TRY004 - of the document, not of ours
    return value


# Types


@cache
def _fields(kind: Any) -> tuple[tuple[str, str, Any, Encode], ...]:
    """Name, name in JSON, type and encoder of each field."""
    hints = get_type_hints(kind)
    return tuple(
        (each.name, camel_case(each.name), hints[each.name], _encoder(hints[each.name]))
        for each in dataclasses.fields(kind)
    )


@cache
def _optional_fields(kind: Any) -> frozenset[str]:
    fields = dataclasses.fields(kind)
    none = dataclasses.MISSING
    return frozenset(
        each.name for each in fields if each.default is not none or each.default_factory is not none
    )


def camel_case(name: str) -> str:
    """`not_after` as `notAfter`."""
    first, *others = name.split("_")
    return first + "".join(each.capitalize() for each in others)


def _optional(hint: Any) -> Any:
    """The X of `X | None`, else None."""
    if get_origin(hint) not in (Union, types.UnionType) or type(None) not in get_args(hint):
        return None
    left = [each for each in get_args(hint) if each is not type(None)]
    return left[0] if len(left) == 1 else None
