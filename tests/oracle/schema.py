"""Upstream's packets as protobuf classes, made here from the field numbers of its wire format.

The classes are the library's own: they share no line with `konnectivity.wire.packet`, and they
serve grpcio peers as well (`Packet.SerializeToString`, `Packet.FromString`).
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

STRING: Final = FieldDescriptorProto.TYPE_STRING
INT64: Final = FieldDescriptorProto.TYPE_INT64
BYTES: Final = FieldDescriptorProto.TYPE_BYTES

PACKET_TYPES: Final = {
    "DIAL_REQ": 0,
    "DIAL_RSP": 1,
    "CLOSE_REQ": 2,
    "CLOSE_RSP": 3,
    "DATA": 4,
    "DIAL_CLS": 5,
    "DRAIN": 6,
}
MESSAGES: Final[dict[str, list[tuple[int, str, FieldDescriptorProto.Type.ValueType]]]] = {
    "DialRequest": [(1, "protocol", STRING), (2, "address", STRING), (3, "random", INT64)],
    "DialResponse": [(1, "error", STRING), (2, "connectID", INT64), (3, "random", INT64)],
    "CloseRequest": [(1, "connectID", INT64)],
    "CloseResponse": [(1, "error", STRING), (2, "connectID", INT64)],
    "CloseDial": [(1, "random", INT64)],
    "Drain": [],
    "Data": [(1, "connectID", INT64), (2, "error", STRING), (3, "data", BYTES)],
}
PAYLOADS: Final = [
    (2, "dialRequest", "DialRequest"),
    (3, "dialResponse", "DialResponse"),
    (4, "data", "Data"),
    (5, "closeRequest", "CloseRequest"),
    (6, "closeResponse", "CloseResponse"),
    (7, "closeDial", "CloseDial"),
    (8, "drain", "Drain"),
]


def _file() -> FileDescriptorProto:
    """The schema, in the empty protobuf package."""
    file = FileDescriptorProto(name="konnectivity_oracle.proto", syntax="proto3")
    kinds = file.enum_type.add(name="PacketType")
    for name, number in PACKET_TYPES.items():
        kinds.value.add(name=name, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field, kind in fields:
            message.field.add(
                name=field, number=number, type=kind, label=FieldDescriptorProto.LABEL_OPTIONAL
            )
    _add_packet(file.message_type.add(name="Packet"))
    return file


def _add_packet(packet: DescriptorProto) -> None:
    packet.field.add(
        name="type",
        number=1,
        type=FieldDescriptorProto.TYPE_ENUM,
        type_name=".PacketType",
        label=FieldDescriptorProto.LABEL_OPTIONAL,
    )
    packet.oneof_decl.add(name="payload")
    for number, field, message in PAYLOADS:
        packet.field.add(
            name=field,
            number=number,
            type=FieldDescriptorProto.TYPE_MESSAGE,
            type_name=f".{message}",
            label=FieldDescriptorProto.LABEL_OPTIONAL,
            oneof_index=0,
        )


_pool = descriptor_pool.DescriptorPool()
_classes = message_factory.GetMessageClassesForFiles(
    [_pool.Add(_file()) or "konnectivity_oracle.proto"], _pool
)

# The classes are made at run time, so that only `Any` describes their attributes.
Packet: Final[Any] = _classes["Packet"]
DialRequest: Final[Any] = _classes["DialRequest"]
DialResponse: Final[Any] = _classes["DialResponse"]
CloseRequest: Final[Any] = _classes["CloseRequest"]
CloseResponse: Final[Any] = _classes["CloseResponse"]
CloseDial: Final[Any] = _classes["CloseDial"]
Drain: Final[Any] = _classes["Drain"]
Data: Final[Any] = _classes["Data"]
