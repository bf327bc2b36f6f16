"""The queue of one stream."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from konnectivity.wire.stream import Stream


def stream() -> Stream:
    return Stream(1, send_window=100, receive_window=100)


def test_data_comes_out_in_the_sizes_asked_for() -> None:
    queue = stream()
    queue.push(b"abcdef")
    queue.push(b"gh")

    assert b"".join(queue.pull(4)) == b"abcd"
    assert queue.backlog == 4
    assert b"".join(queue.pull(4)) == b"efgh"
    assert queue.backlog == 0


def test_whole_pieces_are_not_copied() -> None:
    queue = stream()
    data = b"a" * 1000
    queue.push(data)

    assert queue.pull(1000)[0] is data


def test_a_dropped_stream_has_nothing_left() -> None:
    queue = stream()
    queue.push(b"abc")
    queue.ending = True
    queue.trailers = [("grpc-status", "0")]

    queue.drop()

    assert (queue.backlog, queue.ending, queue.trailers) == (0, False, None)
    queue.push(b"xyz")
    assert b"".join(queue.pull(3)) == b"xyz"


@given(st.lists(st.one_of(st.binary(max_size=20), st.integers(0, 30))))
def test_no_byte_is_lost_or_reordered(steps: list[bytes | int]) -> None:
    queue = stream()
    pushed = pulled = b""
    for step in steps:
        if isinstance(step, bytes):
            queue.push(step)
            pushed += step
        else:
            pulled += b"".join(queue.pull(min(step, queue.backlog)))
        assert queue.backlog == len(pushed) - len(pulled)
    assert pulled + b"".join(queue.pull(queue.backlog)) == pushed
