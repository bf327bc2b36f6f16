"""A throwaway CA and the certificates of one demo, written as files that only their owner reads."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from konnectivity.pki import authority
from konnectivity.pki.role import Leaf, Role

LIFETIME: Final = authority.DAY


class KeyPair(NamedTuple):
    """A certificate and its private key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A CA that lives as long as this object; its own key is never written."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = authority.Authority.create(
            "konnectivity demo CA", now=time.time(), lifetime=LIFETIME
        )
        self.bundle = _write(directory / "ca.crt", self._authority.pair.certificate)

    def issue_server(self, name: str, hosts: Sequence[str]) -> KeyPair:
        """A certificate to serve with, valid for the names and IP addresses in `hosts`."""
        return self._issue(Leaf(name, Role.SERVER, tuple(hosts)))

    def issue_client(self, name: str) -> KeyPair:
        """A certificate to identify with as a client; `name` is its common name."""
        return self._issue(Leaf(name, Role.AGENT))

    def _issue(self, leaf: Leaf) -> KeyPair:
        pair = self._authority.issue(leaf, now=time.time(), lifetime=LIFETIME)
        return KeyPair(
            _write(self._directory / f"{leaf.name}.crt", pair.certificate),
            _write(self._directory / f"{leaf.name}.key", pair.key),
        )


def _write(path: Path, content: bytes) -> Path:
    """Create `path`, readable by its owner from the first byte on."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    return path
