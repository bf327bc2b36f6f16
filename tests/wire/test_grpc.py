"""gRPC heads and status, and messages cut out of a stream's content."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konnectivity.errors import RpcError
from konnectivity.wire import grpc
from konnectivity.wire.grpc import MessageReader, Oversized


def read(reader: MessageReader, *pieces: bytes) -> list[bytes | tuple[int, bytes]]:
    """Messages as bytes, oversized ones as their size and head."""
    return [
        (found.size, found.head) if isinstance(found, Oversized) else bytes(found)
        for piece in pieces
        for found in reader.feed(memoryview(piece))
    ]


# Heads


def test_a_request_head_is_what_grpc_wants() -> None:
    headers = grpc.request_headers(
        grpc.CONNECT, authority="server:8091", metadata=[("agentid", "a"), ("agentid", "b")]
    )

    assert headers == [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/AgentService/Connect"),
        (":authority", "server:8091"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("agentid", "a"),
        ("agentid", "b"),
    ]


def test_a_unix_socket_has_the_scheme_http() -> None:
    headers = grpc.request_headers(grpc.PROXY, authority="localhost", metadata=[], scheme="http")

    assert (":scheme", "http") in headers


def test_a_response_head_carries_metadata() -> None:
    assert grpc.response_headers() == [(":status", "200"), ("content-type", "application/grpc")]
    assert grpc.response_headers([("serverid", "s")])[-1] == ("serverid", "s")


def test_metadata_may_have_several_values() -> None:
    headers = [("agentid", "a"), ("other", "x"), ("agentid", "b")]

    assert grpc.metadata_values(headers, "agentid") == ["a", "b"]
    assert grpc.metadata_values(headers, "none") == []


# Status


def test_trailers_carry_the_status_and_its_message() -> None:
    assert grpc.trailers(grpc.OK) == [("grpc-status", "0")]
    assert grpc.trailers(grpc.UNKNOWN, "expected one agent ID in the context, got [a b]") == [
        ("grpc-status", "2"),
        ("grpc-message", "expected one agent ID in the context, got [a b]"),
    ]


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("100% sure", "100%25 sure"),
        ("two\r\nlines\t", "two%0D%0Alines%09"),
        ("größe", "gr%C3%B6%C3%9Fe"),
        ("\x7f\0", "%7F%00"),
        ("~!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}", "~!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}"),
        ("\ud800", "?"),
    ],
)
def test_all_but_printable_ascii_is_percent_encoded(text: str, encoded: str) -> None:
    assert grpc.trailers(grpc.INTERNAL, text)[1] == ("grpc-message", encoded)


@pytest.mark.parametrize(
    ("encoded", "text"),
    [
        ("100%25 sure", "100% sure"),
        ("gr%c3%B6%C3%9fe", "größe"),
        ("plain+text", "plain+text"),
        ("100% sure %", "100% sure %"),
        ("%zz%2", "%zz%2"),
        ("%ff", "�"),
        ("größe".encode().decode("latin-1"), "größe"),  # a peer that does not encode
    ],
)
def test_messages_are_decoded_as_far_as_they_can_be(encoded: str, text: str) -> None:
    error = grpc.status([("grpc-status", "13"), ("grpc-message", encoded)])

    assert error is not None
    assert error.message == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_message_survives_the_trip(text: str) -> None:
    error = grpc.status(grpc.trailers(grpc.UNAVAILABLE, text))

    assert error is not None
    assert (error.code, error.message) == (grpc.UNAVAILABLE, text)


@given(st.text(st.characters(max_codepoint=255)), st.text(st.characters(max_codepoint=255)))
def test_no_status_raises(code: str, text: str) -> None:
    error = grpc.status([("grpc-status", code), ("grpc-message", text)])

    assert (error is None) == (code.isascii() and code.isdigit() and int(code) == 0)


def test_ok_is_no_error() -> None:
    assert grpc.status([*grpc.response_headers(), ("grpc-status", "0")]) is None


@pytest.mark.parametrize("text", ["", "x", "-1", "²", "1" * 5000, "0x0"])
def test_a_status_that_is_no_number_is_unknown(text: str) -> None:
    error = grpc.status([("grpc-status", text)])

    assert error is not None
    assert error.code == grpc.UNKNOWN


@pytest.mark.parametrize(
    ("http", "code"),
    [
        ("400", grpc.INTERNAL),
        ("401", 16),
        ("403", 7),
        ("404", grpc.UNIMPLEMENTED),
        ("429", grpc.UNAVAILABLE),
        ("502", grpc.UNAVAILABLE),
        ("503", grpc.UNAVAILABLE),
        ("504", grpc.UNAVAILABLE),
        ("200", grpc.UNKNOWN),
        ("500", grpc.UNKNOWN),
    ],
)
def test_a_head_without_a_grpc_status_is_judged_by_its_http_status(http: str, code: int) -> None:
    error = grpc.status([(":status", http)])

    assert error is not None
    assert error.code == code
    assert f"(HTTP {http})" in str(error)


def test_trailers_without_a_status_are_an_error() -> None:
    error = grpc.status([("x", "y")])

    assert error is not None
    assert error.code == grpc.INTERNAL


def test_a_refusal_is_head_and_status_in_one() -> None:
    assert grpc.refusal(grpc.UNIMPLEMENTED, "unknown service X") == [
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("grpc-status", "12"),
        ("grpc-message", "unknown service X"),
    ]


# Messages


def test_a_message_has_five_bytes_before_it() -> None:
    assert grpc.message(b"abc") == b"\0\0\0\0\x03abc"


def test_messages_look_into_the_bytes_that_arrived() -> None:
    data = grpc.message(b"abc") + grpc.message(b"") + grpc.message(b"de")

    first, empty, last = MessageReader().feed(memoryview(data))

    assert isinstance(first, memoryview)
    assert first.obj is data
    assert (bytes(first), bytes(empty), bytes(last)) == (b"abc", b"", b"de")  # type: ignore[arg-type]


LIMIT = 100
MESSAGES = st.lists(st.one_of(st.binary(max_size=20), st.integers(95, 400)), max_size=6)


@given(MESSAGES, st.lists(st.integers(0, 2000), max_size=12), st.sampled_from([5, 30, LIMIT]))
def test_any_split_gives_the_same_messages(
    messages: list[bytes | int], cuts: list[int], limit: int
) -> None:
    payloads = [
        item if isinstance(item, bytes) else bytes(n % 256 for n in range(item))
        for item in messages
    ]
    stream = b"".join(grpc.message(payload) for payload in payloads)
    points = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    pieces = [stream[a:b] for a, b in pairwise(points)]

    found = read(MessageReader(limit), b"", *pieces)

    assert found == [p if len(p) <= limit else (len(p), p[:64]) for p in payloads]


@given(st.lists(st.binary(max_size=30)))
def test_no_content_raises_anything_but_an_rpc_error(pieces: list[bytes]) -> None:
    reader = MessageReader(50)
    with suppress(RpcError):
        for piece in pieces:
            reader.feed(memoryview(piece))


def test_w13_an_oversized_message_is_skipped_and_the_next_one_is_intact() -> None:
    big = bytes(range(256)) * 40_000
    stream = grpc.message(b"before") + grpc.message(big) + grpc.message(b"behind")
    reader = MessageReader()
    found = []
    for at in range(0, len(stream), 16_384):
        found += reader.feed(memoryview(stream)[at : at + 16_384])

    before, oversized, behind = found
    assert isinstance(oversized, Oversized)
    assert (oversized.size, oversized.head) == (len(big), big[: MessageReader.HEAD])
    assert (bytes(before), bytes(behind)) == (b"before", b"behind")  # type: ignore[arg-type]


def test_w13_an_oversized_message_is_reported_at_once_and_costs_no_memory() -> None:
    reader = MessageReader()
    head = b"\0\xff\xff\xff\xff" + bytes(MessageReader.HEAD)

    (oversized,) = reader.feed(memoryview(head))
    assert isinstance(oversized, Oversized)
    tracemalloc.start()
    for _ in range(1000):
        assert reader.feed(memoryview(bytes(16_384))) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert oversized.size == 2**32 - 1
    assert peak < 100_000


@pytest.mark.parametrize("size", [6, 63, 64, 65, 200])
def test_the_head_of_an_oversized_message_ends_with_the_message(size: int) -> None:
    payload = bytes(range(size))

    (oversized, behind) = MessageReader(5).feed(
        memoryview(grpc.message(payload) + grpc.message(b"next"))
    )

    assert isinstance(oversized, Oversized)
    assert oversized.head == payload[:64]
    assert bytes(behind) == b"next"  # type: ignore[arg-type]


def test_a_message_of_exactly_the_limit_is_read() -> None:
    payload = bytes(grpc.MAX_MESSAGE)

    assert read(MessageReader(), grpc.message(payload)) == [payload]
    assert read(MessageReader(), grpc.message(payload + b"x")) == [
        (grpc.MAX_MESSAGE + 1, bytes(64))
    ]


def test_a_message_in_tiny_frames_costs_its_own_size() -> None:
    """Two bytes a frame must not become an object a frame."""
    reader = MessageReader()
    stream = grpc.message(bytes(200_000))
    tracemalloc.start()
    for at in range(0, len(stream) - 2, 2):
        assert reader.feed(memoryview(stream)[at : at + 2]) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 2 * 200_000


def test_a_claim_of_a_large_message_costs_nothing_before_it_comes() -> None:
    tracemalloc.start()
    readers = [MessageReader() for _ in range(100)]
    for reader in readers:
        reader.feed(memoryview(b"\0\0\x40\0\0"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 100_000


@pytest.mark.parametrize("early", [0, 1, 4])
def test_a_compressed_message_is_refused_by_its_flag(early: int) -> None:
    reader = MessageReader()
    head = memoryview(b"\x01\0\0\0\x09")
    assert reader.feed(head[:early]) == []

    with pytest.raises(RpcError, match="compressed") as caught:
        reader.feed(head[early:])

    assert caught.value.code == grpc.UNIMPLEMENTED
