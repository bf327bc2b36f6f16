"""Certificates, keys and CA bundles that follow their files while the program runs (W51).

A `LiveContext` stands for one `Context` and the files it is made of. `CertificateWatch`, one task
for all of them, reads the files now and then; a set that is new, whole and fits together makes a
new context, which counts from the next handshake on. Connections that are up stay. What is wrong
with a new set is logged once, and the old one stays in use until the files are right.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from konnectivity.errors import ConfigError
from konnectivity.net.certificate import Certificate, CertificateFacts, utc
from konnectivity.net.tls import pem_blocks

log = logging.getLogger(__name__)

INTERVAL: Final = 10.0
"""Seconds between looks. A look reads some files of a few kilobytes: less than 0.1 ms."""
Tell = Callable[[str, CertificateFacts], None]
DAY: Final = 86400.0
NOTICES: Final = ((14 * DAY, 4), (DAY, 12))
"""An expiry is logged this many seconds ahead, or this part of the lifetime if that is less."""


class Holds(Enum):
    """What a file is for."""

    CHAIN = "a certificate, and those between it and its CA"
    KEY = "a private key"
    BUNDLE = "CAs that peers' certificates must chain to"


@dataclass(frozen=True, slots=True)
class PemFile:
    """One file of a context. `flag` is the name of its flag, without dashes."""

    flag: str
    path: str
    holds: Holds


@dataclass(frozen=True, slots=True)
class _Reading:
    """All files of a context as they were at one moment."""

    digests: Mapping[str, bytes]  # of the content, by flag
    certificates: Mapping[str, Certificate]  # by flag; the one that stands for the file


def _nothing(news: str, facts: CertificateFacts) -> None:
    """Nobody listens."""


class LiveContext:
    """A context that follows its files. Call it for the one to use now.

    `make` reads the files and may raise ConfigError, as `tls.server_context` does. Files without
    a path are left out. `clock` gives Unix seconds; `tell` hears what is logged, too.

    Raises:
        ConfigError: the files of the start are wrong; with the names of their flags.
    """

    def __init__(
        self,
        make: Callable[[], ssl.SSLContext],
        files: Sequence[PemFile],
        *,
        clock: Callable[[], float] = time.time,
        tell: Tell = _nothing,
    ) -> None:
        self.error = ""
        self._tell = tell
        self._make = make
        self._files = [file for file in files if file.path]
        self._clock = clock
        self._noticed: dict[str, tuple[Certificate, int]] = {}
        self._on_disk = self._read()
        try:
            self._context = make()
        except ConfigError as error:
            flags = ", ".join(f"--{file.flag}" for file in self._files)
            raise ConfigError(f"{flags}: {error}" if flags else str(error)) from error
        self._in_use = self._on_disk
        self._loaded_at = clock()
        self._notice()

    def __call__(self) -> ssl.SSLContext:
        """The context for the next handshake."""
        return self._context

    @property
    def certificates(self) -> list[CertificateFacts]:
        """A line for each file that holds certificates."""
        return [
            CertificateFacts(
                name=file.flag,
                path=file.path,
                in_use=self._in_use.certificates[file.flag],
                on_disk=self._on_disk.certificates.get(file.flag),
                loaded_at=self._loaded_at,
                error=self.error,
            )
            for file in self._files
            if file.flag in self._in_use.certificates
        ]

    def look(self) -> None:
        """Read the files, take them over if they are new and good, tell of what expires."""
        reading = self._read(self._in_use, self._on_disk)
        if reading is self._in_use:
            self._on_disk, self.error = reading, ""
        else:
            self._consider(reading)
        self._notice()

    def _consider(self, reading: _Reading) -> None:
        context, fault = None, ""
        try:
            self._check_times(reading)
            context = self._make()
        except ConfigError as error:
            fault = str(error)
        if self._read(reading) is not reading:
            return  # they are being written right now; the next look sees them whole
        news = reading is not self._on_disk or fault != self.error
        self._on_disk, self.error = reading, fault
        if context is not None:
            before, self._in_use = self._in_use, reading
            self._context, self._loaded_at = context, self._clock()
            self._tell_of_news(before)
        elif news:
            log.warning(
                "New certificates are not used, the old ones stay in use",
                extra=_values(cause=fault),
            )
            for facts in self.certificates:
                self._tell("rejected", facts)

    def _check_times(self, reading: _Reading) -> None:
        """Keep what is valid by our clock rather than take what is not."""
        now = self._clock()
        for file in self._files:
            old, new = (each.certificates.get(file.flag) for each in (self._in_use, reading))
            if new and old and new.fault_at(now) and not old.fault_at(now):
                raise ConfigError(
                    f"--{file.flag}: {file.path}: {new.fault_at(now)}, by this machine's clock"
                )

    def _tell_of_news(self, before: _Reading) -> None:
        for facts in self.certificates:
            if self._in_use.digests[facts.name] != before.digests[facts.name]:
                log.info(
                    "New certificates in use",
                    extra=_values(
                        flag=f"--{facts.name}",
                        path=facts.path,
                        fingerprint=facts.in_use.fingerprint_sha256,
                        expires=utc(facts.in_use.not_after),
                    ),
                )
                self._tell("reloaded", facts)

    def _notice(self) -> None:
        """Log each certificate in use that is about to expire: once for each step towards it."""
        now = self._clock()
        for facts in self.certificates:
            step = _step(facts.in_use, now)
            if (facts.in_use, step) != self._noticed.get(facts.name):
                self._noticed[facts.name] = (facts.in_use, step)
                if step:
                    log.warning(
                        "Put a new certificate in its place, no restart is needed",
                        extra=_values(
                            flag=f"--{facts.name}",
                            path=facts.path,
                            cause=f"the one in use {_outlook(facts.in_use, now)}",
                        ),
                    )
                    self._tell("expiring", facts)

    def _read(self, *known: _Reading) -> _Reading:
        """What the files hold now; the one of `known` that it equals.

        The content is read each time: times and sizes of files do not tell of every change.
        """
        contents = {file: _content(file.path) for file in self._files}
        digests = {file.flag: hashlib.sha256(each).digest() for file, each in contents.items()}
        for reading in known:
            if reading.digests == digests:
                return reading
        found = {file.flag: _representative(file.holds, each) for file, each in contents.items()}
        return _Reading(digests, {flag: each for flag, each in found.items() if each})


class CertificateWatch:
    """Looks after files every `interval` seconds, from `async with` on until its block ends."""

    def __init__(self, interval: float = INTERVAL) -> None:
        self._interval = interval
        self.tell: Tell = _nothing
        """Hears of certificates: `reloaded`, `rejected` or `expiring`."""
        self._contexts: list[LiveContext] = []
        self._task: asyncio.Task[None] | None = None

    def add(
        self, make: Callable[[], ssl.SSLContext], files: Sequence[PemFile]
    ) -> Callable[[], ssl.SSLContext]:
        """What gives the context that `make` made last of `files`.

        Raises:
            ConfigError: as `make` does.
        """
        context = LiveContext(make, files, tell=lambda news, facts: self.tell(news, facts))
        self._contexts.append(context)
        return context

    @property
    def certificates(self) -> list[CertificateFacts]:
        """Of all contexts, in the order of adding them."""
        return [facts for context in self._contexts for facts in context.certificates]

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            for context in self._contexts:
                try:
                    context.look()
                except Exception:  # a fault of ours must not end the looking
                    log.exception("Cannot look after certificates")


def _values(**values: object) -> dict[str, object]:
    """What a log record of `observe/logs.py` carries, which this ring does not know."""
    return {"values": values}


def _content(path: str) -> bytes:
    """What is in a file, or why that cannot be known, which changes as well."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        return repr(error).encode()


def _representative(holds: Holds, content: bytes) -> Certificate | None:
    """The first certificate of a chain, or the one of a bundle that expires last."""
    found: list[Certificate] = []
    if holds is Holds.KEY:
        return None
    for label, der in pem_blocks(content):
        if label == b"CERTIFICATE":
            try:
                found.append(Certificate.parse(der))
            except ValueError:
                return None
    if holds is Holds.CHAIN:
        return found[0] if found else None
    return max(found, key=lambda each: each.not_after, default=None)


def _step(certificate: Certificate, now: float) -> int:
    """How near a certificate is to its end, from 0, far away, to 3, not valid."""
    if certificate.fault_at(now):
        return len(NOTICES) + 1
    left = certificate.not_after - now
    return sum(left < min(ahead, certificate.lifetime / part) for ahead, part in NOTICES)


def _outlook(certificate: Certificate, now: float) -> str:
    fault = certificate.fault_at(now)
    if fault:
        return f"{fault}, by this machine's clock"
    return f"expires at {utc(certificate.not_after)}"
