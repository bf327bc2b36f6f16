"""What a peer that keeps the rules may do, and what our side makes of it."""

from __future__ import annotations

import pytest
from tests.wire.peer import (
    REQUEST,
    RESPONSE,
    TRAILERS,
    Peer,
    cut,
    data_frame,
    ended,
    frozen,
    padded,
    reset,
)

from konnectivity.wire import frames
from konnectivity.wire.events import (
    DataReceived,
    GoAwayReceived,
    HeadersReceived,
    PingAcknowledged,
    PingReceived,
    SettingsReceived,
    StreamEnded,
    StreamReset,
)
from konnectivity.wire.http2 import Connection
from konnectivity.wire.limits import Http2Limits

frame = frames.frame


# Windows


def test_a_stream_window_may_be_used_to_its_last_byte() -> None:
    peer = Peer(limits=Http2Limits(stream_window=100)).opened()

    assert isinstance(peer.say(data_frame(bytes(100)))[0], DataReceived)
    fault = reset(peer.say(data_frame(b"x")))

    assert (fault.stream_id, fault.code) == (1, frames.FLOW_CONTROL_ERROR)


def test_a_peer_that_has_not_read_our_settings_may_use_the_window_of_the_rfc() -> None:
    """RFC 9113, 6.9.3: what was sent before SETTINGS were read may exceed the smaller window."""
    server = Connection(client=False, limits=Http2Limits(stream_window=100))
    peer = Peer()
    hello = frames.PREFACE + frames.settings_frame({}) + peer.head(1)
    server.receive_data(hello, 0.0)

    events = [
        event for _ in range(4) for event in server.receive_data(data_frame(bytes(16_000)), 0)
    ]
    fault = reset(server.receive_data(data_frame(bytes(2000)), 0.0))

    assert [type(event) for event in events] == [DataReceived] * 4
    assert fault.code == frames.FLOW_CONTROL_ERROR


def test_a_connection_window_that_one_frame_overdraws_ends_the_connection() -> None:
    peer = Peer(limits=Http2Limits(connection_window=65_535, max_frame_size=100_000)).opened()

    fault = ended(peer.say(data_frame(bytes(65_536))))

    assert fault.code == frames.FLOW_CONTROL_ERROR


def test_padding_counts_against_the_windows() -> None:
    peer = Peer(limits=Http2Limits(stream_window=100)).opened()

    (event,) = peer.say(padded(frames.DATA, 0, 1, b"abc", 90))

    assert isinstance(event, DataReceived)
    assert (bytes(event.data), event.size) == (b"abc", 94)
    peer.connection.consume(1, event.size)
    assert peer.hear() == [(frames.WINDOW_UPDATE, 0, 1, b"\0\0\0\x5e")]


def test_a_frame_of_padding_alone_is_given_back_at_once() -> None:
    peer = Peer(limits=Http2Limits(stream_window=100)).opened()

    assert peer.say(padded(frames.DATA, 0, 1, b"", 99)) == []
    assert peer.hear() == [(frames.WINDOW_UPDATE, 0, 1, b"\0\0\0\x64")]


def test_a_stream_gets_credit_when_its_data_is_consumed_and_not_before() -> None:
    peer = Peer(limits=Http2Limits(stream_window=100)).opened()
    peer.say(data_frame(bytes(100)))
    assert peer.hear() == []

    peer.connection.consume(1, 49)
    assert peer.hear() == []
    peer.connection.consume(1, 1)
    assert peer.hear() == [(frames.WINDOW_UPDATE, 0, 1, b"\0\0\0\x32")]


def test_a_stream_that_is_ending_or_gone_gets_no_credit() -> None:
    peer = Peer(limits=Http2Limits(stream_window=100)).opened()
    peer.say(data_frame(bytes(100), end_stream=True))

    peer.connection.consume(1, 100)
    peer.connection.consume(99, 100)

    assert peer.hear() == []


