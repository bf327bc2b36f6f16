"""What happened lately, kept in a ring and told to those who follow it (server-sent events).

    events.publish("agent_connected", agent="a1", address="10.0.0.7:40112")

Publishing costs a microsecond and never waits. A reader has no queue of its own, only a place in
the ring; one that is so slow that the ring has passed its place is cut, and comes back with the
id of the last event it saw.

Source: WHATWG HTML, 9.2 "Server-sent events".
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final, Self
from weakref import WeakSet

from konnectivity.observe.route import Answer, Request, Response, Stream
from konnectivity.observe.status import Event, Time
from konnectivity.observe.status_json import to_json

KEPT: Final = 1000
READERS: Final = 16
HEARTBEAT: Final = 15.0
"""Seconds of silence after which a reader gets a comment: proxies close what looks dead."""
RETRY: Final = 2000
"""Milliseconds (the format's unit) after which a reader that was cut is to come back."""
LONGEST_TEXT: Final = 512
"""Characters of a fact: peers choose some of them."""
EVENT_STREAM: Final = "text/event-stream"

Fact = str | int | float | bool | None


class Events:
    """The last `KEPT` events of one process.

    Ids are `<start of the process>-<number>`, so that those of an earlier process are known as
    such. `clock` gives Unix seconds.
    """

    def __init__(
        self,
        *,
        kept: int = KEPT,
        readers: int = READERS,
        heartbeat: float = HEARTBEAT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.heartbeat = heartbeat
        self._ring: deque[tuple[str, float, dict[str, Fact]]] = deque(maxlen=kept)
        self._count = 0
        self._clock = clock
        self._epoch = f"{int(clock() * 1000):x}"
        self._most_readers = readers
        # Weak, because a reader that nobody asked for its first chunk is never told of its end.
        self._readers: WeakSet[Reader] = WeakSet()

    def publish(self, kind: str, **facts: Fact) -> None:
        """Tell of something that happened now."""
        self._count += 1
        self._ring.append((kind, self._clock(), facts))
        if self._readers:
            for reader in self._readers:
                reader.news.set()

    @property
    def last_id(self) -> str:
        """The id of the newest event."""
        return self._id(self._count)

    @property
    def readers(self) -> int:
        """How many follow."""
        return len(self._readers)

    @property
    def most_readers(self) -> int:
        """How many may."""
        return self._most_readers

    def _id(self, number: int) -> str:
        return f"{self._epoch}-{number}"

    @property
    def first(self) -> int:
        """Number of the oldest event that is kept."""
        return self._count - len(self._ring) + 1

    def place(self, event_id: str) -> int:
        """The number behind which to go on after `event_id`; for an unknown one all is told."""
        epoch, _, number = event_id.partition("-")
        if epoch != self._epoch or not (number.isascii() and number.isdigit() and len(number) < 20):
            return self.first - 1
        return min(max(int(number), self.first - 1), self._count)

    def after(self, number: int) -> list[Event]:
        """The events behind `number` that are kept, oldest first."""
        first = max(self.first, number + 1)
        kept = islice(self._ring, first - self.first, None)
        return [
            Event(self._id(at), kind, Time(moment), _bounded(facts))
            for at, (kind, moment, facts) in enumerate(kept, start=first)
        ]

    async def follow(self, request: Request) -> Answer:
        """The route: a stream of events from now on, or from behind `Last-Event-ID`.

        `?after=<id>` does the same for clients that cannot set headers.
        """
        if len(self._readers) >= self._most_readers:
            text = f"{self._most_readers} readers follow already\n"
            return Response(text.encode(), status=503, headers=(("Retry-After", "10"),))
        after = request.headers.get("last-event-id") or request.value("after")
        reader = Reader(self, self.place(after) if after else self._count)
        self._readers.add(reader)
        return Stream(reader, f"{EVENT_STREAM}; charset=utf-8")

    def leave(self, reader: Reader) -> None:
        """A reader is gone."""
        self._readers.discard(reader)


class Reader:
    """One who follows: an iterator over the bytes of its stream."""

    def __init__(self, events: Events, place: int) -> None:
        self.news = asyncio.Event()
        self._events = events
        self._place = place
        self._begun = False
        self._gone = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next events, or a sign of life."""
        if self._gone:
            raise StopAsyncIteration
        if not self._begun:
            self._begun = True
            return f"retry: {RETRY}\n\n".encode()
        self.news.clear()
        news = self._news()
        if not news:
            try:
                async with asyncio.timeout(self._events.heartbeat):
                    await self.news.wait()
            except TimeoutError:
                return b": still here\n\n"
            news = self._news()
        return news

    def _news(self) -> bytes:
        """What is new; ends the stream when some of it is lost already."""
        if self._place < self._events.first - 1:
            raise StopAsyncIteration
        found = self._events.after(self._place)
        self._place += len(found)
        return b"".join(_encode(event) for event in found)

    async def aclose(self) -> None:
        """End it."""
        self._gone = True
        self._events.leave(self)


def _encode(event: Event) -> bytes:
    """One event; JSON has no raw line ends that could break the format."""
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (
        event.id.encode(),
        event.kind.encode(),
        to_json(event),
    )


def _bounded(facts: dict[str, Fact]) -> dict[str, Fact]:
    return {
        key: value[:LONGEST_TEXT] if isinstance(value, str) else value
        for key, value in facts.items()
    }
