"""gRPC over HTTP/2: heads, status trailers, and length-prefixed messages.

Source: the gRPC project's "gRPC over HTTP2" protocol description. No compression, as upstream.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote_to_bytes

from konnectivity.errors import RpcError
from konnectivity.wire.events import Headers

OK: Final = 0
CANCELLED: Final = 1
UNKNOWN: Final = 2
DEADLINE_EXCEEDED: Final = 4
PERMISSION_DENIED: Final = 7
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14

_CODE_NAMES: Final = (
    *("OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound"),
    *("AlreadyExists", "PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted"),
    *("OutOfRange", "Unimplemented", "Internal", "Unavailable", "DataLoss", "Unauthenticated"),
)

PREFIX_SIZE: Final = 5
MAX_MESSAGE: Final = 4 << 20
"""Largest message received, in bytes: the default of every gRPC library, and upstream's."""

PROXY: Final = "/ProxyService/Proxy"
CONNECT: Final = "/AgentService/Connect"

# Printable ASCII but for the per cent sign travels as it is; letters and digits `quote` knows.
_PLAIN: Final = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"

# How a bare HTTP status reads as a gRPC code ("HTTP to gRPC Status Code Mapping").
_FROM_HTTP: Final = {
    400: INTERNAL,
    401: 16,  # UNAUTHENTICATED
    403: PERMISSION_DENIED,
    404: UNIMPLEMENTED,
    429: UNAVAILABLE,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: UNAVAILABLE,
}


def code_name(code: int) -> str:
    """A status code as gRPC-Go writes it; an undefined one is `Unknown`."""
    return _CODE_NAMES[code] if 0 <= code < len(_CODE_NAMES) else "Unknown"


def request_headers(
    path: str, *, authority: str, metadata: Headers, scheme: str = "https"
) -> Headers:
    """The head of a call; `metadata` keys are lower case."""
    return [
        (":method", "POST"),
        (":scheme", scheme),
        (":path", path),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *metadata,
    ]


def response_headers(metadata: Headers | None = None) -> Headers:
    """The head of an answer."""
    return [(":status", "200"), ("content-type", "application/grpc"), *(metadata or [])]


def trailers(code: int, message: str = "") -> Headers:
    """The status that ends a call."""
    fields = [("grpc-status", str(code))]
    if message:
        fields.append(("grpc-message", quote(message, _PLAIN, errors="replace")))
    return fields


def refusal(code: int, message: str) -> Headers:
    """Head and status in one (trailers-only): send it with END_STREAM."""
    return response_headers() + trailers(code, message)


def status(headers: Headers) -> RpcError | None:
    """What trailers, or a trailers-only head, say: None for OK.

    A head without `grpc-status` is judged by its HTTP status.
    """
    fields = dict(headers)
    text = fields.get("grpc-status")
    if text is None:
        http = fields.get(":status", "")
        code = _FROM_HTTP.get(_code(http), UNKNOWN) if http else INTERNAL
        return RpcError(code, f"the peer ended the call without a gRPC status (HTTP {http or '-'})")
    code = _code(text)
    raw = unquote_to_bytes(fields.get("grpc-message", "").encode("latin-1", "replace"))
    return None if code == OK else RpcError(code, raw.decode("utf-8", "replace"))


def _code(text: str) -> int:
    return int(text) if len(text) < 10 and text.isascii() and text.isdigit() else UNKNOWN


def metadata_values(headers: Headers, key: str) -> list[str]:
    """All values of one metadata key, in order of arrival."""
    return [value for name, value in headers if name == key]


def message(payload: bytes) -> bytes:
    """`payload` with its five-byte prefix."""
    return b"\x00" + len(payload).to_bytes(4, "big") + payload


class Oversized:
    """Stands for a message beyond the limit. `size` in bytes, `head` its first bytes."""

    __slots__ = ("head", "size")

    def __init__(self, size: int, head: bytes) -> None:
        self.size = size
        self.head = head


class MessageReader:
    """Cuts a stream's content into messages, whatever way it was split into frames.

    A message longer than `limit` bytes is skipped and reported as `Oversized`, so that one huge
    packet need not end a stream that carries many tunnels (W13).
    """

    __slots__ = ("_limit", "_missing", "_partial", "_skip")

    HEAD: Final = 64
    """Bytes of an oversized message that are kept: enough to tell whose it is."""

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self._limit = limit
        self._partial = bytearray()
        self._missing = 0
        self._skip = 0

    def feed(self, data: memoryview) -> list[memoryview | Oversized]:
        """The messages that `data` completes, in order. They look into `data`.

        Raises:
            RpcError: a message is compressed, which was not agreed on.
        """
        out: list[memoryview | Oversized] = []
        if self._partial or self._skip:
            data = self._resume(data, out)
        at, end = 0, len(data)
        missing = PREFIX_SIZE
        while end - at >= PREFIX_SIZE:
            if data[at]:
                raise RpcError(UNIMPLEMENTED, "compressed messages are not supported")
            size = int.from_bytes(data[at + 1 : at + 5], "big")
            start = at + PREFIX_SIZE
            if size > self._limit:
                head = min(size, self.HEAD)
                if end - start < head:
                    missing += head
                    break
                out.append(Oversized(size, bytes(data[start : start + head])))
                self._skip = max(0, size - (end - start))
                at = min(end, start + size)
                continue
            if end - start < size:
                missing += size
                break
            at = start + size
            out.append(data[start:at])
        if at < end:
            self._partial += data[at:]
            self._missing = missing - (end - at)
        return out

    def _resume(self, data: memoryview, out: list[memoryview | Oversized]) -> memoryview:
        """Finish the message that was cut off, and only that; what is left of `data`."""
        while self._partial:
            piece = data[: self._missing]
            self._partial += piece
            self._missing -= len(piece)
            data = data[len(piece) :]
            if self._missing:
                return data
            whole, self._partial = memoryview(self._partial), bytearray()
            out += self.feed(whole)
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        return data[skipped:]
