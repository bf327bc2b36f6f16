"""Who may ask the admin endpoints: bearer tokens in a file, and what must hold between the flags.

Client certificates are TLS's matter (`net/tls.py`). Upstream has neither (W50).
"""

from __future__ import annotations

import asyncio
import hmac
import os
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

from konnectivity.errors import ConfigError
from konnectivity.flag import absence
from konnectivity.gotext import quote
from konnectivity.observe import logs
from konnectivity.observe.route import Request, Response

log = logs.get(__name__)

LARGEST_FILE: Final = 64 << 10
LOOK_EVERY: Final = 1.0
"""Seconds for which the file is taken to be unchanged."""
LOOPBACK: Final = frozenset(["127.0.0.1", "::1", "localhost"])
REALM: Final = 'Bearer realm="konnectivity"'


class BearerTokens:
    """The tokens of one file, one a line; any of them opens. Read again when the file changes.

    Only their hashes are kept. While a changed file is unreadable or empty the old ones count.
    """

    def __init__(self, path: str) -> None:
        """Read the file.

        Raises:
            ConfigError: unreadable, too large, or without a token.
        """
        self._path = path
        self._version = _version(path)
        self._hashes = _read(path)
        self._looked = time.monotonic()

    async def refusal(self, request: Request) -> Response | None:
        """The answer to a request that bears no valid token; None for one that does.

        Source: RFC 6750, 3.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return _unauthorized(REALM)
        await self._look()
        digest = _hash(token.strip().encode())
        # All are compared, so that the time does not tell which one was near.
        found = [hmac.compare_digest(digest, each) for each in self._hashes]
        if any(found):
            return None
        log.summarised("token", "Admin request refused: its token is none of ours")
        return _unauthorized(f'{REALM}, error="invalid_token"')

    async def _look(self) -> None:
        """Take a changed file in, in a thread: it may lie on a slow volume."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY:
            return
        self._looked = now
        try:
            version = await asyncio.to_thread(_version, self._path)
            if version == self._version:
                return
            self._hashes = await asyncio.to_thread(_read, self._path)
        except ConfigError as error:
            log.warning("Admin tokens stay as they were", cause=str(error))
            return
        self._version = version
        log.info("Admin tokens were read again", file=self._path, tokens=len(self._hashes))


def warn_of_plain_text(host: str, *, encrypted: bool) -> None:
    """Say so if tokens can be read on their way to a listener."""
    if not encrypted and host not in LOOPBACK:
        log.warning("Admin tokens travel unencrypted: --admin-cert is not set", address=host)


def _unauthorized(challenge: str) -> Response:
    return Response(b"unauthorized\n", status=401, headers=(("WWW-Authenticate", challenge),))


def _hash(token: bytes) -> bytes:
    return sha256(token).digest()


def _version(path: str) -> tuple[int, int, int]:
    """What changes whenever the file does, also when a link to it is turned."""
    try:
        found = os.stat(path)  # noqa: PTH116 - follows links, as a mounted secret needs
    except OSError as error:
        raise _unreadable(path, error) from error
    return found.st_mtime_ns, found.st_ino, found.st_size


def _read(path: str) -> tuple[bytes, ...]:
    try:
        with Path(path).open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    tokens = [line.strip() for line in data.splitlines() if line.strip()]
    if len(data) > LARGEST_FILE or not tokens or not data.isascii():
        raise ConfigError(
            f"--admin-token-file={quote(path)} holds no tokens: lines of ASCII are wanted, "
            f"{LARGEST_FILE} bytes at most"
        )
    return tuple(_hash(token) for token in tokens)


def _unreadable(path: str, error: OSError) -> ConfigError:
    return ConfigError(f"cannot read --admin-token-file={quote(path)}: {error.strerror}")


def check(cert: str, key: str, client_ca: str, token_file: str) -> Iterator[str]:
    """What is wrong with the admin flags of either program, a line each."""
    if bool(cert) != bool(key):
        missing, given, value = ("key", "cert", cert) if cert else ("cert", "key", key)
        yield f"cannot have admin {missing} empty when admin {given} is set to {quote(value)}"
    if client_ca and not (cert and key):
        yield "--admin-client-ca needs --admin-cert and --admin-key: only TLS has certificates"
    for name, path in (
        ("cert", cert),
        ("key", key),
        ("client CA", client_ca),
        ("token file", token_file),
    ):
        if path and (problem := absence(path)):
            yield f"error checking admin {name} {path}, got {problem}"
