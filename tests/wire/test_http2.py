"""Sending: order, credit, turns, ends; what a connection says of itself."""

from __future__ import annotations

import pytest
from hpack import Decoder
from tests.wire.peer import (
    REQUEST,
    RESPONSE,
    TRAILERS,
    WIDE,
    Frame,
    Peer,
    content,
    cut,
    data_frame,
    wide,
)

from konnectivity.errors import ConnectionFault, StreamFault
from konnectivity.wire import frames
from konnectivity.wire.blocks import GRPC_RESPONSE
from konnectivity.wire.events import HeadersReceived, StreamReset
from konnectivity.wire.http2 import Connection
from konnectivity.wire.limits import Http2Limits
from konnectivity.wire.sending import FULL, QUANTUM, ROOMY, SMALL

# What we say first


def test_a_client_starts_with_the_preface_its_settings_and_its_window() -> None:
    data = Connection(client=True).data_to_send()

    assert data.startswith(frames.PREFACE)
    settings, window = cut(data)
    assert (settings.kind, settings.stream_id) == (frames.SETTINGS, 0)
    assert dict(frames.SETTING.iter_unpack(settings.payload)) == {
        frames.ENABLE_PUSH: 0,
        frames.INITIAL_WINDOW_SIZE: Http2Limits().stream_window,
        frames.MAX_FRAME_SIZE: Http2Limits().max_frame_size,
        frames.MAX_HEADER_LIST_SIZE: Http2Limits().max_header_list,
    }
    assert window == frames_window(0, Http2Limits().connection_window - 65_535)


