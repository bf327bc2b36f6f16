"""Names what a peer speaks that speaks something else, from its first bytes: for one clear line."""

from __future__ import annotations


def describe(first: bytes) -> str:
    """What a connection that begins with `first` is, as far as the bytes tell."""
    if len(first) >= 3 and first[0] == 0x16 and first[1] == 0x03 and first[2] <= 0x04:
        return "the peer speaks TLS on a port for plain text"  # a ClientHello, RFC 8446, 5.1
    if first.startswith((b"CONNECT ", b"GET ", b"POST ", b"HEAD ", b"HTTP/1")):
        return "the peer speaks HTTP/1"
    if first.startswith(b"PRI * HTTP/2"):
        return "the peer speaks HTTP/2"
    return f"the first bytes are {first[:16]!r}"
