"""How a tunnel's own HTTP/2 stream begins and ends, between two peers of ours.

The agent opens it with a request whose path names the dial; both directions then carry the
tunnel's bytes and nothing else (docs/stream-carrier.md).
"""

from __future__ import annotations

import re
from typing import Final

from konnectivity.wire import frames
from konnectivity.wire.events import Headers

KEY: Final = "konnectivity-streams"
"""Metadata of `Connect`: both sides send it, then the agent may open streams."""
PATH: Final = "/konnectivity.Tunnels/"
"""What the path of such a request begins with; the dial's id and the connectID follow."""
LEAST_WINDOW: Final = 16 << 10
"""Bytes a stream's first window must have, in SETTINGS, of whoever agrees to streams."""

REQUEST_HEAD: Final = b"\x83\x87\x04"
"""POST, https and the name `:path`, by static indices and without entering HPACK's table."""
RESPONSE: Final = b"\x88"
"""The whole header block of the answer: `:status` 200."""
_LONGEST: Final = 0x7E
"""Bytes of a path whose length fits into one byte of HPACK (RFC 7541, 5.1)."""
_NAMES: Final = re.compile(rf"{re.escape(PATH)}(-?[0-9]{{1,19}})/([0-9]{{1,19}})")

# What RST_STREAM says of the reason.
DONE: Final = frames.NO_ERROR
"""Whoever resets reads no more; what it sent before is to arrive."""
BROKEN: Final = frames.CONNECT_ERROR
"""The connection to the endpoint broke (RFC 9113, 8.5)."""
UNWANTED: Final = frames.CANCEL
"""Nobody waits for this dial any more, or bytes that were to come before are missing."""
STOPPING: Final = frames.REFUSED_STREAM
"""This process is stopping."""
TOO_SLOW: Final = frames.ENHANCE_YOUR_CALM
"""A reader stood still while the process needed the memory."""


def request_block(dial_id: int, connect_id: int) -> bytes:
    """The header block that opens the stream of a dial; valid at any point of a connection."""
    path = b"%s%d/%d" % (PATH.encode(), dial_id, connect_id)
    return REQUEST_HEAD + bytes((len(path),)) + path


def plain_fields(block: bytes) -> Headers | None:
    """What one of the two blocks above stands for, well-formed; None: it is another one.

    Neither touches HPACK's table, so neither needs a decoder.
    """
    if block == RESPONSE:
        return [(":status", "200")]
    size = len(block) - 4
    if size < 0 or size > _LONGEST or block[3] != size or not block.startswith(REQUEST_HEAD):
        return None
    path = block[4:].decode("latin-1")
    if _NAMES.fullmatch(path) is None:
        return None
    return [(":method", "POST"), (":scheme", "https"), (":path", path)]


def parse_path(path: str) -> tuple[int, int] | None:
    """The dial's id and the connectID that a path names; None: neither is in it."""
    names = _NAMES.fullmatch(path)
    return None if names is None else (int(names[1]), int(names[2]))
