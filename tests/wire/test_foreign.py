from __future__ import annotations

import pytest

from konnectivity.wire.foreign import describe


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (b"\x16\x03\x01\x02\x00\x01", "the peer speaks TLS on a port for plain text"),
        (b"GET / HTTP/1.1\r\n", "the peer speaks HTTP/1"),
        (b"PRI * HTTP/2.0\r\n", "the peer speaks HTTP/2"),
        (b"\x16\x03", "the first bytes are b'\\x16\\x03'"),
        (bytes(100), f"the first bytes are {bytes(16)!r}"),
        (b"", "the first bytes are b''"),
    ],
)
def test_a_peer_is_named_by_its_first_bytes(first: bytes, said: str) -> None:
    assert describe(first) == said
