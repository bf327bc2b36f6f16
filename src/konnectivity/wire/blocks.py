"""Header blocks in and out: HPACK (RFC 7541) by the `hpack` library, kept off the way of dials.

kube-apiserver opens an HTTP/2 connection for each tunnel and sends the same first block on each of
them. So the answer to it is a constant, and what it decodes to is remembered: a connection needs a
decoder of its own only for a second block, and then decodes the first one after all, because that
filled the table.
"""

from __future__ import annotations

import logging
import re
from typing import Final

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from konnectivity.errors import ConnectionFault
from konnectivity.wire import frames
from konnectivity.wire.events import Headers

GRPC_RESPONSE: Final = b"\x88\x0f\x10\x10application/grpc"
"""`:status 200` and `content-type: application/grpc`, by static indices and without entering the
table (RFC 7541, 6.1 and 6.2.2): valid at any point of any connection."""

REMEMBERED: Final = 64
"""First blocks that are remembered, in the process."""
REMEMBERED_SIZE: Final = 256
"""Bytes of the longest of them."""

# A header block that starts with more resizings of the HPACK table than any encoder needs (two).
_RESIZES: Final = re.compile(rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]*[\x00-\x7f]){17}")
_SECRET: Final = frozenset(("authorization", "cookie", "proxy-authorization"))

# The library logs whole blocks when asked to debug, bearer tokens included.
logging.getLogger("hpack").setLevel(logging.WARNING)

_known: dict[tuple[bytes, int], Headers] = {}


class BlockDecoder:
    """Decodes the header blocks of one connection, in order of arrival."""

    __slots__ = ("_decoder", "_first", "_max_list")

    def __init__(self, *, max_list: int) -> None:
        self._max_list = max_list
        self._decoder: Decoder | None = None
        self._first = b""

    def decode(self, block: bytes) -> Headers:
        """The fields of one block, values as latin-1 so that every octet is kept.

        Raises:
            ConnectionFault: it does not decode, or is a bomb.
        """
        if self._decoder is None:
            key = (block, self._max_list)
            known = None if self._first else _known.get(key)
            if known is not None:
                self._first = block
                return list(known)
            self._decoder = Decoder(max_header_list_size=self._max_list)
            if self._first:
                self._decode(self._decoder, self._first)
            else:
                headers = self._decode(self._decoder, block)
                _remember(key, headers)
                return headers
        return self._decode(self._decoder, block)

    def _decode(self, decoder: Decoder, block: bytes) -> Headers:
        if _RESIZES.match(block):
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "too many HPACK table sizes")
        try:
            fields = decoder.decode(block, raw=True)
        except OversizedHeaderListError as error:
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "a header list is too long") from error
        except HPACKError as error:
            # hpack's text would quote the block, secrets included.
            raise ConnectionFault(
                frames.COMPRESSION_ERROR, "a header block does not decode (RFC 7541)"
            ) from error
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]


def _remember(key: tuple[bytes, int], headers: Headers) -> None:
    if len(key[0]) > REMEMBERED_SIZE or any(name in _SECRET for name, _ in headers):
        return
    if len(_known) == REMEMBERED:  # each agent has a first block of its own: the oldest goes
        del _known[next(iter(_known))]
    _known[key] = list(headers)
