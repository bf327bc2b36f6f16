"""How streams and connections end."""

from __future__ import annotations

import gc

import pytest
from tests.wire.peer import REQUEST, RESPONSE, TRAILERS, Peer, content, data_frame, wide

from konnectivity.errors import ConnectionFault, StreamFault
from konnectivity.wire import frames
from konnectivity.wire.http2 import Connection

# Streams


def test_an_end_without_backlog_is_an_empty_frame() -> None:
    peer = wide(client=True)
    peer.connection.end_stream(1)

    assert peer.hear() == [(frames.DATA, frames.END_STREAM, 1, b"")]


def test_an_end_with_backlog_rides_on_the_last_frame() -> None:
    peer = wide(client=True)
    peer.connection.send_data(1, bytes(16_385))
    peer.connection.end_stream(1)

    assert [(frame.flags, len(frame.payload)) for frame in peer.hear()] == [
        (0, 16_384),
        (frames.END_STREAM, 1),
    ]


def test_an_end_waits_for_credit_behind_its_data() -> None:
    peer = Peer(client=True, settings={frames.INITIAL_WINDOW_SIZE: 3}).opened()
    peer.connection.send_data(1, b"abcde")
    peer.connection.end_stream(1)

    assert peer.hear() == [(frames.DATA, 0, 1, b"abc")]
    peer.say(frames.window_update_frame(1, 2))
    assert peer.hear() == [(frames.DATA, frames.END_STREAM, 1, b"de")]


def test_trailers_follow_the_last_data_even_without_credit() -> None:
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 3})
    peer.say(peer.head(1, end_stream=True))
    peer.hear()
    peer.connection.send_headers(1, RESPONSE)
    peer.connection.send_data(1, b"abcde")
    peer.connection.end_stream(1, TRAILERS)

    head, data = peer.hear()
    assert peer.fields(head) == RESPONSE
    assert data == (frames.DATA, 0, 1, b"abc")
    peer.say(frames.window_update_frame(1, 2))
    data, trailers = peer.hear()
    assert data == (frames.DATA, 0, 1, b"de")
    assert trailers.flags == frames.END_HEADERS | frames.END_STREAM
    assert peer.fields(trailers) == TRAILERS
    assert peer.connection.streams == {}


def test_a_server_that_ends_first_has_no_use_for_the_rest_of_the_request() -> None:
    """RFC 9113, 8.1: RST_STREAM with NO_ERROR behind a complete response, as grpc-go does it."""
    peer = wide()
    peer.connection.send_headers(1, RESPONSE)
    peer.connection.end_stream(1, TRAILERS)

    head, trailers, end = peer.hear()

    assert [peer.fields(head), peer.fields(trailers)] == [RESPONSE, TRAILERS]
    assert end == (frames.RST_STREAM, 0, 1, bytes(4))
    assert peer.connection.streams == {}
    assert peer.say(data_frame(b"late"), data_frame(b"", end_stream=True)) == []
    assert peer.hear() == []


def test_a_refusal_in_one_head_ends_the_call() -> None:
    peer = Peer()
    peer.say(peer.head(1, end_stream=True))
    peer.hear()
    peer.connection.send_headers(1, [*RESPONSE, *TRAILERS], end_stream=True)

    (head,) = peer.hear()

    assert head.flags & frames.END_STREAM
    assert peer.fields(head) == [*RESPONSE, *TRAILERS]
    assert peer.connection.streams == {}


@pytest.mark.parametrize("backlog", [b"", b"waiting"])
def test_nothing_may_follow_the_end(backlog: bytes) -> None:
    peer = Peer(client=True, settings={frames.INITIAL_WINDOW_SIZE: 0}).opened()
    if backlog:
        peer.connection.send_data(1, backlog)
    peer.connection.end_stream(1)

    with pytest.raises(StreamFault):
        peer.connection.send_data(1, b"x")
    with pytest.raises(StreamFault):
        peer.connection.end_stream(1)
    with pytest.raises(StreamFault):
        peer.connection.send_headers(1, TRAILERS)