def test_w06_streams_that_nobody_reads_do_not_hold_up_the_others() -> None:
    """The connection's credit goes back on arrival: paused streams must not use it up."""
    limits = Http2Limits(stream_window=60_000, connection_window=65_535)
    peer = Peer(limits=limits)
    granted = 65_535
    for stream_id in range(1, 21, 2):
        peer.say(peer.head(stream_id))
        for size in (16_384, 16_384, 16_384, 10_848):
            granted -= size
            assert granted >= 0, "the connection's window is used up by paused streams"
            assert len(peer.say(data_frame(bytes(size), stream_id=stream_id))) == 1
            granted += sum(
                update.number for update in peer.hear() if update.kind == frames.WINDOW_UPDATE
            )
            assert granted <= 65_535


def test_data_of_a_stream_that_was_reset_does_not_eat_the_connection_window() -> None:
    peer = Peer(limits=Http2Limits(connection_window=65_535)).opened()
    peer.connection.reset_stream(1, frames.CANCEL)
    peer.hear()

    for _ in range(100):
        assert peer.say(data_frame(bytes(16_384))) == []

    total = sum(update.number for update in peer.hear() if update.stream_id == 0)
    assert total >= 100 * 16_384 - 65_535 // 2


# Streams


def test_a_request_is_reported_with_its_fields_in_order() -> None:
    peer = Peer()

    (event,) = peer.say(peer.head(1, [*REQUEST, ("agentid", "a"), ("agentid", "b")]))

    assert event == HeadersReceived(1, [*REQUEST, ("agentid", "a"), ("agentid", "b")], True, False)


def test_a_request_without_content_ends_at_once() -> None:
    peer = Peer()

    events = peer.say(peer.head(1, end_stream=True))

    assert events == [HeadersReceived(1, REQUEST, True, True), StreamEnded(1)]


def test_content_and_trailers_are_reported_in_order() -> None:
    peer = Peer(client=True).opened()

    events = peer.say(data_frame(b"abc"), peer.head(1, TRAILERS, end_stream=True))

    assert frozen(events) == [
        DataReceived(1, memoryview(b"abc"), 3),
        HeadersReceived(1, TRAILERS, False, True),
        StreamEnded(1),
    ]


def test_an_empty_frame_may_end_a_stream() -> None:
    peer = Peer().opened()

    assert peer.say(data_frame(b"", end_stream=True)) == [StreamEnded(1)]


def test_a_stream_that_both_sides_ended_is_forgotten() -> None:
    peer = Peer(client=True).opened()
    peer.connection.end_stream(1)
    assert 1 in peer.connection.streams

    peer.say(peer.head(1, TRAILERS, end_stream=True))

    assert peer.connection.streams == {}


def test_a_header_block_may_be_padded_prioritised_and_continued() -> None:
    peer = Peer()
    block = peer.block(REQUEST)
    flags = frames.PADDED | frames.PRIORITY_FLAG
    start = b"\x03" + b"\x80\0\0\0\x10" + block[:5] + b"\0\0\0"

    events = peer.say(
        frame(frames.HEADERS, flags, 1, start),
        frame(frames.CONTINUATION, 0, 1, block[5:9]),
        frame(frames.CONTINUATION, 0, 1),
        frame(frames.CONTINUATION, frames.END_HEADERS, 1, block[9:]),
    )

    assert events == [HeadersReceived(1, REQUEST, True, False)]


def test_a_first_frame_may_hold_a_priority_and_nothing_else() -> None:
    peer = Peer()

    events = peer.say(
        frame(frames.HEADERS, frames.PRIORITY_FLAG, 1, b"\x80\0\0\0\x10"),
        frame(frames.CONTINUATION, frames.END_HEADERS, 1, peer.block(REQUEST)),
    )

    assert events == [HeadersReceived(1, REQUEST, True, False)]


@pytest.mark.parametrize(
    "raw",
    [
        data_frame(b"late"),
        data_frame(b"late", end_stream=True),
        frames.reset_frame(1, frames.CANCEL),
        frames.window_update_frame(1, 100),
        frame(frames.PRIORITY, 0, 1, bytes(5)),
    ],
)
@pytest.mark.parametrize("client", [True, False])
def test_what_was_under_way_to_a_stream_we_reset_is_ignored(client: bool, raw: bytes) -> None:
    peer = Peer(client=client).opened()
    peer.connection.reset_stream(1, frames.CANCEL)
    peer.hear()

    assert peer.say(raw) == []
    assert peer.say(peer.head(1, TRAILERS, end_stream=True)) == []
    assert peer.hear() == []


