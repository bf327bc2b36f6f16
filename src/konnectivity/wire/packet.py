"""Konnectivity's `Packet`: encode, decode, and a quick look into DATA.

The schema is frozen upstream (`konnectivity-client/proto/client/client.proto`): seven kinds, one
level of nesting. Receivers go by `type`, not by which payload is set; a payload that is missing
counts as an empty one (W18). Unknown fields are skipped, unknown types survive as numbers.

Between two peers of our own one more kind may travel, `CREDIT` (see `docs/credit.md`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from konnectivity.errors import PacketError

DIAL_REQ: Final = 0
DIAL_RSP: Final = 1
CLOSE_REQ: Final = 2
CLOSE_RSP: Final = 3
DATA: Final = 4
DIAL_CLS: Final = 5
DRAIN: Final = 6
# Ours alone, far from the numbers upstream would use next; every stock receiver ignores it.
CREDIT: Final = 64
CREDIT_KEY: Final = "konnectivity-credit"
"""Metadata of our own peers: both sides send it, then both speak CREDIT (docs/credit.md)."""

UNKNOWN: Final = -1
"""Stands for all other types together where they are counted: a peer could make up millions."""

NAMES: Final = {
    DIAL_REQ: "DIAL_REQ",
    DIAL_RSP: "DIAL_RSP",
    CLOSE_REQ: "CLOSE_REQ",
    CLOSE_RSP: "CLOSE_RSP",
    DATA: "DATA",
    DIAL_CLS: "DIAL_CLS",
    DRAIN: "DRAIN",
    CREDIT: "CREDIT",
}


def counts() -> dict[int, int]:
    """A count for each kind, and one for all `UNKNOWN` ones, so that counting is one increment."""
    return dict.fromkeys((*NAMES, UNKNOWN), 0)


_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5
_MAX_FIELD: Final = 2**29 - 1
_ONE_BYTE: Final = tuple(bytes((value,)) for value in range(0x80))

# The field of `Packet` that carries the payload of a type, and what the payload's fields are
# called here. Keys of the inner tables are the bytes on the wire: number << 3 | wire type.
_PAYLOAD_FIELD: Final = {
    DIAL_REQ: 2,
    DIAL_RSP: 3,
    DATA: 4,
    CLOSE_REQ: 5,
    CLOSE_RSP: 6,
    DIAL_CLS: 7,
    DRAIN: 8,
    CREDIT: 64,
}
_SLOTS: Final[dict[int, dict[int, str]]] = {
    DIAL_REQ: {0x0A: "protocol", 0x12: "address", 0x18: "random"},
    DIAL_RSP: {0x0A: "error", 0x10: "connect_id", 0x18: "random"},
    CLOSE_REQ: {0x08: "connect_id"},
    CLOSE_RSP: {0x0A: "error", 0x10: "connect_id"},
    DATA: {0x08: "connect_id", 0x12: "error", 0x1A: "data"},
    DIAL_CLS: {0x08: "random"},
    DRAIN: {},
    CREDIT: {0x08: "connect_id", 0x10: "size"},
}


@dataclass(slots=True)
class Packet:
    """One packet of any kind; fields that its kind does not have keep their defaults.

    `random` names a dial and `connect_id` a tunnel, both int64; `size` is the number of bytes a
    CREDIT returns.
    """

    type: int
    random: int = 0
    connect_id: int = 0
    error: str = ""
    protocol: str = ""
    address: str = ""
    data: bytes = b""
    size: int = 0

    @property
    def name(self) -> str:
        """The kind as metrics and logs show it; an unknown kind is its number."""
        return NAMES.get(self.type, str(self.type))


def varint(value: int) -> bytes:
    """`value` as a base-128 varint; negative values as int64, in ten bytes."""
    if 0 <= value < 0x80:
        return _ONE_BYTE[value]
    if 0 < value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    value &= 0xFFFF_FFFF_FFFF_FFFF
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


# What stands before the length of a type's payload; DIAL_REQ is 0, which proto3 leaves out.
_HEADS: Final = {
    kind: (b"\x08" + varint(kind) if kind else b"") + varint(field << 3 | _BYTES)
    for kind, field in _PAYLOAD_FIELD.items()
}


_ORDER: Final = {
    kind: tuple((key, varint(key), name) for key, name in slots.items())
    for kind, slots in _SLOTS.items()
}


def read_varint(buffer: bytes | memoryview, at: int) -> tuple[int, int]:
    """The varint at `at` and the position behind it.

    Raises:
        PacketError: it is cut off, or longer than 64 bits.
    """
    result = shift = 0
    end = len(buffer)
    while at < end:
        byte = buffer[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80 and result < 1 << 64:
            return result, at
        shift += 7
        if shift > 63:
            raise PacketError("a varint is longer than 64 bits")
    raise PacketError("the packet ends inside a varint")


def encode(packet: Packet) -> bytes:
    """`packet` as the bytes of a protobuf message; proto3 leaves zero and empty fields out.

    Raises:
        PacketError: the type is none that has a payload to encode.
    """
    slots = _ORDER.get(packet.type)
    if slots is None:
        raise PacketError(f"cannot encode packet type {packet.type}")
    payload = b""
    for key, head, name in slots:
        value = getattr(packet, name)
        if not value:
            continue
        if key & 7 == _VARINT:
            payload += head + varint(value)
        else:
            raw = value if name == "data" else value.encode("utf-8", "replace")
            payload += head + varint(len(raw)) + raw
    return _HEADS[packet.type] + varint(len(payload)) + payload


def _fields(message: bytes) -> list[tuple[int, int | bytes]]:
    """The fields of a message in order: number, and an integer or bytes as they came.

    Fixed-width fields are skipped: the schema has none.
    """
    out: list[tuple[int, int | bytes]] = []
    at, end = 0, len(message)
    while at < end:
        # Most keys, values and sizes are one byte: a call for each would double the price.
        key = message[at]
        at += 1
        if key > 0x7F:
            key, at = read_varint(message, at - 1)
        field, kind = key >> 3, key & 7
        if not 0 < field <= _MAX_FIELD:
            raise PacketError(f"field number {field}")
        if kind == _VARINT:
            value, at = read_varint(message, at)
            out.append((field, value))
        elif kind == _BYTES:
            size = message[at] if at < end else 0x80
            at += 1
            if size > 0x7F:
                size, at = read_varint(message, at - 1)
            if size > end - at:
                raise PacketError(f"field {field} says {size} bytes, {end - at} are left")
            out.append((field, message[at : at + size]))
            at += size
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
            if at > end:
                raise PacketError(f"field {field} is cut off")
        else:
            raise PacketError(f"field {field} has wire type {kind}")
    return out


def _signed(value: int, bits: int = 64) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


def _string(value: bytes) -> str:
    # proto3 strings are UTF-8; a peer that sends other bytes gets them marked, not an error.
    return value.decode("utf-8", "replace")


def decode(message: bytes | memoryview) -> Packet:
    """The packet in `message`.

    A known field of another wire type counts as unknown, as in every protobuf library.

    Raises:
        PacketError: the bytes are no protobuf message.
    """
    data = bytes(message)
    packet = _decode_plain(data)
    if packet is not None:
        return packet
    fields = _fields(data)
    packet = Packet(DIAL_REQ)
    for field, value in fields:
        if field == 1 and isinstance(value, int):
            packet.type = _signed(value, 32)  # enums are int32
    wanted = _PAYLOAD_FIELD.get(packet.type)
    for field, value in fields:
        if field == wanted and isinstance(value, bytes):
            _read_payload(packet, value)
    return packet


def _read_payload(packet: Packet, payload: bytes) -> None:
    slots = _SLOTS[packet.type]
    for field, value in _fields(payload):
        name = slots.get(field << 3 | (_VARINT if isinstance(value, int) else _BYTES))
        if name is None:
            continue
        if isinstance(value, int):
            setattr(packet, name, _signed(value))
        else:
            setattr(packet, name, value if name == "data" else _string(value))


def _decode_plain(data: bytes) -> Packet | None:
    """Decode the form in which every peer sends short control packets; None for all others.

    The same result as the general way at a third of its price, and each dial takes four.
    """
    try:
        kind, at = (data[1], 2) if data[0] == 0x08 else (DIAL_REQ, 0)
        slots = _SLOTS.get(kind)
        end = len(data)
        if slots is None or data[at] != _PAYLOAD_FIELD[kind] << 3 | _BYTES:
            return None
        if data[at + 1] > 0x7F or data[at + 1] != end - at - 2:
            return None
        packet = Packet(kind)
        at += 2
        while at < end:
            key, value = data[at], data[at + 1]
            name = slots[key]
            at += 2
            if key & 7 == _VARINT:
                if value > 0x7F:
                    value, at = read_varint(data, at - 1)
                setattr(packet, name, value if value < 1 << 63 else _signed(value))
            elif value > end - at:  # cut off, or longer than one byte can say
                return None
            else:
                raw = data[at : at + value]
                setattr(packet, name, raw if name == "data" else raw.decode())
                at += value
    except (IndexError, KeyError, UnicodeDecodeError, PacketError):
        return None
    return packet


def peek_data(message: bytes | memoryview) -> tuple[int, int] | None:
    """Tunnel and payload of a DATA packet in the form every peer sends: (connect_id, start).

    The payload is `message[start:]`, never empty. None means: not DATA, or not in that form; use
    `decode`. No bytes raise. This is the hot path of bulk transfers: no object is made for a
    packet, and the varints of lengths are read in place, up to the three bytes that 2 MiB need.
    """
    try:
        # type = 4, then field 4, the payload, whose length must be that of all the rest.
        if message[0] != 0x08 or message[1] != 0x04 or message[2] != 0x22:
            return None
        inner, at = message[3], 4
        if inner > 0x7F:
            inner += (message[4] << 7) - 0x80
            at = 5
            if inner > 0x3FFF:
                inner += (message[5] << 14) - 0x4000
                at = 6
        if inner != len(message) - at or inner > 0x1F_FFFF or message[at] != 0x08:
            return None
        at += 1
        connect_id = shift = 0
        while (byte := message[at]) > 0x7F:
            if shift > 42:
                return None
            connect_id |= (byte & 0x7F) << shift
            shift += 7
            at += 1
        connect_id |= byte << shift
        if message[at + 1] != 0x1A:
            return None
        size, at = message[at + 2], at + 3
        if size > 0x7F:
            size += (message[at] << 7) - 0x80
            at += 1
            if size > 0x3FFF:
                size += (message[at] << 14) - 0x4000
                at += 1
    except IndexError:
        return None
    return (connect_id, at) if 0 < size == len(message) - at else None


def peek_tunnel(head: bytes) -> int | None:
    """The tunnel of a DATA packet of which only the first bytes are there, or None."""
    try:
        key, at = read_varint(head, 0)
        kind, at = read_varint(head, at)
        outer, at = read_varint(head, at)
        _, at = read_varint(head, at)
        inner, at = read_varint(head, at)
        connect_id, at = read_varint(head, at)
    except PacketError:
        return None
    if (key, kind, outer, inner) != (0x08, DATA, 0x22, 0x08):
        return None
    return connect_id


def data_prefix(connect_id: int) -> bytes:
    """The constant middle of a tunnel's DATA packets, for `data_head`."""
    return b"\x08" + varint(connect_id) + b"\x1a"


def data_head(prefix: bytes, size: int) -> bytes:
    """All bytes of a DATA packet before its payload of `size` > 0 bytes, gRPC prefix included.

    `prefix` is `data_prefix(connect_id)`. The gRPC prefix (flag byte, four bytes of length) is
    put here, not in `grpc.py`, so that a packet costs one concatenation.
    """
    length = varint(size)
    inner = len(prefix) + len(length) + size
    head = b"\x08\x04\x22" + varint(inner) + prefix + length
    return b"\x00" + (len(head) + size).to_bytes(4, "big") + head