def test_a_reset_drops_what_waits() -> None:
    peer = wide()
    peer.connection.send_data(1, bytes(100_000))
    peer.connection.end_stream(1, TRAILERS)

    peer.connection.reset_stream(1, frames.CANCEL)
    peer.connection.reset_stream(1, frames.CANCEL)

    assert peer.hear() == [(frames.RST_STREAM, 0, 1, b"\0\0\0\x08")]
    assert peer.connection.streams == {}
    with pytest.raises(StreamFault, match="stream 1 is closed"):
        peer.connection.send_data(1, b"x")


@pytest.mark.parametrize("by_peer", [True, False])
def test_a_reset_takes_a_stream_out_of_the_queue_too(by_peer: bool) -> None:
    """A peer that grants no credit must not make us collect what it resets."""
    peer = wide()
    peer.say(peer.head(3))
    for stream_id in (1, 3):
        peer.connection.send_data(stream_id, bytes(10))

    if by_peer:
        peer.say(frames.reset_frame(1, frames.CANCEL))
    else:
        peer.connection.reset_stream(1, frames.CANCEL)

    assert [stream.id for stream in peer.connection._urgent] == [3]
    assert content(peer.hear()) == bytes(10)


def test_a_stream_that_ends_otherwise_leaves_the_queue_too() -> None:
    """As the shell gives up a peer that does not read: what waits goes, the status comes."""
    peer = wide()
    peer.connection.send_headers(1, RESPONSE)
    peer.connection.send_data(1, bytes(10))
    peer.connection.streams[1].drop()

    peer.connection.end_stream(1, TRAILERS)

    assert len(peer.connection._ready) + len(peer.connection._urgent) == 0
    assert [frame.kind for frame in peer.hear()] == [
        frames.HEADERS,
        frames.HEADERS,
        frames.RST_STREAM,
    ]


# Connections


def test_our_goaway_names_the_last_stream_we_looked_at() -> None:
    peer = Peer().opened(5)
    peer.connection.go_away(frames.NO_ERROR, b"bye")

    assert peer.hear() == [(frames.GOAWAY, 0, 0, b"\0\0\0\x05\0\0\0\0bye")]


def test_behind_our_goaway_new_streams_are_refused_and_the_old_ones_go_on() -> None:
    peer = wide()
    peer.connection.go_away(frames.NO_ERROR)
    peer.hear()

    assert peer.say(peer.head(3)) == []
    assert peer.hear() == [(frames.RST_STREAM, 0, 3, b"\0\0\0\x07")]
    assert len(peer.say(data_frame(b"more"))) == 1
    peer.connection.send_data(1, b"answer")
    assert content(peer.hear()) == b"answer"


def test_a_second_goaway_covers_no_more_streams_than_the_first() -> None:
    """RFC 9113, 6.8: the last stream id must not increase."""
    peer = Peer().opened(1)
    peer.connection.go_away(frames.NO_ERROR)
    peer.say(peer.head(3))
    peer.hear()

    peer.connection.go_away(frames.NO_ERROR)

    assert peer.hear()[0].payload == bytes(3) + b"\x01" + bytes(4)


def test_nothing_follows_a_goaway_with_an_error() -> None:
    peer = wide()
    peer.connection.send_data(1, bytes(100_000))
    peer.connection.go_away(frames.ENHANCE_YOUR_CALM, b"too_many_pings")
    peer.connection.send_data(1, bytes(100_000))

    assert [frame.kind for frame in peer.hear()] == [frames.GOAWAY]
    assert peer.hear() == []
    assert peer.say(peer.head(3)) == []
    with pytest.raises(ConnectionFault, match="no new streams"):
        peer.connection.open_stream(REQUEST)


def test_a_connection_without_transport_takes_no_more_input() -> None:
    peer = Peer().opened()
    peer.connection.detach()
    peer.connection.detach()

    assert peer.say(peer.head(3)) == []
    with pytest.raises(ConnectionFault, match="no new streams"):
        peer.connection.open_stream(REQUEST)


def connections() -> int:
    """How many there are. Compiled ones take no weak references, and are counted just so."""
    return sum(type(each) is Connection for each in gc.get_objects())


def test_a_connection_without_transport_is_freed_at_once() -> None:
    """Each tunnel of kube-apiserver is a connection: they must not wait for the collector."""
    gc.collect()
    gc.disable()
    try:
        before = connections()
        connection = Connection(client=False)
        assert connections() == before + 1
        connection.detach()
        del connection
        assert connections() == before
    finally:
        gc.enable()
