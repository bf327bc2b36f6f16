"""What a hostile peer may cost us: each known attack ends early, each heavy user goes on.

An attack is written as the frames that it repeats. It must end in GOAWAY with the right code after
no more than the limit and a little, with the memory of the connection bounded on the way.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, ValuesView
from itertools import count

import pytest
from tests.wire.peer import (
    REQUEST,
    RESPONSE,
    TRAILERS,
    Peer,
    cut,
    data_frame,
    ended,
    headers_frame,
    padded,
)

from konnectivity.wire import frames
from konnectivity.wire.blocks import GRPC_RESPONSE
from konnectivity.wire.events import ConnectionEnded, DataReceived, Event
from konnectivity.wire.http2 import Connection
from konnectivity.wire.limits import Http2Limits
from konnectivity.wire.stream import Stream

LIMITS = Http2Limits()
CALM = frames.ENHANCE_YOUR_CALM
MEMORY = 4 << 20
"""Bytes that one attacked connection may hold, everything included."""


def attack(
    peer: Peer, turns: Iterator[bytes], *, at_most: int, listening: bool = True
) -> ConnectionEnded:
    """Let `peer` attack until it is thrown off; how, after `at_most` turns and in little memory."""
    tracemalloc.start()
    try:
        for number, raw in enumerate(turns, 1):
            events = peer.say(raw)
            if peer.connection.closed:
                break
            assert number <= at_most, "the attack goes on for ever"
            if listening:
                peer.connection.data_to_send()
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    goaway = peer.hear()[-1]
    assert (goaway.kind, goaway.number) == (frames.GOAWAY, ended(events).code)
    return ended(events)


# Streams that are opened to be thrown away


def test_cve_2023_44487_rapid_reset_ends_the_connection() -> None:
    peer = Peer()
    turns = (peer.head(i) + frames.reset_frame(i, frames.CANCEL) for i in count(1, 2))

    fault = attack(peer, turns, at_most=LIMITS.resets_burst)

    assert (fault.code, fault.message) == (CALM, "too many streams were reset")


def test_cancelling_at_the_allowed_rate_goes_on_for_ever() -> None:
    peer = Peer()

    for stream_id in range(1, 10_000, 2):
        peer.now += 1 / LIMITS.resets_per_second
        peer.say(peer.head(stream_id) + frames.reset_frame(stream_id, frames.CANCEL))

    assert not peer.connection.closed
    assert peer.connection.streams == {}


def provoke_window(stream_id: int, peer: Peer) -> bytes:
    return peer.head(stream_id) + frames.window_update_frame(stream_id, 0)


def provoke_overflow(stream_id: int, peer: Peer) -> bytes:
    return peer.head(stream_id) + frames.window_update_frame(stream_id, 2**31 - 1)


def provoke_half_closed(stream_id: int, peer: Peer) -> bytes:
    return peer.head(stream_id, end_stream=True) + data_frame(b"x", stream_id=stream_id)


def provoke_half_closed_headers(stream_id: int, peer: Peer) -> bytes:
    return peer.head(stream_id, end_stream=True) + peer.head(stream_id, TRAILERS, end_stream=True)


def provoke_malformed(stream_id: int, peer: Peer) -> bytes:
    return peer.head(stream_id, REQUEST[1:])


@pytest.mark.parametrize(
    "provoke",
    [
        provoke_window,
        provoke_overflow,
        provoke_half_closed,
        provoke_half_closed_headers,
        provoke_malformed,
    ],
)
def test_cve_2025_8671_provoking_our_resets_ends_the_connection(
    provoke: Callable[[int, Peer], bytes],
) -> None:
    """MadeYouReset; the refusals of CVE-2019-9514 are counted alike."""
    peer = Peer()
    turns = (provoke(stream_id, peer) for stream_id in count(1, 2))

    fault = attack(peer, turns, at_most=LIMITS.resets_burst)

    assert (fault.code, fault.message) == (CALM, "too many streams were reset")


def test_cve_2019_9514_insisting_on_refused_streams_ends_the_connection() -> None:
    peer = Peer(limits=Http2Limits(max_streams=1)).opened()
    turns = (peer.head(stream_id) for stream_id in count(3, 2))

    assert attack(peer, turns, at_most=LIMITS.resets_burst).code == CALM


def test_a_thousand_calls_one_after_the_other_are_no_flood() -> None:
    peer = Peer()
    for stream_id in range(1, 4000, 2):
        events = peer.say(peer.head(stream_id), data_frame(b"call", stream_id=stream_id))
        assert len(events) == 2
        peer.connection.consume(stream_id, 4)
        peer.connection.send_headers(stream_id, RESPONSE)
        peer.connection.send_data(stream_id, b"answer")
        peer.hear()
        peer.say(data_frame(b"", stream_id=stream_id, end_stream=True))
        peer.connection.end_stream(stream_id, TRAILERS)
        peer.hear()

    assert not peer.connection.closed
    assert peer.connection.streams == {}


def test_a_grpc_client_that_resets_the_calls_that_we_ended_is_no_flood() -> None:
    """grpc-go answers trailers with RST_STREAM where it had not half-closed."""
    peer = Peer()
    for stream_id in range(1, 8000, 2):
        peer.say(peer.head(stream_id))
        peer.connection.send_headers(stream_id, [*RESPONSE, *TRAILERS], end_stream=True)
        peer.hear()
        assert peer.say(frames.reset_frame(stream_id, frames.NO_ERROR)) == []

    assert not peer.connection.closed


def test_a_grpc_server_that_resets_calls_behind_their_trailers_is_no_flood() -> None:
    """grpc-go's server does so where the client had not half-closed."""
    peer = Peer(client=True)
    for _ in range(4000):
        stream_id = peer.connection.open_stream(REQUEST)
        peer.hear()
        peer.say(
            peer.head(stream_id, [*RESPONSE, *TRAILERS], end_stream=True),
            frames.reset_frame(stream_id, frames.NO_ERROR),
        )

    assert not peer.connection.closed
    assert peer.connection.streams == {}