def test_a_header_block_for_a_closed_stream_still_counts_for_hpack() -> None:
    peer = Peer(client=True)
    for _ in range(2):
        peer.connection.open_stream(REQUEST)
    peer.connection.reset_stream(1, frames.CANCEL)
    assert peer.say(peer.head(1, [*RESPONSE, ("serverid", "s")])) == []

    (event,) = peer.say(peer.head(3, [*RESPONSE, ("serverid", "s")]))

    assert event == HeadersReceived(3, [*RESPONSE, ("serverid", "s")], True, False)


def test_stream_ids_that_were_skipped_count_as_closed() -> None:
    peer = Peer().opened(5)

    assert peer.say(data_frame(b"x", stream_id=3)) == []
    assert peer.say(peer.head(3)) == []


def test_streams_beyond_the_limit_are_refused_and_the_others_go_on() -> None:
    peer = Peer(limits=Http2Limits(max_streams=2))
    peer.say(peer.head(1), peer.head(3))
    peer.hear()

    assert peer.say(peer.head(5)) == []
    assert peer.hear() == [(frames.RST_STREAM, 0, 5, b"\0\0\0\x07")]
    peer.connection.reset_stream(1, frames.CANCEL)
    assert isinstance(peer.say(peer.head(7))[0], HeadersReceived)


def test_a_reset_is_reported_with_its_code() -> None:
    peer = Peer().opened()

    assert peer.say(frames.reset_frame(1, frames.CANCEL)) == [
        StreamReset(1, frames.CANCEL, by_peer=True)
    ]
    assert peer.connection.streams == {}


# What only a client receives


def test_a_client_knows_no_streams_that_a_server_opened() -> None:
    for stream_id in (2, 3):
        peer = Peer(client=True).opened(1)

        fault = ended(peer.say(peer.head(stream_id)))

        assert fault.code == frames.PROTOCOL_ERROR
        assert f"stream {stream_id}" in fault.message


def test_content_before_the_response_head_resets_the_stream() -> None:
    peer = Peer(client=True)
    peer.connection.open_stream(REQUEST)

    fault = reset(peer.say(data_frame(b"x")))

    assert fault.code == frames.PROTOCOL_ERROR


def test_interim_responses_are_passed_over() -> None:
    peer = Peer(client=True)
    peer.connection.open_stream(REQUEST)

    assert peer.say(peer.head(1, [(":status", "103"), ("link", "x")])) == []
    assert peer.say(peer.head(1)) == [HeadersReceived(1, RESPONSE, True, False)]


def test_an_interim_response_is_not_the_last_word() -> None:
    peer = Peer(client=True)
    peer.connection.open_stream(REQUEST)

    fault = reset(peer.say(peer.head(1, [(":status", "100")], end_stream=True)))

    assert fault.code == frames.PROTOCOL_ERROR


def test_a_server_may_not_enable_push() -> None:
    peer = Peer(client=True)

    assert peer.say(frames.settings_frame({frames.ENABLE_PUSH: 0})) == [SettingsReceived()]
    fault = ended(peer.say(frames.settings_frame({frames.ENABLE_PUSH: 1})))

    assert fault.code == frames.PROTOCOL_ERROR


def test_a_client_may_enable_push() -> None:
    peer = Peer()

    assert peer.say(frames.settings_frame({frames.ENABLE_PUSH: 1})) == [SettingsReceived()]


# Control frames


def test_settings_are_acknowledged_and_obeyed() -> None:
    peer = Peer()

    events = peer.say(
        frames.settings_frame(
            {
                frames.MAX_CONCURRENT_STREAMS: 7,
                frames.MAX_FRAME_SIZE: 20_000,
                frames.INITIAL_WINDOW_SIZE: 12,
                frames.MAX_HEADER_LIST_SIZE: 99,
                0x4242: 2**32 - 1,
            }
        )
    )

    assert events == [SettingsReceived()]
    assert peer.hear() == [(frames.SETTINGS, frames.ACK, 0, b"")]
    assert peer.connection.peer_max_streams == 7
    assert peer.connection.peer_max_frame_size == 20_000
    assert peer.connection.peer_initial_window == 12


