"""Packets against protobuf's own library, in both directions."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.peers import schema

from konnectivity.errors import PacketError
from konnectivity.wire import packet
from konnectivity.wire.packet import Packet, data_head, data_prefix, decode, encode, peek_data

INT64 = st.one_of(st.integers(0, 300), st.integers(-(2**63), 2**63 - 1))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
CONTENT = st.one_of(st.binary(), st.integers(0, 70_000).map(lambda size: bytes([7]) * size))

PROPER = st.one_of(
    st.builds(schema.dial_request, INT64, TEXT, TEXT),
    st.builds(schema.dial_response, INT64, INT64, TEXT),
    st.builds(schema.dial_close, INT64),
    st.builds(schema.data, INT64, CONTENT),
    st.builds(
        lambda connect_id, text, content: schema.Packet(
            type=schema.DATA, data={"connectID": connect_id, "error": text, "data": content}
        ),
        INT64,
        TEXT,
        CONTENT,
    ),
    st.builds(schema.close_request, INT64),
    st.builds(schema.close_response, INT64, TEXT),
    st.just(schema.drain()),
)
ODD = st.one_of(
    st.builds(lambda kind: schema.Packet(type=kind), st.integers(-3, 9)),
    st.builds(
        lambda kind, connect_id: schema.Packet(type=kind, closeRequest={"connectID": connect_id}),
        st.integers(-3, 9),
        INT64,
    ),
)
"""Types and payloads that do not belong together, and types that nobody knows."""

MEMBERS = (
    "dialRequest",
    "dialResponse",
    "closeRequest",
    "closeResponse",
    "data",
    "closeDial",
    "drain",
)
"""The payload of each type."""


def ours(theirs: Any) -> Packet:
    """What we mean by a packet of protobuf's: the payload that its type names, or an empty one."""
    item = Packet(theirs.type)
    if 0 <= theirs.type < len(MEMBERS):
        payload = getattr(theirs, MEMBERS[theirs.type])
        for mine, name in (
            ("random", "random"),
            ("connect_id", "connectID"),
            ("error", "error"),
            ("protocol", "protocol"),
            ("address", "address"),
            ("data", "data"),
        ):
            if name in payload.DESCRIPTOR.fields_by_name:
                setattr(item, mine, getattr(payload, name))
    return item


@given(st.one_of(PROPER, ODD))
def test_what_protobuf_encodes_we_decode(theirs: Any) -> None:
    assert decode(theirs.SerializeToString()) == ours(theirs)


@given(PROPER)
def test_both_encode_to_the_same_bytes(theirs: Any) -> None:
    assert encode(ours(theirs)) == theirs.SerializeToString()


@given(PROPER)
def test_what_we_encode_protobuf_decodes(theirs: Any) -> None:
    assert schema.Packet.FromString(encode(ours(theirs))) == theirs


@given(st.integers(1, 2**56 - 1), st.integers(1, 70_000))
def test_the_quick_look_sees_what_protobuf_encodes(connect_id: int, size: int) -> None:
    content = bytes([9]) * size
    message = schema.data(connect_id, content).SerializeToString()

    found = peek_data(message)

    assert found is not None
    assert (found[0], message[found[1] :]) == (connect_id, content)


@given(INT64, st.integers(1, 70_000))
def test_protobuf_decodes_data_with_a_ready_made_head(connect_id: int, size: int) -> None:
    content = bytes([9]) * size

    item = schema.Packet.FromString(data_head(data_prefix(connect_id), size)[5:] + content)

    assert item == schema.data(connect_id, content)


def test_protobuf_ignores_our_own_kind_of_packet() -> None:
    item = schema.Packet.FromString(encode(Packet(packet.CREDIT, connect_id=5, size=9)))

    assert item.type == packet.CREDIT
    assert item.WhichOneof("payload") is None


INNER = st.lists(st.sampled_from([b"\x08\x05", b"\x10\x06", b"\x0a\x01x", b"\x1a\x01y"]))
FIELDS = st.lists(
    st.one_of(
        st.builds(
            lambda field, value: packet.varint(field << 3) + packet.varint(value),
            st.integers(1, 9),
            st.one_of(st.integers(0, 9), st.integers(-(2**63), 2**64 - 1)),
        ),
        st.builds(
            lambda field, value: packet.varint(field << 3 | 2) + packet.varint(len(value)) + value,
            st.integers(1, 9),
            st.one_of(st.binary(max_size=6), INNER.map(b"".join)),
        ),
        st.builds(lambda value: b"\x79" + value, st.binary(min_size=8, max_size=8)),
        st.builds(lambda value: b"\x7d" + value, st.binary(min_size=4, max_size=4)),
        st.binary(max_size=4),
    ),
    max_size=4,
).map(b"".join)


def ours_of(message: bytes) -> Packet | str:
    """The packet, or why it is none."""
    try:
        return decode(message)
    except PacketError as error:
        return str(error)


def theirs_of(message: bytes) -> Any:
    """The packet, or None."""
    try:
        return schema.Packet.FromString(message)
    except DecodeError:
        return None


def payloads(message: bytes) -> int:
    fields = packet._fields(message)
    return sum(2 <= field <= 8 and isinstance(value, bytes) for field, value in fields)


@given(FIELDS)
@settings(max_examples=500)
def test_odd_bytes_are_judged_as_protobuf_judges_them(message: bytes) -> None:
    """Where protobuf takes a message, so do we, and to the same effect.

    differs: groups, which no peer sends, and several payloads in one packet, of which protobuf
    keeps the last one only.
    """
    theirs, mine = theirs_of(message), ours_of(message)
    if theirs is None:
        return
    if isinstance(mine, str):
        assert "wire type" in mine
        return
    assert mine.type == theirs.type
    if payloads(message) <= 1:
        assert mine == ours(theirs)


@given(FIELDS)
@settings(max_examples=300)
def test_what_we_refuse_protobuf_refuses_too(message: bytes) -> None:
    """differs: groups; and varints beyond 64 bits, which Go refuses as we do."""
    mine = ours_of(message)
    if isinstance(mine, str) and "wire type" not in mine:
        assert theirs_of(message) is None
