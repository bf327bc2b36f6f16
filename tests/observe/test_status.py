"""The status in JSON: nothing is lost on the way, and what is wrong with a document is named."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import time
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from konnectivity.observe import status, status_json
from konnectivity.observe.status import (
    AgentStatus,
    Event,
    Peer,
    ServerStatus,
    Time,
    Tunnel,
    TunnelCounts,
)
from konnectivity.observe.status_json import (
    event_from_json,
    from_json,
    render,
    rfc3339,
    to_json,
)

NOW = Time(1_795_344_173.25)
REFERENCE = Path(__file__).parents[2] / "docs/reference/admin-api.md"


def made(hint: Any, *, bare: bool = False) -> Any:
    """A value of a type, with something in each list and mapping; `bare`: as little as may be."""
    options = get_args(hint)
    if hint is Time:
        return NOW
    if dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        names = [f.name for f in dataclasses.fields(hint) if f.name not in ("api_version", "kind")]
        if hint is Event:
            names.append("kind")
        return hint(**{name: made(hints[name], bare=bare) for name in names})
    if get_origin(hint) in (types.UnionType, Union):
        return None if bare and type(None) in options else made(options[0], bare=bare)
    if get_origin(hint) is Literal:
        return options[-1]
    if get_origin(hint) is tuple:
        return () if bare else (made(options[0]), made(options[0]))
    if get_origin(hint) is Mapping:
        return {} if bare else {"key": made(options[1])}
    return {str: "" if bare else 'tëxt "\n\x1b', int: 3, float: 0.25, bool: not bare}[hint]


DOCUMENTS = [
    made(kind, bare=bare) for kind in (ServerStatus, AgentStatus) for bare in (True, False)
]


def records(kind: Any = None) -> Iterator[type]:
    """All dataclasses of the status."""
    for each in vars(status).values():
        if dataclasses.is_dataclass(each) and isinstance(each, type):
            yield each


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_survives_the_way_there_and_back(document: Any) -> None:
    assert from_json(to_json(document)) == document


def test_an_event_survives_likewise() -> None:
    event = Event("1-2", "agent_connected", NOW, {"a": "x", "b": 1, "c": 0.5, "d": True, "e": None})
    assert event_from_json(to_json(event)) == event


@pytest.mark.parametrize("document", DOCUMENTS)
async def test_slices_make_the_same_document(document: Any) -> None:
    assert b"".join([part async for part in render(document)]) == to_json(document)


def test_times_are_rfc_3339_in_utc() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(1_795_344_173.2504) == "2026-11-22T10:42:53.250Z"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_field_is_there_under_its_name_in_camel_case(document: Any) -> None:
    def compare(value: Any, plain: Any) -> None:
        if dataclasses.is_dataclass(value):
            names = [field.name for field in dataclasses.fields(value)]
            titles = [re.sub(r"_(\w)", lambda m: m[1].upper(), name) for name in names]
            assert list(plain) == titles
            for name, title in zip(names, titles, strict=True):
                compare(getattr(value, name), plain[title])
        elif isinstance(value, tuple):
            assert len(value) == len(plain)
            for one, other in zip(value, plain, strict=True):
                compare(one, other)

    plain = json.loads(to_json(document))
    compare(document, plain)
    assert (plain["apiVersion"], plain["kind"]) == ("v1", type(document).__name__)


def test_fields_that_a_reader_does_not_know_are_ignored() -> None:
    plain = json.loads(to_json(DOCUMENTS[1]))
    plain["new"] = plain["agents"][0]["new"] = {"x": 1}
    assert from_json(json.dumps(plain)) == DOCUMENTS[1]


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (["apiVersion"], "v2", "apiVersion is 'v2', 'v1' is read here"),
        (["kind"], "Pod", "kind is 'Pod', one of ServerStatus, AgentStatus is read here"),
        (["agents"], None, "agents is no list"),
        (["agents", 1], [], "agents[1] is no object"),
        (["agents", 1, "roundTrip"], "fast", "agents[1].roundTrip is 'fast', float is wanted"),
        (["agents", 0, "draining"], 1, "agents[0].draining is 1, bool is wanted"),
        (["agents", 0, "dials"], True, "agents[0].dials is True, int is wanted"),
        (["agents", 0, "identifiers"], [], "agents[0].identifiers is no object"),
        (["agents", 0, "identifiers", "key"], "x", "agents[0].identifiers.key is no list"),
        (["server", "state"], "gone", "server.state is 'gone', one of running, draining, stopping"),
        (["generatedAt"], "now", "generatedAt is 'now', a time of RFC 3339 is wanted"),
        (["generatedAt"], 5, "generatedAt is 5, a time of RFC 3339 is wanted"),
        (["dials", "failed", "key"], 0.5, "dials.failed.key is 0.5, int is wanted"),
    ],
)
def test_what_is_wrong_with_a_document_is_named(
    path: list[Any], value: Any, complaint: str
) -> None:
    plain = json.loads(to_json(DOCUMENTS[1]))
    target = plain
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    with pytest.raises(ValueError, match=re.escape(complaint)):
        from_json(json.dumps(plain))


@pytest.mark.parametrize("path", [["tunnels"], ["agents", 0, "id"], ["dials", "pending"]])
def test_a_missing_field_is_named(path: list[Any]) -> None:
    plain = json.loads(to_json(DOCUMENTS[1]))
    target = plain
    for step in path[:-1]:
        target = target[step]
    del target[path[-1]]
    where = ".".join(map(str, path)).replace(".0", "[0]")
    with pytest.raises(ValueError, match=rf"^{re.escape(where)} is missing$"):
        from_json(json.dumps(plain))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null"])
def test_what_is_no_document_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - JSON's own words
        from_json(text)


def test_a_whole_number_will_do_for_a_duration() -> None:
    plain = json.loads(to_json(DOCUMENTS[1]))
    plain["agents"][0]["roundTrip"] = 1
    found = from_json(json.dumps(plain))
    assert isinstance(found, ServerStatus)
    assert found.agents[0].round_trip == 1.0


@pytest.mark.parametrize("record", list(records()), ids=lambda each: each.__name__)
def test_the_reference_names_each_field(record: type) -> None:
    text = REFERENCE.read_text()
    for field in dataclasses.fields(record):
        assert f"`{status_json.camel_case(field.name)}`" in text


# Cost


def large() -> ServerStatus:
    peer: Peer = made(Peer)
    tunnel: Tunnel = made(Tunnel)
    return dataclasses.replace(
        made(ServerStatus),
        agents=tuple(dataclasses.replace(peer, id=f"agent-{n}") for n in range(1000)),
        tunnels=tuple(dataclasses.replace(tunnel, id=n) for n in range(1000)),
        tunnel_counts=TunnelCounts(1, 2, 3),
    )


async def test_a_large_document_never_holds_the_loop_for_long() -> None:
    document = large()
    to_json(document)  # makes the coders
    waits: list[float] = []

    async def watch() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0)
            waits.append(time.perf_counter() - began)

    watching = asyncio.create_task(watch())
    used = time.process_time()
    body = b"".join([part async for part in render(document)])
    used = time.process_time() - used
    watching.cancel()
    assert len(body) > 500_000
    assert len(waits) >= 15
    # 16 ms in all and 1 ms at once where this was written; other machines may be busy.
    assert used < 0.2
    assert sorted(waits)[len(waits) // 2] < 0.02
