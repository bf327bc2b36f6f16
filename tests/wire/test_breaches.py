"""Every rule of RFC 9113 that a peer can break, and what it costs the peer."""

from __future__ import annotations

import pytest
from tests.wire.peer import (
    REQUEST,
    TRAILERS,
    Peer,
    data_frame,
    ended,
    headers_frame,
    reset,
)

from konnectivity.wire import frames
from konnectivity.wire.events import DataReceived, StreamReset

frame = frames.frame
CONNECTION_FAULTS = {
    # DATA (6.1)
    "DATA on stream 0": (data_frame(b"x", stream_id=0), frames.PROTOCOL_ERROR),
    "DATA on an idle stream": (data_frame(b"x", stream_id=3), frames.PROTOCOL_ERROR),
    "DATA on a stream that only a server could open": (
        data_frame(b"x", stream_id=2),
        frames.PROTOCOL_ERROR,
    ),
    "DATA whose padding is as long as the frame": (
        frame(frames.DATA, frames.PADDED, 1, b"\x06abcde"),
        frames.PROTOCOL_ERROR,
    ),
    "DATA that is padded but empty": (
        frame(frames.DATA, frames.PADDED, 1),
        frames.PROTOCOL_ERROR,
    ),
    # HEADERS, CONTINUATION (6.2, 6.10)
    "HEADERS on stream 0": (headers_frame(b"\x82", stream_id=0), frames.PROTOCOL_ERROR),
    "HEADERS on stream 0 that go on": (
        headers_frame(b"\x82", stream_id=0, end_headers=False),
        frames.PROTOCOL_ERROR,
    ),
    "HEADERS on an even stream": (headers_frame(b"\x82", stream_id=4), frames.PROTOCOL_ERROR),
    "HEADERS whose padding is too long": (
        frame(frames.HEADERS, frames.PADDED | frames.END_HEADERS, 3, b"\x09\x82"),
        frames.PROTOCOL_ERROR,
    ),
    "HEADERS too short for a priority": (
        frame(frames.HEADERS, frames.PRIORITY_FLAG | frames.END_HEADERS, 3, b"\0\0\0\0"),
        frames.FRAME_SIZE_ERROR,
    ),
    "a header block that is no HPACK": (headers_frame(b"\x80"), frames.COMPRESSION_ERROR),
    "a header block cut off": (headers_frame(b"\x00\x05ab"), frames.COMPRESSION_ERROR),
    "a table size beyond the one we allow": (
        headers_frame(b"\x3f\xe1\xff\x03"),
        frames.COMPRESSION_ERROR,
    ),
    "CONTINUATION without HEADERS": (
        frame(frames.CONTINUATION, frames.END_HEADERS, 1, b"\x82"),
        frames.PROTOCOL_ERROR,
    ),
    "CONTINUATION without HEADERS that goes on": (
        frame(frames.CONTINUATION, 0, 1, b"\x82"),
        frames.PROTOCOL_ERROR,
    ),
    "DATA inside a header block": (
        headers_frame(b"\x82", stream_id=3, end_headers=False) + data_frame(b"x", stream_id=3),
        frames.PROTOCOL_ERROR,
    ),
    "PING inside a header block": (
        headers_frame(b"\x82", stream_id=3, end_headers=False) + frames.ping_frame(bytes(8)),
        frames.PROTOCOL_ERROR,
    ),
    "an unknown frame inside a header block": (
        headers_frame(b"\x82", stream_id=3, end_headers=False) + frame(0x42, 0, 3),
        frames.PROTOCOL_ERROR,
    ),
    "CONTINUATION of another stream": (
        headers_frame(b"\x82", stream_id=3, end_headers=False)
        + frame(frames.CONTINUATION, frames.END_HEADERS, 5, b"\x82"),
        frames.PROTOCOL_ERROR,
    ),
    # PRIORITY (6.3)
    "PRIORITY on stream 0": (frame(frames.PRIORITY, 0, 0, bytes(5)), frames.PROTOCOL_ERROR),
    "PRIORITY of four bytes": (frame(frames.PRIORITY, 0, 1, bytes(4)), frames.FRAME_SIZE_ERROR),
    # RST_STREAM (6.4)
    "RST_STREAM on stream 0": (frames.reset_frame(0, 8), frames.PROTOCOL_ERROR),
    "RST_STREAM on an idle stream": (frames.reset_frame(3, 8), frames.PROTOCOL_ERROR),
    "RST_STREAM of three bytes": (
        frame(frames.RST_STREAM, 0, 1, bytes(3)),
        frames.FRAME_SIZE_ERROR,
    ),
    # SETTINGS (6.5)
    "SETTINGS on a stream": (frame(frames.SETTINGS, 0, 1), frames.PROTOCOL_ERROR),
    "SETTINGS of five bytes": (frame(frames.SETTINGS, 0, 0, bytes(5)), frames.FRAME_SIZE_ERROR),
    "an acknowledgement with settings": (
        frame(frames.SETTINGS, frames.ACK, 0, bytes(6)),
        frames.FRAME_SIZE_ERROR,
    ),
    "ENABLE_PUSH of 2": (frames.settings_frame({frames.ENABLE_PUSH: 2}), frames.PROTOCOL_ERROR),
    "an initial window of 2^31": (
        frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 2**31}),
        frames.FLOW_CONTROL_ERROR,
    ),
    "a frame size below 16384": (
        frames.settings_frame({frames.MAX_FRAME_SIZE: 16_383}),
        frames.PROTOCOL_ERROR,
    ),
    "a frame size of 2^24": (
        frames.settings_frame({frames.MAX_FRAME_SIZE: 2**24}),
        frames.PROTOCOL_ERROR,
    ),
    "an initial window that makes a stream's window too large": (
        frames.window_update_frame(1, 1) + frames.settings_frame({4: 2**31 - 1}),
        frames.FLOW_CONTROL_ERROR,
    ),
    # PUSH_PROMISE (6.6, 8.4)
    "PUSH_PROMISE": (frame(frames.PUSH_PROMISE, 4, 1, bytes(4)), frames.PROTOCOL_ERROR),
    # PING (6.7)
    "PING on a stream": (frame(frames.PING, 0, 1, bytes(8)), frames.PROTOCOL_ERROR),
    "PING of seven bytes": (frame(frames.PING, 0, 0, bytes(7)), frames.FRAME_SIZE_ERROR),
    # GOAWAY (6.8)
    "GOAWAY on a stream": (frame(frames.GOAWAY, 0, 1, bytes(8)), frames.PROTOCOL_ERROR),
    "GOAWAY of seven bytes": (frame(frames.GOAWAY, 0, 0, bytes(7)), frames.FRAME_SIZE_ERROR),
    # WINDOW_UPDATE (6.9)
    "WINDOW_UPDATE of three bytes": (
        frame(frames.WINDOW_UPDATE, 0, 1, bytes(3)),
        frames.FRAME_SIZE_ERROR,
    ),
    "WINDOW_UPDATE by 0": (frames.window_update_frame(0, 0), frames.PROTOCOL_ERROR),
    "WINDOW_UPDATE on an idle stream": (
        frames.window_update_frame(3, 1),
        frames.PROTOCOL_ERROR,
    ),
    "a connection window beyond 2^31-1": (
        frames.window_update_frame(0, 2**31 - 65_535),
        frames.FLOW_CONTROL_ERROR,
    ),
}