def test_a_client_that_cancels_many_calls_bears_the_answers_under_way() -> None:
    peer = Peer(client=True)
    for _ in range(4000):
        stream_id = peer.connection.open_stream(REQUEST)
        peer.connection.reset_stream(stream_id, frames.CANCEL)
        peer.hear()
        peer.say(
            peer.head(stream_id),
            data_frame(b"late", stream_id=stream_id),
            peer.head(stream_id, TRAILERS, end_stream=True),
        )

    assert not peer.connection.closed


def test_headers_on_closed_streams_are_counted() -> None:
    peer = Peer().opened()
    peer.connection.reset_stream(1, frames.CANCEL)
    turns = (peer.head(1, TRAILERS, end_stream=True) for _ in count())

    fault = attack(peer, turns, at_most=LIMITS.control_burst)

    assert (fault.code, fault.message) == (CALM, "too many HEADERS frames on closed streams")


# Header blocks


def test_cve_2024_27316_a_header_block_without_end_ends_the_connection() -> None:
    peer = Peer()
    peer.say(headers_frame(b"", end_headers=False))
    turns = (frames.frame(frames.CONTINUATION, 0, 1) for _ in count())

    fault = attack(peer, turns, at_most=LIMITS.max_continuations)

    assert (fault.code, fault.message) == (CALM, "too many CONTINUATION frames")


def test_cve_2024_27316_a_header_block_that_grows_ends_the_connection() -> None:
    peer = Peer()
    peer.say(headers_frame(b"", end_headers=False))
    turns = (frames.frame(frames.CONTINUATION, 0, 1, bytes(16_384)) for _ in count())

    fault = attack(peer, turns, at_most=4)

    assert (fault.code, fault.message) == (CALM, "a header block is too long")


def test_a_header_block_in_as_many_frames_as_allowed_is_read() -> None:
    peer = Peer()
    block = peer.block([*REQUEST, ("authorization", "Bearer " + "x" * 20_000)])
    step = -(-len(block) // LIMITS.max_continuations)
    pieces = [block[at : at + step] for at in range(0, len(block), step)]
    raw = headers_frame(b"", end_headers=False)
    raw += b"".join(frames.frame(frames.CONTINUATION, 0, 1, piece) for piece in pieces[:-1])
    raw += frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, pieces[-1])

    (event,) = peer.say(raw)

    assert event.headers[-1] == ("authorization", "Bearer " + "x" * 20_000)


def test_the_frames_of_each_header_block_are_counted_anew() -> None:
    peer = Peer()

    for stream_id in range(1, 200, 2):
        block = peer.block(REQUEST)
        pieces = [
            headers_frame(block[:4], stream_id=stream_id, end_headers=False),
            frames.frame(frames.CONTINUATION, 0, stream_id, block[4:8]),
            frames.frame(frames.CONTINUATION, frames.END_HEADERS, stream_id, block[8:]),
        ]
        assert len(peer.say(*pieces)) == 1