def frames_window(stream_id: int, increment: int) -> Frame:
    return Frame(frames.WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big"))


def test_a_server_announces_how_many_streams_it_takes() -> None:
    settings, _ = cut(Connection(client=False, limits=Http2Limits(max_streams=7)).data_to_send())

    said = dict(frames.SETTING.iter_unpack(settings.payload))
    assert said[frames.MAX_CONCURRENT_STREAMS] == 7
    assert frames.ENABLE_PUSH not in said


def test_the_connection_window_of_the_rfc_needs_no_update() -> None:
    connection = Connection(client=True, limits=Http2Limits(connection_window=65_535))

    assert len(cut(connection.data_to_send())) == 1


# Requests


def test_a_client_uses_odd_stream_ids_in_order() -> None:
    peer = Peer(client=True)

    assert [peer.connection.open_stream(REQUEST) for _ in range(3)] == [1, 3, 5]
    heard = peer.hear()
    assert [(frame.kind, frame.stream_id) for frame in heard] == [
        (frames.HEADERS, stream_id) for stream_id in (1, 3, 5)
    ]
    assert [peer.fields(frame) for frame in heard] == [REQUEST] * 3


def test_a_request_without_content_carries_the_end() -> None:
    peer = Peer(client=True)
    peer.connection.open_stream(REQUEST, end_stream=True)

    assert peer.hear()[0].flags == frames.END_HEADERS | frames.END_STREAM
    with pytest.raises(StreamFault, match="stream 1 is closed"):
        peer.connection.send_data(1, b"x")


def test_a_head_longer_than_a_frame_is_continued() -> None:
    peer = Peer(client=True)
    peer.connection.open_stream([*REQUEST, ("authorization", "~" * 11_000)])

    first, *others = peer.hear()

    assert first.kind == frames.HEADERS
    assert {frame.kind for frame in others} == {frames.CONTINUATION}
    assert len(first.payload) == 16_384


def test_no_more_streams_are_opened_than_the_peer_allows() -> None:
    peer = Peer(client=True, settings={frames.MAX_CONCURRENT_STREAMS: 2})
    peer.connection.open_stream(REQUEST)
    peer.connection.open_stream(REQUEST)

    with pytest.raises(ConnectionFault, match="allows 2 streams at once") as caught:
        peer.connection.open_stream(REQUEST)
    assert caught.value.code == frames.REFUSED_STREAM
    peer.connection.reset_stream(1, frames.CANCEL)
    assert peer.connection.open_stream(REQUEST) == 5


def test_no_stream_is_opened_behind_the_goaway_of_the_peer() -> None:
    peer = Peer(client=True)
    peer.say(frames.goaway_frame(0, frames.NO_ERROR))

    with pytest.raises(ConnectionFault, match="no new streams"):
        peer.connection.open_stream(REQUEST)


def test_stream_ids_run_out_one_day() -> None:
    peer = Peer(client=True)
    peer.connection._next_id = frames.MAX_STREAM_ID

    assert peer.connection.open_stream(REQUEST) == frames.MAX_STREAM_ID
    with pytest.raises(ConnectionFault, match="used up"):
        peer.connection.open_stream(REQUEST)


# Turns


def test_streams_take_turns_of_one_frame() -> None:
    peer = wide(stream_id=1)
    for stream_id in (3, 5):
        peer.say(peer.head(stream_id))
    for stream_id in (1, 3, 5):
        peer.connection.send_data(stream_id, bytes(40_000))

    heard = peer.hear()

    assert [(frame.stream_id, len(frame.payload)) for frame in heard] == [
        (1, 16_384),
        (3, 16_384),
        (5, 16_384),
        (1, 16_384),
        (3, 16_384),
        (5, 16_384),
        (1, 7_232),
        (3, 7_232),
        (5, 7_232),
    ]


def test_a_stream_that_comes_later_waits_for_one_frame_of_each_other() -> None:
    peer = wide()
    peer.say(peer.head(3))
    peer.connection.send_data(1, bytes(100_000))
    peer.hear(1)

    peer.connection.send_data(3, bytes(SMALL + 1))

    assert [frame.stream_id for frame in peer.hear()][:2] == [1, 3]


def test_a_keystroke_goes_before_all_that_is_large() -> None:
    peer = wide()
    peer.say(peer.head(3))
    peer.connection.send_data(1, bytes(100_000))
    peer.hear(1)

    peer.connection.send_data(3, b"keystroke")

    assert [frame.stream_id for frame in peer.hear()][:2] == [3, 1]


def test_no_stream_has_more_than_its_share_of_a_turn() -> None:
    peer = wide()
    peer.say(peer.head(3) + frames.settings_frame({frames.MAX_FRAME_SIZE: 1 << 20}))
    peer.hear()
    for stream_id in (1, 3):
        peer.connection.send_data(stream_id, bytes(200_000))

    sent = [(frame.stream_id, len(frame.payload)) for frame in peer.hear()]

    assert sent == [(1, QUANTUM), (3, QUANTUM), (1, 200_000 - QUANTUM), (3, 200_000 - QUANTUM)]


def test_frames_grow_to_what_the_peer_accepts() -> None:
    peer = wide()
    peer.say(frames.settings_frame({frames.MAX_FRAME_SIZE: 50_000}))
    peer.hear()
    peer.connection.send_data(1, bytes(120_000))

    assert [len(frame.payload) for frame in peer.hear()] == [50_000, 50_000, 20_000]


def test_small_pieces_share_a_frame() -> None:
    peer = wide()
    for piece in (b"a", b"bc", b"def"):
        peer.connection.send_data(1, piece)

    assert peer.hear() == [(frames.DATA, 0, 1, b"abcdef")]


def test_control_frames_go_first() -> None:
    peer = wide()
    peer.connection.send_data(1, bytes(20_000))
    peer.connection.ping(b"12345678")

    assert [frame.kind for frame in peer.hear()] == [frames.PING, frames.DATA, frames.DATA]


def test_a_limit_holds_data_back_but_never_control_frames() -> None:
    peer = wide()
    peer.connection.send_data(1, bytes(50_000))
    peer.connection.ping(b"12345678")

    assert [frame.kind for frame in peer.hear(0)] == [frames.PING]
    assert [len(frame.payload) for frame in peer.hear(1)] == [16_384]
    assert [len(frame.payload) for frame in peer.hear(16_385)] == [16_384, 16_384]
    assert [len(frame.payload) for frame in peer.hear(16_384)] == [848]
    assert peer.hear() == []


def test_wants_to_send_says_whether_there_may_be_something() -> None:
    peer = Peer().opened()
    connection = peer.connection
    assert not connection.wants_to_send

    connection.ping(bytes(8))
    assert connection.wants_to_send
    peer.hear()
    connection.send_data(1, bytes(65_536))
    assert connection.wants_to_send
    peer.hear()
    assert not connection.wants_to_send  # a byte is left, but no credit


# Credit


def test_a_stream_sends_to_the_last_byte_of_its_window_and_no_further() -> None:
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 100}).opened()
    peer.connection.send_data(1, bytes(range(250)))

    assert content(peer.hear()) == bytes(range(100))
    peer.say(frames.window_update_frame(1, 1))
    assert content(peer.hear()) == bytes([100])
    peer.say(frames.window_update_frame(1, 1000))
    assert content(peer.hear()) == bytes(range(101, 250))


