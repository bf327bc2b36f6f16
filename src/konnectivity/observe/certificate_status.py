"""Certificate files in the status; what `net/certificate.py` knows of them, seen from here."""

from __future__ import annotations

from typing import Protocol

from konnectivity.observe.status import Certificate, Time


class Validity(Protocol):
    """A certificate."""

    @property
    def fingerprint_sha256(self) -> str: ...
    @property
    def not_before(self) -> float: ...
    @property
    def not_after(self) -> float: ...


class CertificateFile(Protocol):
    """A file with certificates, as `net/certificate.py` has it."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def in_use(self) -> Validity: ...
    @property
    def on_disk(self) -> Validity | None: ...
    @property
    def loaded_at(self) -> float: ...
    @property
    def error(self) -> str: ...


def certificate_file(facts: CertificateFile) -> Certificate:
    """A certificate file for the status."""
    in_use, on_disk = facts.in_use, facts.on_disk
    return Certificate(
        name=facts.name,
        path=facts.path,
        fingerprint_sha256=in_use.fingerprint_sha256,
        not_before=Time(in_use.not_before),
        not_after=Time(in_use.not_after),
        loaded_at=Time(facts.loaded_at),
        disk_fingerprint_sha256=on_disk.fingerprint_sha256 if on_disk else None,
        disk_not_after=Time(on_disk.not_after) if on_disk else None,
        error=facts.error,
    )
