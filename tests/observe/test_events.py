"""The ring of events, and those who follow it as server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from tests.peers.admin import Client, connected, get, serving

from konnectivity.observe.events import LONGEST_TEXT, Events
from konnectivity.observe.status_json import event_from_json

pytestmark = pytest.mark.both_loops


def serve(events: Events, **limits: Any) -> Any:
    return serving({"/events": events.follow}, **limits)


async def follow(client: Client, *headers: str, query: str = "") -> None:
    """Begin to follow; the first line of the stream is here when this returns."""
    await client.ask(f"/events{query}", *headers)
    head = await client.until("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert "Content-Type: text/event-stream; charset=utf-8\r\n" in head
    await client.until("retry: 2000\n\n")


async def next_event(client: Client) -> tuple[str, str, dict[str, Any]]:
    """Id, kind and data."""
    text = await client.until("\n\n")
    fields = dict(line.split(": ", 1) for line in text.split("\n") if ": " in line)
    return fields["id"], fields["event"], json.loads(fields["data"])


def kinds(events: Events, after: int = 0) -> list[str]:
    return [event.kind for event in events.after(after)]


# The ring


async def test_an_event_has_an_id_a_time_and_facts() -> None:
    events = Events()
    events.publish("agent_connected", agent="a", tunnels=3)
    (event,) = events.after(0)
    assert event.id == events.last_id
    assert (event.kind, event.facts) == ("agent_connected", {"agent": "a", "tunnels": 3})
    assert abs(event.time - time.time()) < 5


async def test_the_oldest_events_are_forgotten() -> None:
    events = Events(kept=3)
    for number in range(10):
        events.publish(str(number))
    assert kinds(events) == ["7", "8", "9"]
    assert kinds(events, after=8) == ["8", "9"]
    assert kinds(events, after=10) == []


async def test_the_place_behind_an_id_is_found() -> None:
    events = Events(kept=3)
    ids = []
    for number in range(5):
        events.publish(str(number))
        ids.append(events.last_id)
    assert [events.place(event_id) for event_id in ids] == [2, 2, 3, 4, 5]
    epoch = ids[0].partition("-")[0]
    assert events.place(f"{epoch}-99") == 5
    for unknown in ("", "x", "0-3", f"{epoch}-", f"{epoch}-x", f"{epoch}-{'9' * 30}"):
        assert events.place(unknown) == 2  # all that is left


async def test_long_texts_are_cut() -> None:
    events = Events()
    events.publish("dial_failed", error="x" * 10_000)
    assert len(str(events.after(0)[0].facts["error"])) == LONGEST_TEXT


# Readers


async def test_readers_hear_of_what_happens_from_now_on() -> None:
    events = Events(clock=lambda: 1_800_000_000.25)
    events.publish("before")
    async with serve(events) as port, connected(port) as one, connected(port) as other:
        await follow(one)
        await follow(other)
        events.publish("now", agent='a"\n: b')
        for client in (one, other):
            event_id, kind, data = await next_event(client)
            assert (event_id, kind) == (events.last_id, "now")
            assert data["facts"] == {"agent": 'a"\n: b'}
            assert event_from_json(json.dumps(data)) == events.after(1)[0]


@pytest.mark.parametrize("by_query", [True, False])
async def test_a_reader_goes_on_behind_the_last_event_it_saw(by_query: bool) -> None:
    events = Events()
    async with serve(events) as port:
        events.publish("seen")
        last = events.last_id
        events.publish("missed")
        async with connected(port) as client:
            if by_query:
                await follow(client, query=f"?after={last}")
            else:
                await follow(client, f"Last-Event-ID: {last}")
            assert (await next_event(client))[1] == "missed"
            events.publish("new")
            assert (await next_event(client))[1] == "new"


async def test_an_id_of_an_earlier_process_gets_all_that_is_kept() -> None:
    events = Events()
    events.publish("one")
    events.publish("two")
    async with serve(events) as port, connected(port) as client:
        await follow(client, "Last-Event-ID: 17a-2")
        assert [(await next_event(client))[1] for _ in range(2)] == ["one", "two"]


async def test_silence_is_filled_with_comments() -> None:
    events = Events(heartbeat=0.05)
    async with serve(events) as port, connected(port) as client:
        await follow(client)
        for _ in range(3):
            assert ": still here\n\n" in await client.until("\n\n")
        events.publish("late")
        assert "event: late" in await client.until("late\n")


async def test_one_reader_too_many_is_told_to_come_later() -> None:
    events = Events(readers=2)
    async with serve(events) as port, connected(port) as one, connected(port) as two:
        await follow(one)
        await follow(two)
        status, headers, body = await get(port, "/events")
        assert (status, headers["retry-after"]) == (503, "10")
        assert body == "2 readers follow already\n"
        one.writer.transport.abort()
        async with asyncio.timeout(5):
            while events.readers == 2:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.01)
        async with connected(port) as three:
            await follow(three)


async def test_a_request_for_the_head_alone_takes_no_reader_s_place() -> None:
    events = Events(readers=1)
    async with serve(events) as port:
        for _ in range(3):
            async with connected(port) as client:
                await client.ask("/events", method="HEAD")
                assert "200 OK" in await client.until("\r\n\r\n")
        assert events.readers == 0


async def test_a_reader_that_the_ring_has_passed_is_cut() -> None:
    events = Events(kept=5)
    async with serve(events) as port, connected(port) as client:
        await follow(client)
        for number in range(6):
            events.publish(str(number))
        assert await client.until("0\r\n\r\n") == "\r\n0\r\n\r\n"
        assert events.readers == 0


async def test_a_reader_that_does_not_read_is_cut_and_nobody_waits_for_it() -> None:
    events = Events()
    async with (
        serve(events, write_timeout=0.2) as port,
        connected(port, limit=1024) as slow,
        connected(port) as quick,
    ):
        await follow(slow)
        await follow(quick)
        for number in range(20_000):
            events.publish("flood", number=number, text="x" * LONGEST_TEXT)
            if number % 500 == 499:
                while (await next_event(quick))[2]["facts"]["number"] != number:
                    pass
        async with asyncio.timeout(5):
            while events.readers > 1:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.01)
        events.publish("end")
        assert (await next_event(quick))[1] == "end"


def test_publishing_costs_next_to_nothing() -> None:
    events = Events()
    began = time.perf_counter()
    for _ in range(10_000):
        events.publish("dial_failed", agent="a", reason="timeout", error="text")
    assert time.perf_counter() - began < 0.5  # seconds: 50 us each, for slow machines