def test_the_connection_window_bounds_all_streams_together() -> None:
    peer = Peer(settings=WIDE).opened()
    peer.say(peer.head(3))
    for stream_id in (1, 3):
        peer.connection.send_data(stream_id, bytes(60_000))

    heard = peer.hear()
    assert sum(len(frame.payload) for frame in heard) == 65_535
    assert peer.hear() == []
    peer.say(frames.window_update_frame(0, 10))
    assert sum(len(frame.payload) for frame in peer.hear()) == 10
    peer.say(frames.window_update_frame(0, 1 << 20))
    heard += peer.hear()
    assert sum(len(frame.payload) for frame in heard) == 120_000 - 10


def test_a_stream_without_credit_does_not_hold_up_the_others() -> None:
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 10}).opened()
    peer.say(peer.head(3))
    for stream_id in (1, 3):
        peer.connection.send_data(stream_id, bytes(20))
    peer.hear()

    peer.say(frames.window_update_frame(3, 5))

    assert peer.hear() == [(frames.DATA, 0, 3, bytes(5))]


def test_settings_may_make_a_window_negative() -> None:
    """RFC 9113, 6.9.2: the debt is paid by WINDOW_UPDATE before anything is sent."""
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 100}).opened()
    peer.connection.send_data(1, bytes(300))
    assert len(content(peer.hear())) == 100

    peer.say(frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 10}))
    assert peer.connection.streams[1].send_window == -90
    peer.say(frames.window_update_frame(1, 90))
    assert content(peer.hear()) == b""
    peer.say(frames.window_update_frame(1, 7))
    assert len(content(peer.hear())) == 7
    peer.say(frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 60}))
    assert len(content(peer.hear())) == 50


@pytest.mark.parametrize("window", [10, 60])
def test_a_stream_whose_window_went_while_it_waited_its_turn_sends_nothing(window: int) -> None:
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 100}).opened()
    peer.connection.send_data(1, bytes(60))
    peer.hear()
    peer.connection.send_data(1, bytes(60))

    peer.say(frames.settings_frame({frames.INITIAL_WINDOW_SIZE: window}))

    assert peer.hear() == [(frames.SETTINGS, frames.ACK, 0, b"")]
    assert not peer.connection.wants_to_send
    peer.say(frames.window_update_frame(1, 1000))
    assert len(content(peer.hear())) == 60


def test_new_streams_start_with_the_window_of_the_moment() -> None:
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 10})
    peer.say(peer.head(1))
    peer.say(frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 20}))
    peer.say(peer.head(3))

    assert [stream.send_window for stream in peer.connection.streams.values()] == [20, 20]


def test_windows_can_be_widened_while_data_flows() -> None:
    limits = Http2Limits(stream_window=1000, connection_window=65_535)
    peer = Peer(limits=limits).opened(1)
    peer.say(peer.head(3, end_stream=True))
    peer.say(data_frame(bytes(1000)))

    peer.connection.widen(500)

    assert peer.hear() == [frames_window(0, 500), frames_window(1, 500)]
    peer.say(data_frame(bytes(500)))
    peer.connection.consume(1, 749)
    assert peer.hear() == []
    peer.connection.consume(1, 1)  # half of the wider window is owed
    assert peer.hear() == [frames_window(1, 750)]


def test_a_wider_connection_window_may_be_used() -> None:
    limits = Http2Limits(connection_window=65_535, max_frame_size=100_000)
    peer = Peer(limits=limits).opened()
    peer.connection.widen(10_000)

    assert len(peer.say(data_frame(bytes(75_535)))) == 1
    assert not peer.connection.closed


# Full and roomy


