"""HTTP/1.1 heads for CONNECT: parse a request or a response head within hard limits.

Only heads: behind them a tunnel carries raw bytes. Limits are arguments of the parser because
they are what keeps a slow or hostile client from costing memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from konnectivity.errors import Http1Error
from konnectivity.wire.foreign import describe

MAX_HEAD: Final = 64 << 10
"""Bytes of a head, request line included. Go's default is 1 MiB; CONNECT needs a hundred bytes."""
MAX_FIELDS: Final = 100

# RFC 9110, 5.6.2 and RFC 9112, 3 and 5.
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_REQUEST_LINE: Final = re.compile(rb"([!-~]+) ([!-~]+) HTTP/1\.([01])\Z")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*\Z")
_LENGTH: Final = re.compile(r"[0-9]{1,18}\Z")
_STATUS_START: Final = b"HTTP/1."
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: ([\x20-\x7e\x80-\xff]*))?\Z")

# The whole head of kube-apiserver's requests: most are read by this alone.
_PLAIN: Final = re.compile(rb"CONNECT ([!-~]+) HTTP/1\.1\r\nHost: ([!-~]*)\r\n\r\n")

ESTABLISHED: Final = b"HTTP/1.1 200 Connection Established\r\n\r\n"


@dataclass(slots=True)
class Request:
    """A request head. `target` as on the request line; `rest` is what followed the head."""

    method: str
    target: str
    host: str
    minor: int
    fields: tuple[tuple[str, str], ...]
    rest: bytes

    @property
    def destination(self) -> str:
        """Where CONNECT leads: the target's authority, or Host where the target has none."""
        return self.host if self.target.startswith("/") else self.target

    @property
    def body_size(self) -> int:
        """Content-Length, or 0."""
        return int(dict(self.fields).get("content-length", 0))

    @property
    def keeps_alive(self) -> bool:
        """Whether another request may follow on this connection.

        None behind a transfer coding, which is not decoded here.
        """
        if any(name == "transfer-encoding" for name, _ in self.fields):
            return False
        values = ",".join(value for name, value in self.fields if name == "connection")
        options = {option.strip().lower() for option in values.split(",")}
        return "close" not in options if self.minor else "keep-alive" in options


@dataclass(frozen=True, slots=True)
class Response:
    """A response head, and the bytes that followed it."""

    status: int
    reason: str
    fields: tuple[tuple[str, str], ...]
    rest: bytes


def _split(buffer: bytes, limit: int) -> tuple[list[bytes], bytes] | None:
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > limit:
            raise Http1Error(431, f"the head is longer than {limit} bytes")
        return None
    if end > limit:
        raise Http1Error(431, f"the head is longer than {limit} bytes")
    return buffer[:end].split(b"\r\n"), buffer[end + 4 :]


def _fields(lines: list[bytes]) -> tuple[tuple[str, str], ...]:
    if len(lines) > MAX_FIELDS:
        raise Http1Error(431, f"more than {MAX_FIELDS} header fields")
    fields = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.match(name):
            raise Http1Error(400, "a header line is malformed")
        value = value.strip(b" \t")
        if not _VALUE.match(value):
            raise Http1Error(400, "a header value has control characters")
        fields.append((name.decode().lower(), value.decode("latin-1")))
    return tuple(fields)


def parse_request(buffer: bytes, *, limit: int = MAX_HEAD) -> Request | None:
    """The request head at the start of `buffer`, or None while it is incomplete.

    Raises:
        Http1Error: malformed (400), too large (431), or another version of HTTP (505).
    """
    plain = _PLAIN.match(buffer)
    if plain is not None and plain.end() - 4 <= limit:
        target, host = plain[1].decode(), plain[2].decode()
        rest = buffer[plain.end() :]
        return Request("CONNECT", target, host, 1, (("host", host),), rest)
    split = _split(buffer, limit)
    if split is None:
        _refuse_early(buffer)
        return None
    lines, rest = split
    match = _REQUEST_LINE.match(lines[0])
    if match is None or not _TOKEN.match(match[1]):
        version = lines[0].rpartition(b" ")[2]
        if version.startswith(b"HTTP/") and not version.startswith(b"HTTP/1."):
            raise Http1Error(505, f"HTTP version {version.decode('latin-1')!r}")
        raise Http1Error(400, "the request line is malformed")
    fields = _fields(lines[1:])
    hosts = [value for name, value in fields if name == "host"]
    if len(hosts) > 1:
        raise Http1Error(400, "more than one Host header")
    lengths = {value for name, value in fields if name == "content-length"}
    if len(lengths) > 1 or not all(_LENGTH.match(value) for value in lengths):
        raise Http1Error(400, "Content-Length is not one number")
    return Request(
        method=match[1].decode(),
        target=match[2].decode(),
        host=hosts[0] if hosts else "",
        minor=int(match[3]),
        fields=fields,
        rest=rest,
    )


def _refuse_early(buffer: bytes) -> None:
    """Refuse what can never become a request, e.g. a TLS ClientHello, without waiting for more."""
    if buffer and not _TOKEN.match(buffer[:16].split(b" ", 1)[0] or b"\0"):
        raise Http1Error(400, f"not HTTP/1: {describe(buffer)}")


def parse_response(buffer: bytes, *, limit: int = MAX_HEAD) -> Response | None:
    """The response head at the start of `buffer`, or None while it is incomplete.

    Raises:
        Http1Error: malformed or too large; its status is 502, what a proxy would answer.
    """
    if not _STATUS_START.startswith(buffer[: len(_STATUS_START)]):
        raise Http1Error(502, f"not an HTTP/1 answer: {buffer[:32]!r}")
    try:
        split = _split(buffer, limit)
        if split is None:
            return None
        lines, rest = split
        fields = _fields(lines[1:])
    except Http1Error as error:
        raise Http1Error(502, str(error)) from None
    match = _STATUS_LINE.match(lines[0])
    if match is None:
        raise Http1Error(502, f"not an HTTP/1 answer: {lines[0][:32]!r}")
    reason = (match[2] or b"").decode("latin-1")
    return Response(int(match[1]), reason, fields, rest)


def response(status: int, reason: str, body: str, *, fields: tuple[tuple[str, str], ...]) -> bytes:
    """An answer with a text body, header fields in the order given."""
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"HTTP/1.1 {status} {reason}\r\n{head}\r\n{body}".encode("utf-8", "replace")