@pytest.mark.parametrize(("raw", "code"), CONNECTION_FAULTS.values(), ids=CONNECTION_FAULTS)
def test_a_breach_that_concerns_all_streams_ends_the_connection(raw: bytes, code: int) -> None:
    peer = Peer().opened()

    fault = ended(peer.say(raw))

    assert fault.code == code
    assert fault.message
    assert peer.connection.closed
    goaway = peer.hear()[-1]
    assert (goaway.kind, goaway.stream_id, goaway.number) == (frames.GOAWAY, 0, code)
    assert goaway.payload[:4] == b"\0\0\0\x01"  # the last stream that was accepted
    assert goaway.payload[8:] == fault.message.encode()[:256]
    assert peer.say(data_frame(b"more")) == []  # what follows is not looked at


def test_a_window_that_is_too_large_is_one_without_streams_too() -> None:
    settings = frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 2**31})

    assert ended(Peer().say(settings)).code == frames.FLOW_CONTROL_ERROR


def test_the_last_byte_of_a_stream_window_is_no_fault() -> None:
    peer = Peer().opened()

    assert peer.say(frames.window_update_frame(1, 2**31 - 1 - 65_535)) == []
    assert reset(peer.say(frames.window_update_frame(1, 1))).code == frames.FLOW_CONTROL_ERROR


def test_the_last_byte_of_a_connection_window_is_no_fault() -> None:
    peer = Peer()

    assert peer.say(frames.window_update_frame(0, 2**31 - 1 - 65_535)) == []
    assert ended(peer.say(frames.window_update_frame(0, 1))).code == frames.FLOW_CONTROL_ERROR


def test_a_fault_in_a_header_block_quotes_none_of_it() -> None:
    peer = Peer()
    block = peer.block([*REQUEST, ("authorization", "Bearer secret")])

    fault = ended(peer.say(headers_frame(block[:-1])))

    assert fault.message == "a header block does not decode (RFC 7541)"


# One stream at fault


def test_data_behind_the_end_of_a_stream_resets_it() -> None:
    peer = Peer()
    peer.say(peer.head(1, end_stream=True))

    fault = reset(peer.say(data_frame(b"x")))

    assert (fault.stream_id, fault.code) == (1, frames.STREAM_CLOSED)
    assert 1 not in peer.connection.streams


def test_headers_behind_the_end_of_a_stream_reset_it() -> None:
    peer = Peer()
    peer.say(peer.head(1, end_stream=True))

    fault = reset(peer.say(peer.head(1, TRAILERS, end_stream=True)))

    assert fault.code == frames.STREAM_CLOSED


def test_trailers_must_end_their_stream() -> None:
    peer = Peer().opened()

    fault = reset(peer.say(peer.head(1, TRAILERS)))

    assert fault.code == frames.PROTOCOL_ERROR
    assert "END_STREAM" in fault.message


@pytest.mark.parametrize(
    ("increment", "code"),
    [(0, frames.PROTOCOL_ERROR), (2**31 - 65_535, frames.FLOW_CONTROL_ERROR)],
)
def test_a_wrong_window_update_resets_its_stream(increment: int, code: int) -> None:
    peer = Peer().opened(1)
    peer.say(peer.head(3))

    fault = reset(peer.say(frames.window_update_frame(1, increment)))

    assert (fault.stream_id, fault.code) == (1, code)
    assert list(peer.connection.streams) == [3]


def test_a_stream_fault_leaves_the_other_streams_alone() -> None:
    peer = Peer().opened()
    peer.say(peer.head(3))

    events = peer.say(
        data_frame(b"before", stream_id=3),
        frames.window_update_frame(1, 0),
        data_frame(b"behind", stream_id=3),
    )

    assert [type(event) for event in events] == [DataReceived, StreamReset, DataReceived]
    assert peer.hear() == [(frames.RST_STREAM, 0, 1, b"\0\0\0\x01")]