@pytest.mark.parametrize("size", [16_384, 2**24 - 1])
def test_frame_sizes_may_go_to_the_bounds_of_the_rfc(size: int) -> None:
    peer = Peer()

    assert peer.say(frames.settings_frame({frames.MAX_FRAME_SIZE: size})) == [SettingsReceived()]
    assert peer.connection.peer_max_frame_size == size


def test_of_a_setting_said_twice_the_last_one_counts() -> None:
    peer = Peer()
    twice = cut(frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 5}))[0].payload
    twice += cut(frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 6}))[0].payload

    peer.say(frame(frames.SETTINGS, 0, 0, twice))

    assert peer.connection.peer_initial_window == 6


def test_a_ping_is_answered_with_its_own_bytes() -> None:
    peer = Peer()

    assert peer.say(frames.ping_frame(b"12345678")) == [PingReceived(after_content=False)]
    assert peer.hear() == [(frames.PING, frames.ACK, 0, b"12345678")]


def test_a_ping_knows_whether_content_went_out_before_it() -> None:
    peer = Peer().opened()
    pings = []

    for content in (False, True, False):
        if content:
            peer.connection.send_headers(1, RESPONSE)
        pings += peer.say(frames.ping_frame(bytes(8)))

    assert pings == [PingReceived(False), PingReceived(True), PingReceived(False)]
    peer.connection.send_data(1, b"x")
    assert peer.say(frames.ping_frame(bytes(8))) == [PingReceived(False)]  # it has not left yet
    peer.hear()
    assert peer.say(frames.ping_frame(bytes(8))) == [PingReceived(True)]


def test_the_answer_to_our_ping_is_reported() -> None:
    peer = Peer()
    peer.connection.ping(b"12345678")
    assert peer.hear() == [(frames.PING, 0, 0, b"12345678")]

    assert peer.say(frames.ping_frame(b"12345678", ack=True)) == [PingAcknowledged(b"12345678")]


def test_goaway_is_reported_with_what_it_says() -> None:
    peer = Peer()

    events = peer.say(frames.goaway_frame(5, frames.ENHANCE_YOUR_CALM, b"too_many_pings"))

    assert events == [GoAwayReceived(5, frames.ENHANCE_YOUR_CALM, b"too_many_pings")]
    assert peer.connection.peer_going_away
    assert not peer.connection.closed


def test_of_a_long_goaway_only_the_beginning_is_kept() -> None:
    peer = Peer()

    (event,) = peer.say(frames.goaway_frame(0, 0, bytes(10_000)))

    assert event == GoAwayReceived(0, 0, bytes(256))


def test_goaway_ends_the_streams_that_it_does_not_cover() -> None:
    """RFC 9113, 6.8: they were never looked at, and no other word will come for them."""
    peer = Peer(client=True).opened(5)

    events = peer.say(frames.goaway_frame(1, frames.NO_ERROR))

    assert events == [
        StreamReset(3, frames.REFUSED_STREAM, by_peer=True),
        StreamReset(5, frames.REFUSED_STREAM, by_peer=True),
        GoAwayReceived(1, frames.NO_ERROR, b""),
    ]
    assert list(peer.connection.streams) == [1]


def test_a_graceful_goaway_of_two_steps_ends_nothing_before_the_second() -> None:
    peer = Peer(client=True).opened(3)

    first = peer.say(frames.goaway_frame(2**31 - 1, frames.NO_ERROR))
    second = peer.say(frames.goaway_frame(3, frames.NO_ERROR))

    assert [type(event) for event in first + second] == [GoAwayReceived] * 2
    assert list(peer.connection.streams) == [1, 3]


@pytest.mark.parametrize("kind", [0x0A, 0x10, 0xFF])
def test_frames_of_unknown_types_are_ignored(kind: int) -> None:
    peer = Peer().opened()

    assert peer.say(frame(kind, 0xFF, 1, b"whatever"), frame(kind, 0, 0)) == []
    assert peer.hear() == []


def test_unknown_flags_and_the_reserved_bit_are_ignored() -> None:
    peer = Peer()

    (event,) = peer.say(frame(frames.PING, 0xFE, 1 << 31, b"12345678"))

    assert event == PingReceived(False)


def test_priority_is_read_and_forgotten() -> None:
    peer = Peer()

    assert peer.say(frame(frames.PRIORITY, 0, 99, bytes(5))) == []
    assert peer.hear() == []
    assert peer.connection.streams == {}