def test_cve_2016_6581_an_hpack_bomb_ends_the_connection() -> None:
    """A large field in the table, referred to again and again by one byte."""
    peer = Peer()
    bomb = peer.block([*REQUEST, ("bomb", "x" * 3000)]) + b"\xbe" * 5000

    fault = attack(peer, iter([headers_frame(bomb)]), at_most=1)

    assert (fault.code, fault.message) == (CALM, "a header list is too long")


def test_a_header_list_of_many_small_fields_ends_the_connection() -> None:
    """Each field counts 32 bytes more than its text (RFC 9113, 6.5.2)."""
    peer = Peer()
    block = peer.block(REQUEST) + b"\x00\x01a\x00" * 4000

    fault = attack(peer, iter([headers_frame(block)]), at_most=1)

    assert fault.message == "a header list is too long"


def test_hpack_table_sizes_without_end_end_the_connection() -> None:
    peer = Peer()

    fault = attack(peer, iter([headers_frame(b"\x20\x3f\xe1\x1f" * 9)]), at_most=1)

    assert (fault.code, fault.message) == (CALM, "too many HPACK table sizes")


def test_two_hpack_table_sizes_are_what_the_rfc_wants() -> None:
    """RFC 7541, 4.2: the smallest and the last size of an interval."""
    peer = Peer()

    assert len(peer.say(headers_frame(b"\x20\x3f\xe1\x1f" + peer.block(REQUEST)))) == 1


def test_a_big_token_is_no_flood() -> None:
    peer = Peer()

    (event,) = peer.say(peer.head(1, [*REQUEST, ("authorization", "Bearer " + "x" * 60_000)]))

    assert len(event.headers[-1][1]) == 60_007


# Control frames

CONTROL_FLOODS = {
    "CVE-2019-9512 PING": (frames.ping_frame(bytes(8)), "PING frames"),
    "PING acknowledgements": (frames.ping_frame(bytes(8), ack=True), "PING acknowledgements"),
    "CVE-2019-9515 SETTINGS": (frames.settings_frame({}), "SETTINGS frames"),
    "SETTINGS acknowledgements": (frames.settings_ack_frame(), "SETTINGS frames"),
    "CVE-2019-9513 PRIORITY": (frames.frame(frames.PRIORITY, 0, 3, bytes(5)), "PRIORITY frames"),
    "GOAWAY": (frames.goaway_frame(2**31 - 1, 0), "GOAWAY frames"),
    "unknown frames": (frames.frame(0x42, 0, 0), "frames of unknown type 66"),
}


@pytest.mark.parametrize(("raw", "what"), CONTROL_FLOODS.values(), ids=CONTROL_FLOODS)
def test_floods_of_control_frames_end_the_connection(raw: bytes, what: str) -> None:
    peer = Peer().opened()
    turns = (raw for _ in count())

    fault = attack(peer, turns, at_most=LIMITS.control_burst)

    assert (fault.code, fault.message) == (CALM, f"too many {what}")


@pytest.mark.parametrize(("raw", "what"), CONTROL_FLOODS.values(), ids=CONTROL_FLOODS)
def test_control_frames_at_the_allowed_rate_go_on_for_ever(raw: bytes, what: str) -> None:
    peer = Peer().opened()

    for _ in range(2000):
        peer.now += 1 / LIMITS.control_per_second
        peer.say(raw)
        peer.connection.data_to_send()

    assert not peer.connection.closed


def test_pings_that_measure_the_bandwidth_of_our_content_are_no_flood() -> None:
    """grpc-go sends one a round trip while data flows to it, thousands a second on loopback."""
    peer = Peer().opened()
    peer.connection.send_headers(1, RESPONSE)
    for _ in range(20_000):
        peer.say(frames.ping_frame(b"\x02\x04\x10\x10\x09\x0e\x07\x07"))
        peer.connection.send_data(1, b"more")
        data, answer = peer.hear()[::-1][:2]
        assert (data.kind, answer.flags) == (frames.DATA, frames.ACK)
        peer.say(frames.window_update_frame(1, 4), frames.window_update_frame(0, 4))

    assert not peer.connection.closed


