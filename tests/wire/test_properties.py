"""Properties of a connection: any split, any bytes, any sequence of calls."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from tests.wire.peer import REQUEST, RESPONSE, TRAILERS, Peer, cut, frozen, merged, padded

from konnectivity.errors import ConnectionFault, StreamFault
from konnectivity.wire import frames
from konnectivity.wire.events import (
    ConnectionEnded,
    DataReceived,
    Event,
    HeadersReceived,
    StreamEnded,
    StreamReset,
)
from konnectivity.wire.http2 import Connection
from konnectivity.wire.limits import Http2Limits
from konnectivity.wire.sending import FULL

# Any split

Step = Callable[[Connection, int], None]
STEPS: dict[str, Step] = {
    "open": lambda client, _: void(client.open_stream(REQUEST)),
    "small": lambda client, i: void(client.send_data(i, b"keystroke")),
    "large": lambda client, i: void(client.send_data(i, bytes(range(256)) * 70)),
    "end": lambda client, i: client.end_stream(i),
    "trailers": lambda client, i: client.end_stream(i, TRAILERS),
    "reset": lambda client, i: client.reset_stream(i, frames.CANCEL),
    "ping": lambda client, _: client.ping(b"12345678"),
    "goaway": lambda client, _: client.go_away(frames.NO_ERROR),
    "padded": lambda client, i: client.queue(padded(frames.PRIORITY, 0, i, b"\0\0\0", 0)),
    "bad": lambda client, _: client.queue(frames.frame(frames.PING, 0, 0, b"short")),
}


def void(_: object) -> None:
    """Forget a result."""


def spoken(steps: list[tuple[str, int]]) -> bytes:
    """What a client says that takes these steps, as far as its state allows them."""
    client = Connection(client=True)
    client.send_window = client.peer_initial_window = 1 << 20
    said = client.data_to_send()
    for name, number in steps:
        try:
            STEPS[name](client, 2 * number + 1)
        except (StreamFault, ConnectionFault):
            continue
        said += client.data_to_send()
    return said


@given(
    st.lists(st.tuples(st.sampled_from(list(STEPS)), st.integers(0, 3)), max_size=25),
    st.lists(st.integers(0, 100_000), max_size=8),
    st.integers(1, 40),
)
@settings(max_examples=120)
def test_any_split_of_the_bytes_gives_the_same_events(
    steps: list[tuple[str, int]], cuts: list[int], stride: int
) -> None:
    said = spoken([("open", 0), ("open", 0), *steps])
    whole = Connection(client=False)
    expected = merged(whole.receive_data(said, 1.0))
    points = sorted({0, len(said), *(point % len(said) for point in cuts)})
    # Dense cuts where headers are, sparse ones where only content is.
    points = sorted({*points, *range(0, min(len(said), 2000), stride)})
    split = Connection(client=False)

    events: list[Event] = []
    for start, stop in pairwise(points):
        events += frozen(split.receive_data(said[start:stop], 1.0))

    assert merged(events) == expected
    assert split.data_to_send() == whole.data_to_send()


# Any bytes


@st.composite
def some_frame(draw: st.DrawFn) -> bytes:
    kind = draw(st.integers(0, 11))
    flags = draw(st.sampled_from([0, 1, 4, 5, 8, 9, 0x0D, 0x20, 0x25, 0x2D, 0xFF]))
    payload = draw(
        st.one_of(
            st.binary(max_size=12),
            st.integers(0, 2**32 - 1).map(lambda number: number.to_bytes(4, "big")),
            st.sampled_from([b"\x82\x84\x86", b"\x83\x86\x44\x01/", b"\x88", bytes(300)]),
        )
    )
    return frames.frame(kind, flags, draw(st.integers(0, 6)), payload)


ANYTHING = st.lists(st.one_of(some_frame(), st.binary(max_size=20)), max_size=12)


@pytest.mark.parametrize("client", [True, False])
@given(noise=ANYTHING, headless=st.booleans())
@settings(max_examples=400)
def test_no_bytes_raise(client: bool, noise: list[bytes], headless: bool) -> None:
    if headless:
        peer = Peer(client=client).opened(3)
        connection = peer.connection
    else:
        connection = Connection(client=client)
    events: list[Event] = []
    for data in noise:
        events += connection.receive_data(data, 5.0)
        for event in events:
            if isinstance(event, DataReceived):
                connection.consume(event.stream_id, event.size)
        connection.data_to_send()

    ends = [event for event in events if isinstance(event, ConnectionEnded)]
    assert len(ends) == connection.closed
    assert ends == events[-1:] or not ends
    assert all(event.message.isprintable() for event in ends)


# Any sequence of calls


class Ledger:
    """Credit of one direction, kept from the bytes on the wire alone."""

    def __init__(self) -> None:
        self.connection = 65_535
        self.initial = 65_535
        self.streams: dict[int, int] = {}
        self._rest = b""

    def _frames(self, data: bytes) -> bytes:
        self._rest += data
        self._rest = self._rest.removeprefix(frames.PREFACE)
        whole = 0
        while len(self._rest) - whole >= 9:
            size = 9 + int.from_bytes(self._rest[whole : whole + 3], "big")
            if whole + size > len(self._rest):
                break
            whole += size
        found, self._rest = self._rest[:whole], self._rest[whole:]
        return found


class Sent(Ledger):
    """Watches what a sender says and what it hears; it may never spend more than it was given."""

    def said(self, data: bytes) -> None:
        for frame in cut(data):
            if frame.kind == frames.DATA:
                size = len(frame.payload)
                left = self.streams.get(frame.stream_id, self.initial) - size
                self.streams[frame.stream_id] = left
                self.connection -= size
                assert left >= 0, f"stream {frame.stream_id} overdrew its window"
                assert self.connection >= 0, "the connection's window was overdrawn"

    def heard(self, data: bytes) -> None:
        for frame in cut(self._frames(data)):
            if frame.kind == frames.SETTINGS and not frame.flags:
                window = dict(frames.SETTING.iter_unpack(frame.payload))[4]
                for stream_id in self.streams:
                    self.streams[stream_id] += window - self.initial
                self.initial = window
            elif frame.kind == frames.WINDOW_UPDATE and frame.stream_id:
                before = self.streams.get(frame.stream_id, self.initial)
                self.streams[frame.stream_id] = before + frame.number
            elif frame.kind == frames.WINDOW_UPDATE:
                self.connection += frame.number


class End:
    """One side: its connection, what it meant to say, what it heard."""

    def __init__(self, *, client: bool, limits: Http2Limits) -> None:
        self.connection = Connection(client=client, limits=limits)
        self.wire = b""
        self.ledger = Sent()
        self.sent: dict[int, bytes] = {}
        self.received: dict[int, bytes] = {}
        self.heads: dict[int, int] = {}
        self.ended: set[int] = set()
        self.finished: set[int] = set()
        self.reset: set[int] = set()
        self.answered: set[int] = set()
        """Streams whose answer is whole: what is left of the request is not wanted (8.1)."""
        self.owed: list[tuple[int, int]] = []

    def speak(self, limit: int) -> None:
        data = self.connection.data_to_send(limit)
        self.ledger.said(data)
        self.wire += data

    def hear(self, data: bytes) -> None:
        self.ledger.heard(data)
        for event in self.connection.receive_data(data, 1.0):
            match event:
                case DataReceived():
                    before = self.received.get(event.stream_id, b"")
                    self.received[event.stream_id] = before + bytes(event.data)
                    self.owed.append((event.stream_id, event.size))
                case HeadersReceived():
                    self.heads[event.stream_id] = self.heads.get(event.stream_id, 0) + 1
                case StreamEnded():
                    self.ended.add(event.stream_id)
                case StreamReset():
                    assert event.by_peer, event
                    self.reset.add(event.stream_id)
                case ConnectionEnded():
                    raise AssertionError(event)


SIDES = st.sampled_from(["client", "server"])
NUMBERS = st.integers(0, 5)


class TwoEnds(RuleBasedStateMachine):
    """Two connections of ours talk over a wire that delivers in pieces of any size."""

    @initialize(
        window=st.sampled_from([1, 50, 3000, 100_000]), burst=st.sampled_from([65_535, 1 << 20])
    )
    def start(self, window: int, burst: int) -> None:
        limits = Http2Limits(
            stream_window=window, connection_window=burst, resets_burst=1 << 20, empty_burst=1 << 20
        )
        self.most = 20 * window
        self.client = End(client=True, limits=limits)
        self.server = End(client=False, limits=limits)

    def side(self, name: str) -> tuple[End, End]:
        ends = (self.client, self.server)
        return ends if name == "client" else ends[::-1]

    @rule()
    def open(self) -> None:
        self.client.connection.open_stream(REQUEST)

    @rule(
        name=SIDES,
        number=NUMBERS,
        size=st.sampled_from([1, 7, 300, 20_000, FULL]),
        chunk=st.booleans(),
    )
    def send(self, name: str, number: int, size: int, chunk: bool) -> None:
        end, _ = self.side(name)
        stream_id = 2 * number + 1
        if name == "server" and stream_id not in end.sent:
            return  # it has not answered
        data = bytes([stream_id]) + bytes(min(size, self.most) - 1)
        try:
            if chunk:
                end.connection.send_chunk(stream_id, memoryview(data))
            else:
                end.connection.send_data(stream_id, data)
        except StreamFault:
            return
        end.sent[stream_id] = end.sent.get(stream_id, b"") + data

    @rule(number=NUMBERS)
    def answer(self, number: int) -> None:
        stream_id = 2 * number + 1
        if self.server.heads.get(stream_id) == 1 and stream_id not in self.server.sent:
            try:
                self.server.connection.send_headers(stream_id, RESPONSE)
            except StreamFault:
                return
            self.server.sent.setdefault(stream_id, b"")

    @rule(name=SIDES, number=NUMBERS, trailers=st.sampled_from([None, TRAILERS]))
    def end(self, name: str, number: int, trailers: list[tuple[str, str]] | None) -> None:
        end, _ = self.side(name)
        stream_id = 2 * number + 1
        if name == "server" and stream_id not in end.sent:
            return
        try:
            end.connection.end_stream(stream_id, trailers)
        except StreamFault:
            return
        end.finished.add(stream_id)
        if name == "server" and trailers is not None and stream_id not in end.ended:
            end.answered.add(stream_id)

    @rule(name=SIDES, number=st.integers(0, 1))
    def reset(self, name: str, number: int) -> None:
        end, _ = self.side(name)
        end.reset.add(2 * number + 1)
        end.connection.reset_stream(2 * number + 1, frames.CANCEL)

    @rule(name=SIDES, limit=st.sampled_from([0, 1, 100_000, 1 << 30]))
    def speak(self, name: str, limit: int) -> None:
        self.side(name)[0].speak(limit)

    @rule(name=SIDES, size=st.sampled_from([1, 10, 50, 5000, 1 << 30]))
    def deliver(self, name: str, size: int) -> None:
        end, other = self.side(name)
        data, other.wire = other.wire[:size], other.wire[size:]
        end.hear(data)

    @rule(name=SIDES)
    def consume(self, name: str) -> None:
        end, _ = self.side(name)
        for stream_id, size in end.owed:
            end.connection.consume(stream_id, size)
        end.owed.clear()

    @precondition(lambda self: len(self.client.owed) > 1)
    @rule()
    def consume_one(self) -> None:
        self.client.connection.consume(*self.client.owed.pop(0))

    @invariant()
    def windows_agree(self) -> None:
        for end in (self.client, self.server):
            framed = end.connection._framed  # counted already, and not yet said
            assert end.connection.send_window == end.ledger.connection - framed
            for stream_id, stream in end.connection.streams.items():
                said = end.ledger.streams.get(stream_id, end.ledger.initial)
                assert said - framed <= stream.send_window <= said
                assert stream.backlog == sum(map(len, stream._pending or ()))
            queued = len(end.connection._ready) + len(end.connection._urgent)
            assert queued <= len(end.connection.streams)

    @invariant()
    def what_arrived_is_what_was_sent(self) -> None:
        for end, other in (self.side("client"), self.side("server")):
            for stream_id, data in end.received.items():
                assert other.sent[stream_id].startswith(data)

    def teardown(self) -> None:
        for _ in range(100_000):
            for name in ("client", "server"):
                self.consume(name)
                self.speak(name, 1 << 30)
            if not self.client.wire and not self.server.wire:
                break
            self.deliver("server", 1 << 30)
            self.deliver("client", 1 << 30)
        else:
            raise AssertionError("the two never come to rest")
        for end, other in (self.side("client"), self.side("server")):
            broken = end.reset | other.reset | end.answered
            for stream_id in other.sent.keys() - broken:
                assert end.received.get(stream_id, b"") == other.sent[stream_id]
            assert other.finished - broken <= end.ended
            assert end.connection.take_writable() is not None


TwoEnds.TestCase.settings = settings(
    max_examples=60, stateful_step_count=60, report_multiple_bugs=False
)
TestTwoEnds = TwoEnds.TestCase