def test_a_full_stream_is_reported_and_so_is_its_room() -> None:
    peer = Peer(settings=WIDE).opened()
    connection = peer.connection
    piece = bytes(FULL // 8)
    answers = [connection.send_data(1, piece) for _ in range(8)]
    assert answers == [True] * 7 + [False]
    peer.hear()
    assert connection.take_writable() == []  # the connection's window is used up

    while connection.streams[1].backlog > ROOMY:
        assert connection.take_writable() == []
        peer.say(frames.window_update_frame(0, 5000))
        peer.hear()

    assert connection.take_writable() == [1]
    assert connection.send_data(1, b"x")
    peer.say(frames.window_update_frame(0, 5000))
    assert len(content(peer.hear())) == 5000
    assert connection.take_writable() == []


def test_a_stream_that_never_was_full_is_not_reported() -> None:
    peer = wide()
    peer.connection.send_data(1, bytes(FULL - 1))
    peer.hear()

    assert peer.connection.take_writable() == []


def test_a_stream_that_was_reset_while_full_is_not_reported() -> None:
    peer = Peer(settings=WIDE).opened()
    assert not peer.connection.send_data(1, bytes(FULL))
    peer.say(frames.reset_frame(1, frames.CANCEL))
    peer.say(frames.window_update_frame(0, 1 << 20))

    assert content(peer.hear()) == b""
    assert peer.connection.take_writable() == []


# HPACK


def test_heads_and_trailers_leave_in_the_order_in_which_they_were_encoded() -> None:
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 0})
    for stream_id in (1, 3, 5):
        peer.say(peer.head(stream_id, end_stream=True))
    peer.hear()
    for stream_id in (1, 3, 5):
        peer.connection.send_headers(stream_id, [*RESPONSE, ("serverid", f"s{stream_id}")])
        peer.connection.send_data(stream_id, b"data")
        peer.connection.end_stream(stream_id, [*TRAILERS, ("x-of", f"s{stream_id}")])
    heard = peer.hear()
    for stream_id in (3, 1, 5):
        peer.say(frames.window_update_frame(stream_id, 4))
    heard += peer.hear()

    seen = [peer.fields(frame)[-1][1] for frame in heard if frame.kind == frames.HEADERS]

    assert seen == ["s1", "s3", "s5", "s3", "s1", "s5"]


def test_the_hpack_table_shrinks_to_what_the_peer_allows() -> None:
    peer = Peer(client=True)
    peer.connection.open_stream([*REQUEST, ("agentid", "a" * 50)])
    peer.say(frames.settings_frame({frames.HEADER_TABLE_SIZE: 0}))
    peer.say(frames.settings_frame({frames.HEADER_TABLE_SIZE: 0}))
    peer.connection.open_stream([*REQUEST, ("agentid", "a" * 50)])
    before, *_, behind = [frame for frame in peer.hear() if frame.kind == frames.HEADERS]
    decoder = Decoder()
    decoder.decode(before.payload)
    decoder.max_allowed_table_size = 0

    fields = decoder.decode(behind.payload)

    assert ("agentid", "a" * 50) in [tuple(field) for field in fields]
    assert len(decoder.header_table.dynamic_entries) == 0


def test_a_constant_head_tells_of_a_smaller_table_too() -> None:
    peer = Peer(settings={frames.HEADER_TABLE_SIZE: 100}).opened()

    peer.connection.send_block(1, GRPC_RESPONSE)

    (head,) = peer.hear()
    assert head.payload == b"\x3f\x45" + GRPC_RESPONSE
    assert peer.fields(head) == RESPONSE


def test_the_hpack_table_never_grows() -> None:
    peer = Peer(client=True)
    for size in (1 << 20, 100, 4096, 1 << 31):
        peer.say(frames.settings_frame({frames.HEADER_TABLE_SIZE: size}))

    assert peer.connection._hpack.header_table_size == 100
    assert peer.connection._encoder.table_size_changes == [100]


# Both ends


def test_two_ends_of_our_own_carry_a_call() -> None:
    client, server = Connection(client=True), Connection(client=False)

    def exchange() -> list[object]:
        events: list[object] = []
        while client.wants_to_send or server.wants_to_send:
            events += server.receive_data(client.data_to_send(), 0.0)
            events += client.receive_data(server.data_to_send(), 0.0)
        return events

    client.open_stream(REQUEST)
    assert HeadersReceived(1, REQUEST, True, False) in exchange()
    server.send_headers(1, RESPONSE)
    server.end_stream(1, TRAILERS)
    events = exchange()

    assert HeadersReceived(1, RESPONSE, True, False) in events
    assert HeadersReceived(1, TRAILERS, False, True) in events
    assert StreamReset(1, frames.NO_ERROR, by_peer=True) in events
    assert client.streams == server.streams == {}