def test_answers_to_our_own_pings_are_no_flood() -> None:
    peer = Peer()
    for _ in range(2 * LIMITS.control_burst):
        peer.connection.ping(bytes(8))
        assert len(peer.say(frames.ping_frame(bytes(8), ack=True))) == 1
        peer.hear()

    assert not peer.connection.closed
    turns = (frames.ping_frame(bytes(8), ack=True) for _ in count())
    assert attack(peer, turns, at_most=LIMITS.control_burst).code == CALM


def test_twenty_thousand_window_updates_are_no_flood() -> None:
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 0}).opened()
    received = 0
    for number in range(20_000):
        if not number % 1000:
            peer.connection.send_data(1, bytes(1000))
        peer.say(frames.window_update_frame(1, 1), frames.window_update_frame(0, 1))
        received += sum(len(frame.payload) for frame in peer.hear())

    assert received == 20_000
    assert not peer.connection.closed


def test_cve_2020_11080_settings_without_end_end_the_connection() -> None:
    peer = Peer()
    many = frames.SETTING.pack(frames.INITIAL_WINDOW_SIZE, 1) * (LIMITS.max_settings + 1)

    fault = attack(peer, iter([frames.frame(frames.SETTINGS, 0, 0, many)]), at_most=1)

    assert (fault.code, fault.message) == (CALM, "too many settings in one frame")


class Visited(dict[int, Stream]):
    """A table of streams that counts how often all of them were looked at."""

    visits = 0

    def values(self) -> ValuesView[Stream]:  # type: ignore[override]
        self.visits += 1
        return super().values()


def test_the_streams_are_visited_once_for_each_settings_frame() -> None:
    """Toggling the initial window within one frame must not cost a walk for each entry."""
    peer = Peer()
    for stream_id in range(1, 2 * LIMITS.max_streams, 2):
        peer.say(peer.head(stream_id))
    streams = peer.connection.streams = Visited(peer.connection.streams)
    entries = b"".join(frames.SETTING.pack(4, number % 2) for number in range(LIMITS.max_settings))

    peer.say(frames.frame(frames.SETTINGS, 0, 0, entries))

    assert streams.visits == 1
    assert len(streams) == LIMITS.max_streams
    # The last entry holds, 1; each stream was opened with the default.
    assert {stream.send_window for stream in streams.values()} == {1}


# Frames without content

EMPTY_FLOODS = {
    "CVE-2019-9518 DATA": data_frame(b""),
    "DATA of padding alone": padded(frames.DATA, 0, 1, b"", 200),
    "DATA on a closed stream": data_frame(b"", stream_id=3),
    "DATA that ends a closed stream": data_frame(b"", stream_id=3, end_stream=True),
}


@pytest.mark.parametrize("raw", EMPTY_FLOODS.values(), ids=EMPTY_FLOODS)
def test_floods_of_empty_frames_end_the_connection(raw: bytes) -> None:
    peer = Peer().opened(1)
    peer.say(peer.head(3))
    peer.connection.reset_stream(3, frames.CANCEL)
    turns = (raw for _ in count())

    fault = attack(peer, turns, at_most=LIMITS.empty_burst)

    assert (fault.code, fault.message) == (CALM, "too many empty frames")


def test_interim_responses_without_end_end_the_connection() -> None:
    peer = Peer(client=True)
    peer.connection.open_stream(REQUEST)
    turns = (peer.head(1, [(":status", "100")]) for _ in count())

    assert attack(peer, turns, at_most=LIMITS.empty_burst).message == "too many empty frames"


def test_a_keystroke_at_a_time_is_no_flood() -> None:
    peer = Peer().opened()

    for _ in range(20_000):
        (event,) = peer.say(data_frame(b"k"))
        assert isinstance(event, DataReceived)
        peer.connection.consume(1, event.size)
        peer.connection.data_to_send()

    assert not peer.connection.closed


# A peer that does not read

ANSWERED: dict[str, Callable[[Peer], Iterator[bytes]]] = {
    "PING (CVE-2019-9512)": lambda _: (frames.ping_frame(bytes(8)) for _ in count()),
    "SETTINGS (CVE-2019-9515)": lambda _: (frames.settings_frame({}) for _ in count()),
    "refused streams": lambda peer: (
        peer.head(stream_id, REQUEST[1:]) for stream_id in count(1, 2)
    ),
}


