"""Header fields of a message: which ones HTTP/2 forbids (RFC 9113, 8.1.1, 8.2 and 8.3).

Malformed messages are refused here, because they are how requests are smuggled. What is not
checked: blanks around values, which Go accepts too, and Content-Length, which gRPC does not use.
"""

from __future__ import annotations

import re
from typing import Final

from konnectivity.errors import StreamFault
from konnectivity.wire import frames
from konnectivity.wire.events import Headers

_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_STATUS: Final = re.compile(r"[1-9][0-9]{2}")

# Fields that belong to HTTP/1.1 connections (8.2.2).
_CONNECTION_FIELDS: Final = frozenset(
    ("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade")
)
# Pseudo-header fields (8.3.1, 8.3.2): those that must be there, and those that may.
_REQUEST: Final = frozenset((":method", ":path", ":scheme"))
_REQUEST_MAY: Final = _REQUEST | {":authority"}
_RESPONSE: Final = frozenset((":status",))


def check_fields(stream_id: int, headers: Headers, *, request: bool, first: bool) -> None:
    """Check the fields of a request or a response; `first` is False for trailers.

    Raises:
        StreamFault: the message is malformed.
    """
    seen: set[str] = set()
    allowed = (_REQUEST_MAY if request else _RESPONSE) if first else frozenset()
    regular_seen = False
    for name, value in headers:
        if name.startswith(":"):
            if regular_seen or name in seen or name not in allowed:
                _refuse(stream_id, f"misplaced field {name!r}")
            seen.add(name)
        else:
            regular_seen = True
            if not _NAME.fullmatch(name) or name in _CONNECTION_FIELDS:
                _refuse(stream_id, f"forbidden field {name!r}")
            if name == "te" and value != "trailers":
                _refuse(stream_id, "a field 'te' other than 'trailers'")
        if not _VALUE.fullmatch(value):
            _refuse(stream_id, f"control characters in field {name!r}")
        if name == ":status" and not _STATUS.fullmatch(value):
            _refuse(stream_id, "a status that is no number of three digits")
    if first:
        missing = (_REQUEST if request else _RESPONSE) - seen
        if missing:
            _refuse(stream_id, f"a message without {', '.join(sorted(missing))}")


def _refuse(stream_id: int, what: str) -> None:
    raise StreamFault(stream_id, frames.PROTOCOL_ERROR, what)
