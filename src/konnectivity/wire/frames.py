"""HTTP/2 frames: constants with their sections of RFC 9113, and a serialiser for each kind.

Nothing here knows the state of a connection; `http2.py` does.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # section 3.4

HEADER_SIZE: Final = 9
# Length in two parts (16 + 8 bits), type, flags, stream id with its reserved bit.
HEADER: Final = Struct(">HBBBI")
SETTING: Final = Struct(">HI")  # section 6.5.1

# Frame types, section 6.
DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

# Flags.
ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20

# Settings, section 6.5.2.
HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6

# Error codes, section 7.
NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
INTERNAL_ERROR: Final = 0x2
FLOW_CONTROL_ERROR: Final = 0x3
SETTINGS_TIMEOUT: Final = 0x4
STREAM_CLOSED: Final = 0x5
FRAME_SIZE_ERROR: Final = 0x6
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
COMPRESSION_ERROR: Final = 0x9
CONNECT_ERROR: Final = 0xA
ENHANCE_YOUR_CALM: Final = 0xB
INADEQUATE_SECURITY: Final = 0xC
HTTP_1_1_REQUIRED: Final = 0xD

ERROR_NAMES: Final = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)

DEFAULT_WINDOW: Final = 65_535  # section 6.9.2
MAX_WINDOW: Final = 2**31 - 1  # section 6.9.1
DEFAULT_FRAME_SIZE: Final = 16_384  # section 4.2
LARGEST_FRAME_SIZE: Final = 2**24 - 1
MAX_STREAM_ID: Final = 2**31 - 1  # section 5.1.1


def error_name(code: int) -> str:
    """The name of an error code, or its number where RFC 9113 has none."""
    return ERROR_NAMES[code] if code < len(ERROR_NAMES) else f"error code {code:#x}"


def frame_header(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """The nine bytes before a payload of `length` bytes (section 4.1)."""
    return HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream_id)


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One whole frame."""
    return frame_header(kind, flags, stream_id, len(payload)) + payload


def settings_frame(settings: dict[int, int]) -> bytes:
    """SETTINGS with one entry a key (section 6.5)."""
    entries = b"".join(SETTING.pack(key, value) for key, value in settings.items())
    return frame(SETTINGS, 0, 0, entries)


def settings_ack_frame() -> bytes:
    """SETTINGS with the ACK flag."""
    return frame(SETTINGS, ACK, 0)


def ping_frame(opaque: bytes, *, ack: bool = False) -> bytes:
    """PING; `opaque` has eight bytes (section 6.7)."""
    return frame(PING, ACK if ack else 0, 0, opaque)


def window_update_frame(stream_id: int, increment: int) -> bytes:
    """WINDOW_UPDATE for a stream, or for the connection with stream 0 (section 6.9)."""
    return frame(WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big"))


def reset_frame(stream_id: int, code: int) -> bytes:
    """RST_STREAM (section 6.4)."""
    return frame(RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def goaway_frame(last_stream_id: int, code: int, debug: bytes = b"") -> bytes:
    """GOAWAY (section 6.8)."""
    head = last_stream_id.to_bytes(4, "big") + code.to_bytes(4, "big")
    return frame(GOAWAY, 0, 0, head + debug)


def headers_frames(stream_id: int, block: bytes, *, end_stream: bool, max_size: int) -> bytes:
    """HEADERS, and CONTINUATION where the block is longer than `max_size` (section 6.2, 6.10)."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= max_size:
        return frame(HEADERS, flags | END_HEADERS, stream_id, block)
    pieces = [block[at : at + max_size] for at in range(0, len(block), max_size)]
    parts = [frame(HEADERS, flags, stream_id, pieces[0])]
    parts += [frame(CONTINUATION, 0, stream_id, piece) for piece in pieces[1:-1]]
    parts.append(frame(CONTINUATION, END_HEADERS, stream_id, pieces[-1]))
    return b"".join(parts)
