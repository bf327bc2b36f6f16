"""`Packet` as protobuf's own library knows it, and short ways to make each kind.

Built from a table, so that no generated code is needed. Nothing here comes from the package under
test: peers that use it agree with us only if our bytes are right.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

DIAL_REQ, DIAL_RSP, CLOSE_REQ, CLOSE_RSP, DATA, DIAL_CLS, DRAIN = range(7)

_FIELD = descriptor_pb2.FieldDescriptorProto
_STRING, _INT64, _BYTES = _FIELD.TYPE_STRING, _FIELD.TYPE_INT64, _FIELD.TYPE_BYTES
_PAYLOADS: dict[str, tuple[tuple[str, int], ...]] = {
    "DialRequest": (("protocol", _STRING), ("address", _STRING), ("random", _INT64)),
    "DialResponse": (("error", _STRING), ("connectID", _INT64), ("random", _INT64)),
    "Data": (("connectID", _INT64), ("error", _STRING), ("data", _BYTES)),
    "CloseRequest": (("connectID", _INT64),),
    "CloseResponse": (("error", _STRING), ("connectID", _INT64)),
    "CloseDial": (("random", _INT64),),
    "Drain": (),
}
_TYPES = "DIAL_REQ", "DIAL_RSP", "CLOSE_REQ", "CLOSE_RSP", "DATA", "DIAL_CLS", "DRAIN"
_MEMBERS = "dialRequest", "dialResponse", "data", "closeRequest", "closeResponse", "closeDial"


def _packet_class() -> type[Message]:
    file = descriptor_pb2.FileDescriptorProto(name="packet.proto", syntax="proto3")
    kinds = file.enum_type.add(name="PacketType")
    for number, name in enumerate(_TYPES):
        kinds.value.add(name=name, number=number)
    for name, fields in _PAYLOADS.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields, start=1):
            message.field.add(name=field, number=number, type=kind, label=_FIELD.LABEL_OPTIONAL)
    packet = file.message_type.add(name="Packet")
    packet.field.add(
        name="type",
        number=1,
        type=_FIELD.TYPE_ENUM,
        type_name=".PacketType",
        label=_FIELD.LABEL_OPTIONAL,
    )
    packet.oneof_decl.add(name="payload")
    for number, (member, payload) in enumerate(
        zip((*_MEMBERS, "drain"), _PAYLOADS, strict=True), start=2
    ):
        packet.field.add(
            name=member,
            number=number,
            type=_FIELD.TYPE_MESSAGE,
            type_name=f".{payload}",
            oneof_index=0,
            label=_FIELD.LABEL_OPTIONAL,
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Packet"))


# `Any`: the class is made at run time, so no checker knows its fields.
Packet: Any = _packet_class()


def dial_request(random: int, address: str, protocol: str = "tcp") -> Any:
    payload = {"random": random, "address": address, "protocol": protocol}
    return Packet(type=DIAL_REQ, dialRequest=payload)


def dial_response(random: int, connect_id: int = 0, error: str = "") -> Any:
    payload = {"random": random, "connectID": connect_id, "error": error}
    return Packet(type=DIAL_RSP, dialResponse=payload)


def dial_close(random: int) -> Any:
    return Packet(type=DIAL_CLS, closeDial={"random": random})


def data(connect_id: int, content: bytes) -> Any:
    return Packet(type=DATA, data={"connectID": connect_id, "data": content})


def close_request(connect_id: int) -> Any:
    return Packet(type=CLOSE_REQ, closeRequest={"connectID": connect_id})


def close_response(connect_id: int, error: str = "") -> Any:
    return Packet(type=CLOSE_RSP, closeResponse={"connectID": connect_id, "error": error})


def drain() -> Any:
    return Packet(type=DRAIN, drain={})


def serialize(item: Any) -> bytes:
    """The bytes of a packet; bytes pass as they are, so that odd ones can be sent too."""
    return item if isinstance(item, bytes) else item.SerializeToString()