@pytest.mark.parametrize("turns", ANSWERED.values(), ids=ANSWERED)
def test_answers_that_are_not_read_end_the_connection(
    turns: Callable[[Peer], Iterator[bytes]],
) -> None:
    """However high the rates are set, what waits for the peer is bounded."""
    limits = Http2Limits(
        control_burst=1 << 30, resets_burst=1 << 30, max_streams=10, max_control_backlog=50_000
    )
    peer = Peer(limits=limits)

    fault = attack(peer, turns(peer), at_most=50_000 // 9, listening=False)

    assert (fault.code, fault.message) == (CALM, "the peer does not read the answers it causes")


def test_answers_that_are_read_do_not_add_up() -> None:
    peer = Peer(limits=Http2Limits(max_control_backlog=100))
    for _ in range(100):
        peer.say(frames.ping_frame(bytes(8)))
        assert len(peer.hear()) == 1

    assert not peer.connection.closed


def test_cve_2019_9517_responses_that_are_not_read_end_the_connection() -> None:
    peer = Peer(limits=Http2Limits(max_control_backlog=50_000))
    tracemalloc.start()
    for stream_id in range(1, 1 << 20, 2):
        events = peer.say(peer.head(stream_id, end_stream=True))
        if peer.connection.closed:
            break
        peer.connection.send_headers(stream_id, RESPONSE)
        peer.connection.end_stream(stream_id, [*TRAILERS, ("grpc-message", "x" * 50)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert ended(events).message == "the peer does not read the answers it causes"
    assert peak < MEMORY


@pytest.mark.parametrize("constant", [True, False])
def test_heads_that_are_not_read_end_the_connection(constant: bool) -> None:
    peer = Peer(limits=Http2Limits(max_control_backlog=5000, resets_burst=1 << 30))
    stream_id = 1
    while not peer.connection.closed:
        assert stream_id < 2000
        peer.say(peer.head(stream_id))
        if constant:
            peer.connection.send_block(stream_id, GRPC_RESPONSE)
        else:
            peer.connection.send_headers(stream_id, RESPONSE)
        events = peer.say(frames.reset_frame(stream_id, frames.CANCEL))
        stream_id += 2

    assert ended(events).message == "the peer does not read the answers it causes"


def test_w06_a_window_that_never_opens_bounds_what_waits() -> None:
    """CVE-2019-9511, CVE-2019-9517: the source is told to pause; that is all we hold."""
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 0}).opened()
    sent = 0
    while peer.connection.send_data(1, bytes(1000)):
        sent += 1000
        peer.hear()

    assert peer.connection.streams[1].backlog == sent + 1000
    assert sent < 200_000


def test_cve_2019_9511_a_window_that_opens_bytewise_queues_no_frames() -> None:
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 0}).opened()
    peer.connection.send_data(1, bytes(100_000))
    for _ in range(5000):
        peer.say(frames.window_update_frame(1, 1))

    (frame,) = peer.hear()
    assert len(frame.payload) == 5000


def test_resets_under_a_closed_window_leave_nothing_behind() -> None:
    peer = Peer(limits=Http2Limits(resets_burst=1 << 30))
    peer.say(peer.head(1))
    peer.connection.send_data(1, bytes(65_535))
    peer.hear()  # the connection's window is used up, nothing more can leave
    for stream_id in range(3, 4000, 2):
        peer.say(peer.head(stream_id))
        peer.connection.send_data(stream_id, b"never sent")
        peer.say(frames.reset_frame(stream_id, frames.CANCEL))

    assert len(peer.connection._ready) + len(peer.connection._urgent) == 0
    assert list(peer.connection.streams) == [1]


# Before HTTP/2 begins


def test_a_client_that_never_ends_its_preface_costs_nothing() -> None:
    server = Connection(client=False)
    server.data_to_send()
    tracemalloc.start()
    events: list[Event] = []
    for byte in frames.PREFACE[:-1]:
        events += server.receive_data(bytes([byte]), 0.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert events == []
    assert server.data_to_send() == b""
    assert peak < 10_000


def test_what_an_attacker_is_told_last_is_short() -> None:
    peer = Peer()
    fault = ended(peer.say(frames.frame(frames.SETTINGS, 0, 0, bytes(6 * 40_000))))

    (goaway,) = cut(peer.connection.data_to_send())
    assert goaway.payload[8:] == fault.message.encode()
    assert len(goaway.payload) <= 8 + 256
