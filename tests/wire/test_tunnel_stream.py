"""How a tunnel's stream begins and ends: header blocks, paths, chunks, resets behind data."""

from __future__ import annotations

import pytest
from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.peer import REQUEST, Peer, content, wide

from konnectivity.errors import StreamFault
from konnectivity.wire import frames, tunnel_stream
from konnectivity.wire.events import DataReceived, HeadersReceived, StreamReset
from konnectivity.wire.http2 import Connection
from konnectivity.wire.limits import Http2Limits
from konnectivity.wire.sending import QUANTUM
from konnectivity.wire.windows import FAST, GrowingWindow, WindowPool

DIALS = st.integers(-(2**63), 2**63 - 1)
NUMBERS = st.integers(1, 2**63 - 1)


@given(DIALS, NUMBERS)
def test_any_decoder_reads_our_request_and_so_do_we(dial_id: int, connect_id: int) -> None:
    block = tunnel_stream.request_block(dial_id, connect_id)

    theirs = [(str(name), str(value)) for name, value in Decoder().decode(block)]

    assert tunnel_stream.plain_fields(block) == theirs
    assert tunnel_stream.parse_path(dict(theirs)[":path"]) == (dial_id, connect_id)


def test_any_decoder_reads_our_answer_and_so_do_we() -> None:
    theirs = [tuple(field) for field in Decoder().decode(tunnel_stream.RESPONSE)]

    assert tunnel_stream.plain_fields(tunnel_stream.RESPONSE) == theirs == [(":status", "200")]


@given(st.binary(max_size=140))
def test_other_blocks_are_left_to_the_decoder_or_read_as_it_would(rest: bytes) -> None:
    for block in (rest, tunnel_stream.REQUEST_HEAD + rest):
        fields = tunnel_stream.plain_fields(block)
        if fields is not None:
            theirs = Decoder().decode(block, raw=True)
            assert fields == [(n.decode("latin-1"), v.decode("latin-1")) for n, v in theirs]


@pytest.mark.parametrize(
    "rest", ["", "/", "1", "1/", "/1", "--1/1", "1/-1", "1/1/1", "x/1", "1/²", "1/" + "1" * 20]
)
def test_a_path_that_names_no_dial_is_none(rest: str) -> None:
    assert tunnel_stream.parse_path(tunnel_stream.PATH + rest) is None


def test_blocks_of_tunnels_leave_the_table_of_the_connection_alone() -> None:
    """Whatever was sent before and comes after, both ends agree on HPACK's table."""
    client, server = Connection(client=True), Connection(client=False)
    heads = []
    for number in range(3):
        client.open_stream([*REQUEST, ("x-number", str(number))])
        client.open_stream(tunnel_stream.request_block(number, number + 1))
        heads += [
            event.headers
            for event in server.receive_data(client.data_to_send(), 0.0)
            if isinstance(event, HeadersReceived)
        ]

    assert [head[-1][1] for head in heads[::2]] == ["0", "1", "2"]
    paths = [dict(head)[":path"] for head in heads[1::2]]
    assert [tunnel_stream.parse_path(path) for path in paths] == [(0, 1), (1, 2), (2, 3)]


# Chunks


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 150_000)), max_size=6), st.integers(0, 3))
def test_chunks_and_other_content_keep_their_order(
    pieces: list[tuple[bool, int]], turns: int
) -> None:
    peer = wide()
    sent = b""
    heard = b""
    for number, (chunk, size) in enumerate(pieces):
        data = bytes([number]) * size
        send = peer.connection.send_chunk if chunk else peer.connection.send_data
        send(1, data)
        sent += data
        if turns and number % turns == 0:
            heard += content(peer.hear())

    assert heard + content(peer.hear()) == sent


def test_the_buffer_of_a_chunk_may_be_used_again() -> None:
    peer = wide()
    buffer = bytearray(b"first" + bytes(QUANTUM))
    for size in (5, QUANTUM):  # the second does not fit into the turn: it waits
        peer.connection.send_chunk(1, memoryview(buffer)[:size])
    buffer[:5] = b"later"

    assert content(peer.hear()) == b"first" + b"first" + bytes(QUANTUM - 5)


