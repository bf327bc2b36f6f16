"""Packets: bytes by hand, round trips, garbage, and the quick look into DATA."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from konnectivity.errors import PacketError
from konnectivity.wire import packet
from konnectivity.wire.packet import (
    Packet,
    data_head,
    data_prefix,
    decode,
    encode,
    peek_data,
    peek_tunnel,
    read_varint,
    varint,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)

PACKETS = st.one_of(
    st.builds(Packet, st.just(packet.DIAL_REQ), random=INT64, protocol=TEXT, address=TEXT),
    st.builds(Packet, st.just(packet.DIAL_RSP), random=INT64, connect_id=INT64, error=TEXT),
    st.builds(Packet, st.just(packet.CLOSE_REQ), connect_id=INT64),
    st.builds(Packet, st.just(packet.CLOSE_RSP), connect_id=INT64, error=TEXT),
    st.builds(
        Packet,
        st.just(packet.DATA),
        connect_id=INT64,
        error=TEXT,
        data=st.one_of(st.binary(), st.integers(0, 40_000).map(bytes)),
    ),
    st.builds(Packet, st.just(packet.DIAL_CLS), random=INT64),
    st.just(Packet(packet.DRAIN)),
    st.builds(Packet, st.just(packet.CREDIT), connect_id=INT64, size=st.integers(0, 2**63 - 1)),
)

# Bytes by hand


@pytest.mark.parametrize(
    ("item", "encoded"),
    [
        (
            Packet(packet.DIAL_REQ, protocol="tcp", address="a:1", random=300),
            b"\x12\x0d\x0a\x03tcp\x12\x03a:1\x18\xac\x02",  # a dial has no field 1 at all
        ),
        (
            Packet(packet.DIAL_RSP, error="no", random=1),
            b"\x08\x01\x1a\x06\x0a\x02no\x18\x01",
        ),
        (Packet(packet.DIAL_RSP, connect_id=5, random=1), b"\x08\x01\x1a\x04\x10\x05\x18\x01"),
        (Packet(packet.CLOSE_REQ, connect_id=5), b"\x08\x02\x2a\x02\x08\x05"),
        (
            Packet(packet.CLOSE_RSP, connect_id=5, error="x"),
            b"\x08\x03\x32\x05\x0a\x01x\x10\x05",
        ),
        (Packet(packet.DATA, connect_id=5, data=b"ab"), b"\x08\x04\x22\x06\x08\x05\x1a\x02ab"),
        (
            Packet(packet.DATA, connect_id=5, data=b"ab", error="e"),
            b"\x08\x04\x22\x09\x08\x05\x12\x01e\x1a\x02ab",
        ),
        (Packet(packet.DIAL_CLS, random=7), b"\x08\x05\x3a\x02\x08\x07"),
        (Packet(packet.DRAIN), b"\x08\x06\x42\x00"),
        (
            Packet(packet.CREDIT, connect_id=5, size=9),
            b"\x08\x40\x82\x04\x04\x08\x05\x10\x09",
        ),
        (Packet(packet.CLOSE_REQ, connect_id=-1), b"\x08\x02\x2a\x0b\x08" + b"\xff" * 9 + b"\x01"),
    ],
    ids=lambda value: value.name if isinstance(value, Packet) else "",
)
def test_packets_have_the_bytes_of_the_schema(item: Packet, encoded: bytes) -> None:
    assert encode(item) == encoded
    assert decode(encoded) == item


@given(PACKETS)
def test_what_was_encoded_decodes_to_the_same(item: Packet) -> None:
    assert decode(encode(item)) == item
    assert decode(memoryview(encode(item))) == item


@pytest.mark.parametrize("kind", [7, 63, 65, -1, 1 << 20])
def test_only_known_kinds_are_encoded(kind: int) -> None:
    with pytest.raises(PacketError, match=f"type {kind}"):
        encode(Packet(kind))


def test_every_kind_has_its_name() -> None:
    names = [Packet(kind).name for kind in range(8)]

    assert names[:4] == ["DIAL_REQ", "DIAL_RSP", "CLOSE_REQ", "CLOSE_RSP"]
    assert names[4:] == ["DATA", "DIAL_CLS", "DRAIN", "7"]
    assert Packet(packet.CREDIT).name == "CREDIT"
    assert Packet(-1).name == "-1"


# What other peers may send


@pytest.mark.parametrize("kind", [*range(7), 64])
def test_w18_a_payload_that_is_missing_counts_as_empty(kind: int) -> None:
    assert decode(varint(8) + varint(kind)) == Packet(kind)


def test_w18_no_bytes_at_all_are_a_dial_without_payload() -> None:
    assert decode(b"") == Packet(packet.DIAL_REQ)


def test_w18_the_payload_of_another_kind_is_not_taken() -> None:
    close = encode(Packet(packet.CLOSE_REQ, connect_id=5))

    assert decode(b"\x08\x04" + close[2:]) == Packet(packet.DATA)


def test_fields_may_come_in_any_order() -> None:
    dial = encode(Packet(packet.DIAL_RSP, connect_id=5, random=1))

    assert decode(dial[2:] + dial[:2]) == Packet(packet.DIAL_RSP, connect_id=5, random=1)


def test_of_a_field_that_comes_twice_the_last_one_counts() -> None:
    assert decode(b"\x08\x01\x08\x02\x2a\x04\x08\x05\x08\x06") == Packet(2, connect_id=6)


def test_payloads_that_come_twice_are_merged() -> None:
    assert decode(b"\x08\x04\x22\x02\x08\x05\x22\x03\x1a\x01x") == Packet(
        packet.DATA, connect_id=5, data=b"x"
    )


UNKNOWN = {
    "varint": b"\x78\xff\xff\x01",
    "bytes": b"\x7a\x03abc",
    "fixed64": b"\x79" + bytes(8),
    "fixed32": b"\x7d" + bytes(4),
    "high number": varint((2**29 - 1) << 3) + b"\x01",
}


@pytest.mark.parametrize("unknown", UNKNOWN.values(), ids=UNKNOWN)
def test_unknown_fields_are_skipped(unknown: bytes) -> None:
    inner = unknown + b"\x08\x05" + unknown
    message = unknown + b"\x08\x02" + unknown + b"\x2a" + varint(len(inner)) + inner + unknown

    assert decode(message) == Packet(packet.CLOSE_REQ, connect_id=5)


def test_known_fields_of_another_wire_type_are_skipped() -> None:
    message = b"\x08\x04\x0a\x01\x05" + b"\x22\x07\x08\x05\x0a\x01\x06\x18\x07" + b"\x20\x09"

    assert decode(message) == Packet(packet.DATA, connect_id=5)


@pytest.mark.parametrize("kind", [7, 63, 1000, 2**31 - 1])
def test_unknown_kinds_survive_as_numbers(kind: int) -> None:
    item = decode(b"\x08" + varint(kind) + b"\x22\x02\x08\x05")

    assert item == Packet(kind)
    assert item.name == str(kind)


@pytest.mark.parametrize(
    ("sent", "kind"), [(-1, -1), (2**32 + 4, packet.DATA), (2**31, -(2**31)), (2**32 - 1, -1)]
)
def test_kinds_are_int32_as_in_every_protobuf_library(sent: int, kind: int) -> None:
    assert decode(b"\x08" + varint(sent)).type == kind


def test_text_that_is_no_utf8_is_marked() -> None:
    assert decode(b"\x08\x01\x1a\x03\x0a\x01\xff") == Packet(packet.DIAL_RSP, error="�")


def test_text_that_cannot_be_utf8_is_sent_marked() -> None:
    assert decode(encode(Packet(packet.DIAL_RSP, error="\udcff"))).error == "?"


# Garbage


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"\x08", "ends inside a varint"),
        (b"\x08\xff", "ends inside a varint"),
        (b"\x08" + b"\xff" * 10, "longer than 64 bits"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "longer than 64 bits"),
        (b"\x08" + b"\x80" * 100, "longer than 64 bits"),
        (b"\x00\x01", "field number 0"),
        (varint(2**29 << 3) + b"\x01", "field number 536870912"),
        (b"\x22\x05abcd", "field 4 says 5 bytes, 4 are left"),
        (b"\x22\xff\xff\xff\xff\x0f", "are left"),
        (b"\x79" + bytes(7), "field 15 is cut off"),
        (b"\x7d" + bytes(3), "field 15 is cut off"),
        (b"\x0b", "field 1 has wire type 3"),
        (b"\x0c", "field 1 has wire type 4"),
        (b"\x0e", "field 1 has wire type 6"),
        (b"\x0f", "field 1 has wire type 7"),
        (b"\x08\x04\x22\x01\x08", "ends inside a varint"),
    ],
)
def test_what_is_no_packet_is_refused_with_the_reason(message: bytes, words: str) -> None:
    with pytest.raises(PacketError, match=words):
        decode(message)


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_but_packet_errors(message: bytes) -> None:
    try:
        item = decode(message)
    except PacketError:
        return
    assert -(2**31) <= item.type < 2**31


@given(PACKETS, st.integers(0, 100))
def test_a_packet_that_is_cut_off_never_passes_for_more_than_it_is(item: Packet, size: int) -> None:
    try:
        part = decode(encode(item)[:size])
    except PacketError:
        return
    assert part in (item, Packet(item.type), Packet(packet.DIAL_REQ))


SMALL = st.lists(
    st.one_of(
        st.binary(max_size=4),
        st.sampled_from([b"\x08", b"\x10", b"\x18", b"\x0a", b"\x12", b"\x1a", b"\xff" * 9]),
        st.integers(-(2**63), 2**64 - 1).map(varint),
        st.just(b"\x0a\x02\xff\xfe"),
    ),
    max_size=6,
).map(b"".join)


@given(st.integers(0, 70), SMALL, st.sampled_from([0, 0, 0, 0, 1, -1]), st.booleans())
@settings(max_examples=500)
def test_an_unknown_field_behind_a_packet_changes_nothing(
    kind: int, payload: bytes, lie: int, said: bool
) -> None:
    """Plain packets are read in a shorter way, which must come to the same."""
    field = packet._PAYLOAD_FIELD.get(kind, 2)
    message = b"\x08" + varint(kind) if said else b""
    message += varint(field << 3 | 2) + varint(max(0, len(payload) + lie)) + payload
    try:
        item = decode(message)
    except PacketError:
        return

    assert decode(message + b"\x78\x01") == item


# Varints


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3))
def test_varints_survive_the_trip(number: int, behind: bytes) -> None:
    encoded = varint(number)

    assert read_varint(encoded + behind, 0) == (number, len(encoded))
    assert len(encoded) == max(1, -(-number.bit_length() // 7))


@given(st.integers(-(2**63), -1))
def test_negative_varints_take_ten_bytes(number: int) -> None:
    assert len(varint(number)) == 10
    assert read_varint(varint(number), 0)[0] == number + 2**64


# The quick look


@given(st.integers(1, 2**56 - 1), st.integers(1, 70_000))
@example(1, 1)
@example(1, 2**21 - 12)
@example(2**56 - 1, 127)
def test_data_is_seen_at_once_in_the_form_that_every_peer_sends(connect_id: int, size: int) -> None:
    data = bytes([255]) + bytes(size - 1)
    message = encode(Packet(packet.DATA, connect_id=connect_id, data=data))

    found = peek_data(memoryview(message))

    assert found is not None
    assert found[0] == connect_id
    assert message[found[1] :] == data


@given(
    st.integers(1, 2**63 - 1), st.one_of(st.integers(1, 20_000), st.sampled_from([2**21, 3**14]))
)
def test_a_head_and_its_data_are_the_packet_in_grpc_framing(connect_id: int, size: int) -> None:
    payload = encode(Packet(packet.DATA, connect_id=connect_id, data=bytes(size)))

    head = data_head(data_prefix(connect_id), size)

    assert head + bytes(size) == b"\0" + len(payload).to_bytes(4, "big") + payload


@pytest.mark.parametrize("connect_id", [1, 127, 128, 2**14 - 1, 2**14, 2**56 - 1])
def test_data_is_seen_whatever_lengths_its_varints_have(connect_id: int) -> None:
    for size in (*range(1, 140), *range(16_360, 16_390)):
        message = encode(Packet(packet.DATA, connect_id=connect_id, data=bytes(size)))

        assert peek_data(message) == (connect_id, len(message) - size)


@pytest.mark.parametrize("at", [0, 1, 2, 4, 6])
def test_one_other_byte_makes_data_something_else(at: int) -> None:
    message = bytearray(encode(Packet(packet.DATA, connect_id=5, data=b"abc")))
    message[at] ^= 0x40

    assert peek_data(message) is None


SHAPED = st.builds(
    lambda parts: b"".join(parts),
    st.lists(
        st.one_of(
            st.sampled_from(
                [b"\x08\x04\x22", b"\x08", b"\x1a", b"\x12", b"\x22", b"\xff", b"\x80"]
            ),
            st.integers(0, 300).map(varint),
            st.binary(max_size=3),
        ),
        max_size=10,
    ),
)
ODD_DATA = st.builds(
    lambda start, inner, middle, data, lie, tail: (
        b"\x08\x04\x22"
        + varint(max(0, len(start + inner + middle + data) + lie))
        + start
        + inner
        + middle
        + data
        + tail
    ),
    st.just(b"\x08"),
    st.one_of(st.integers(0, 2**64 - 1).map(varint), st.binary(max_size=11)),
    st.one_of(st.integers(0, 40).map(lambda size: b"\x1a" + varint(size)), st.binary(max_size=3)),
    st.one_of(st.binary(max_size=30), st.just(bytes(20_000))),
    st.sampled_from([0, 0, 0, -1, 1]),
    st.sampled_from([b"", b"", b"\x08\x02"]),
)


@given(st.one_of(SHAPED, ODD_DATA, st.binary(max_size=20), PACKETS.map(encode)))
@settings(max_examples=500)
@example(b"\x08\x04\x22\x02\x08\x01\x1a\x01x")  # the payload ends before its data
@example(b"\x08\x04\x22\x06\x08\x01\x1a\x01x\x08\x02")  # another kind follows
@example(b"\x08\x04\x22\x05\x08\x81\x80\x80\x80")
@example(b"\x08\x04\x22\xff\xff\xff")
@example(b"\x08\x04\x22\x04\x08\x05\x1a\x00")
@example(b"\x08\x04\x22\x83\x80\x80")
def test_the_quick_look_never_raises_and_agrees_with_decode(message: bytes) -> None:
    found = peek_data(message)

    assert peek_data(memoryview(message)) == found
    if found is not None:
        connect_id, start = found
        whole = decode(message)
        assert whole == Packet(packet.DATA, connect_id=connect_id, data=message[start:])
        assert whole.data


@pytest.mark.parametrize(
    ("item", "why"),
    [
        (Packet(packet.DATA, connect_id=5), "no data"),
        (Packet(packet.DATA, data=b"x"), "no tunnel"),
        (Packet(packet.DATA, connect_id=-5, data=b"x"), "a negative tunnel"),
        (Packet(packet.DATA, connect_id=2**56, data=b"x"), "a tunnel that nobody reaches"),
        (Packet(packet.DATA, connect_id=5, data=b"x", error="e"), "an error"),
        (Packet(packet.DATA, connect_id=5, data=bytes(2**21)), "more than three bytes of length"),
        (Packet(packet.CLOSE_REQ, connect_id=5), "another kind"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_out_of_the_ordinary_is_left_to_decode(item: Packet, why: str) -> None:
    assert peek_data(encode(item)) is None
    assert decode(encode(item)) == item


# Heads of oversized packets (W13)


@given(st.integers(1, 2**63 - 1))
def test_w13_the_tunnel_of_an_oversized_packet_is_in_its_first_bytes(connect_id: int) -> None:
    payload = encode(Packet(packet.DATA, connect_id=connect_id, data=bytes(300)))

    assert peek_tunnel(payload[:64]) == connect_id


@given(st.one_of(SHAPED, st.binary(max_size=20), PACKETS.map(lambda item: encode(item)[:64])))
def test_w13_no_first_bytes_raise_and_only_data_has_a_tunnel(head: bytes) -> None:
    connect_id = peek_tunnel(head)

    if connect_id is not None:
        assert head.startswith(b"\x08\x04\x22") or head[2:3] != b"\x22"
    for kind in (packet.CLOSE_REQ, packet.DIAL_RSP):
        assert peek_tunnel(encode(replace(Packet(kind), connect_id=5))) is None
