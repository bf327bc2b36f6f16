"""The bytes that a bulk transfer moves: random, never the same twice, cheap to make."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Final

BULK: Final = 100_000_000
"""Bytes that cross in each direction."""
CHUNK: Final = 1 << 16


class Payload:
    """`size` bytes, the same each time; a chunk lost, doubled or moved changes the digest."""

    def __init__(self, size: int = BULK) -> None:
        self.size = size
        self._noise = os.urandom(CHUNK - 8)

    def __iter__(self) -> Iterator[bytes]:
        for offset in range(0, self.size, CHUNK):
            chunk = offset.to_bytes(8, "big") + self._noise
            yield chunk[: self.size - offset]

    def digest(self) -> str:
        """SHA-256, in hexadecimal."""
        sha256 = hashlib.sha256()
        for chunk in self:
            sha256.update(chunk)
        return sha256.hexdigest()