def test_a_chunk_waits_for_its_window_like_all_content() -> None:
    peer = Peer().opened()

    for _ in range(3):
        peer.connection.send_chunk(1, bytes(30_000))

    assert len(content(peer.hear())) == 65_535


def test_nothing_is_sent_on_a_stream_that_is_closed() -> None:
    peer = wide()
    peer.connection.reset_stream(1, frames.CANCEL)

    with pytest.raises(StreamFault):
        peer.connection.send_chunk(1, b"late")


# Resets behind data


@pytest.mark.parametrize("size", [0, 10, 100_000])
def test_a_reset_follows_the_bytes_that_were_sent_before(size: int) -> None:
    peer = wide()
    if size:
        peer.connection.send_chunk(1, bytes(size))

    peer.connection.leave_stream(1, frames.CONNECT_ERROR)
    heard = peer.hear()

    assert content(heard) == bytes(size)
    assert [frame.kind for frame in heard][-1] == frames.RST_STREAM
    assert 1 not in peer.connection.streams


def test_a_reset_waits_for_the_window_with_its_bytes_and_is_told_when_it_is_sent() -> None:
    peer = Peer().opened()
    peer.connection.send_chunk(1, bytes(60_000))
    peer.connection.send_chunk(1, bytes(60_000))
    peer.hear()

    assert not peer.connection.leave_stream(1, frames.NO_ERROR)
    assert peer.connection.take_writable() == []
    peer.say(frames.window_update_frame(0, 1 << 20) + frames.window_update_frame(1, 1 << 20))
    assert [frame.kind for frame in peer.hear()][-1] == frames.RST_STREAM
    assert peer.connection.take_writable() == [1]


def test_resets_of_streams_that_were_asked_for_are_no_flood() -> None:
    peer = Peer()
    for stream_id in range(1, 8001, 2):
        peer.say(peer.head(stream_id))
        peer.connection.streams[stream_id].expected = True
        assert peer.say(frames.reset_frame(stream_id, frames.CONNECT_ERROR)) == [
            StreamReset(stream_id, frames.CONNECT_ERROR, by_peer=True)
        ]


# Windows that grow


def grown(pool: WindowPool, *, every: float, largest: int = 1 << 20) -> GrowingWindow:
    """A window of 64 KiB after 40 halves of it were consumed, one `every` so many seconds."""
    window = GrowingWindow(1 << 16, pool)
    for number in range(40):
        half = window.size // 2
        assert window.take(half)
        assert window.consume(half) == half
        window.grow(number * every, largest=largest)
    return window


def test_a_window_grows_while_its_reader_is_fast() -> None:
    pool = WindowPool(1 << 30)

    window = grown(pool, every=FAST / 2)

    assert window.size == window.available == 1 << 20
    assert pool.free == (1 << 30) - (1 << 20) + (1 << 16)
    window.close()
    assert pool.free == 1 << 30


def test_a_window_stays_as_it_is_where_its_reader_is_slow() -> None:
    assert grown(WindowPool(1 << 30), every=FAST * 1.1).size == 1 << 16


def test_windows_grow_no_further_than_their_pool() -> None:
    pool = WindowPool(100_000)

    assert grown(pool, every=0.0).size == 1 << 17
    assert grown(pool, every=0.0).size == 1 << 16
    assert pool.free >= 0


def test_what_a_connection_grew_by_goes_back_with_it() -> None:
    pool = WindowPool(1 << 20)
    peer = Peer(limits=Http2Limits(stream_window=1 << 16))
    connection = peer.connection
    peer.say(peer.head(1))
    connection.let_grow(1, pool)
    for _ in range(20):
        size = connection.streams[1].receive_window.size // 2
        for at in range(0, size, 16_384):
            (event,) = peer.say(frames.frame(frames.DATA, 0, 1, bytes(min(16_384, size - at))))
            assert isinstance(event, DataReceived)
        connection.consume(1, size)
    assert pool.free < 1 << 20

    connection.detach()

    assert pool.free == 1 << 20
