"""What lies in a directory of certificates, and what is wrong with it. Nothing is changed here."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from konnectivity.errors import CertificateError, ConfigError
from konnectivity.net.certificate import Certificate, utc
from konnectivity.pki import files
from konnectivity.pki.authority import (
    fits,
    hosts_of,
    is_issued_by,
    load_certificate,
    load_key,
    role_of,
)
from konnectivity.pki.directory import CERTIFICATE, KEY, Directory
from konnectivity.pki.renewal import is_due, renew_at
from konnectivity.pki.role import Leaf, is_address

_OTHERS: Final = 0o077


@dataclass(frozen=True, slots=True)
class Report:
    """One certificate. Without a readable one, all but `name`, `role` and `problems` is empty.

    `issuer` is the number of one of our CAs. `renew_at` is in Unix seconds; a CA has it too,
    though only people renew it.
    """

    name: str
    role: str
    certificate: Certificate | None = None
    subject: str = ""
    hosts: tuple[str, ...] = ()
    issuer: int | None = None
    issuer_name: str = ""
    problems: tuple[str, ...] = ()

    @property
    def renew_at(self) -> float | None:
        return renew_at(self.certificate) if self.certificate else None


@dataclass(frozen=True, slots=True)
class Findings:
    """All of a directory. `problems` are those of no single certificate."""

    authorities: tuple[Report, ...]
    leaves: tuple[Report, ...]
    problems: tuple[str, ...]

    @property
    def all_problems(self) -> list[str]:
        """Each with the name of what it is about."""
        named = [f"{each.name}: {problem}" for each in self._reports for problem in each.problems]
        return [*named, *self.problems]

    @property
    def _reports(self) -> tuple[Report, ...]:
        return (*self.authorities, *self.leaves)


def examine(directory: Directory, *, now: float) -> Findings:
    """Look at everything in a directory."""
    state = directory.state
    return Findings(
        authorities=tuple(_authority(directory, each, now=now) for each in state.known),
        leaves=tuple(examine_leaf(directory, each, now=now) for each in state.leaves),
        problems=tuple(_bundle_problems(directory)),
    )


def examine_leaf(directory: Directory, leaf: Leaf, *, now: float) -> Report:
    """Look at one leaf: its certificate, its key, and whether they are what was wished for."""
    folder = directory.folder(leaf)
    try:
        pem = files.read(folder / CERTIFICATE)
        certificate = load_certificate(pem, what=str(folder / CERTIFICATE))
    except (CertificateError, ConfigError) as error:
        return Report(leaf.name, leaf.role, problems=(str(error),))
    facts = _facts(certificate)
    issuer = _issuer(directory, certificate)
    problems = [
        *_time_problems(facts, now),
        *_key_problems(folder / KEY, certificate),
        *_wish_problems(leaf, certificate),
    ]
    if issuer is None:
        problems.append("is not issued by the CA of this directory")
    return Report(
        name=leaf.name,
        role=leaf.role,
        certificate=facts,
        subject=certificate.subject.rfc4514_string(),
        hosts=tuple(hosts_of(certificate)),
        issuer=issuer,
        issuer_name=certificate.issuer.rfc4514_string(),
        problems=tuple(problems),
    )


def reason_to_renew(directory: Directory, leaf: Leaf, *, now: float) -> str:
    """Why a leaf must be issued anew; empty if it need not."""
    if not (directory.folder(leaf) / CERTIFICATE).exists():
        return "there was none"
    report = examine_leaf(directory, leaf, now=now)
    if report.problems:
        return report.problems[0]
    if report.issuer != directory.state.signing:
        return f"was issued by CA {report.issuer}"
    if report.certificate is not None and is_due(report.certificate, now):
        return f"was due at {utc(renew_at(report.certificate))}"
    return ""


def _authority(directory: Directory, number: int, *, now: float) -> Report:
    name = f"CA {number}"
    try:
        pem = directory.authority_certificate(number)
        certificate = load_certificate(pem, what=f"{name} certificate")
    except (CertificateError, ConfigError) as error:
        return Report(name, "ca", problems=(str(error),))
    facts, key = _facts(certificate), directory.authority_key(number)
    trusted = number in directory.state.trusted
    problems = [*(_time_problems(facts, now) if trusted else ())]
    if key.exists():  # elsewhere is a good place for it
        problems += _key_problems(key, certificate)
    return Report(
        name=name,
        role="ca",
        certificate=facts,
        subject=certificate.subject.rfc4514_string(),
        issuer_name=certificate.issuer.rfc4514_string(),
        problems=tuple(problems),
    )


def _facts(certificate: x509.Certificate) -> Certificate:
    return Certificate.parse(certificate.public_bytes(Encoding.DER))


def _issuer(directory: Directory, certificate: x509.Certificate) -> int | None:
    for number in directory.state.known:
        try:
            pem = directory.authority_certificate(number)
            authority = load_certificate(pem, what=f"CA {number} certificate")
        except (CertificateError, ConfigError):
            continue
        if is_issued_by(certificate, authority):
            return number
    return None


def _time_problems(certificate: Certificate, now: float) -> Iterator[str]:
    fault = certificate.fault_at(now)
    if fault:
        yield fault


def _key_problems(path: Path, certificate: x509.Certificate) -> Iterator[str]:
    try:
        mode = path.stat().st_mode & 0o777
        key = load_key(files.read(path), what=str(path))
    except OSError as error:
        yield f"{path}: {(error.strerror or str(error)).lower()}"
        return
    except (CertificateError, ConfigError) as error:
        yield str(error)
        return
    if mode & _OTHERS:
        yield f"{path}: mode {mode:04o} lets others read the key; must be {files.PRIVATE:04o}"
    if not fits(certificate, key):
        yield f"{path}: does not belong to the certificate"


def _wish_problems(leaf: Leaf, certificate: x509.Certificate) -> Iterator[str]:
    if role_of(certificate) is not leaf.role:
        yield f"is not for the role {leaf.role}"
    missing = _alike(leaf.hosts) - _alike(hosts_of(certificate))
    if missing:
        yield f"lacks the names {', '.join(sorted(missing))}"


def _alike(hosts: list[str] | tuple[str, ...]) -> set[str]:
    """Names and addresses in the form in which they are compared."""
    return {str(ipaddress.ip_address(h)) if is_address(h) else h.lower() for h in hosts}


def _bundle_problems(directory: Directory) -> Iterator[str]:
    try:
        wanted = directory.bundle()
    except CertificateError:
        return  # told with the CA
    for path in directory.bundle_paths():
        try:
            if files.read(path) != wanted:
                yield f"{path}: is not the bundle of the CAs that are trusted now"
        except CertificateError as error:
            yield str(error)
