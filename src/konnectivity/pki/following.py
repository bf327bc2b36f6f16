"""What a cluster has of a directory's certificates, told by the manager that brings them there.

    cluster.json    in the directory: bundle and certificate that the cluster has, and since when

A rotation of the CA reads it before each step, so that no CA is dropped that a cluster still
needs. Without the file nobody carries certificates to a cluster. It holds no secret.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from konnectivity.errors import CertificateError
from konnectivity.net.certificate import utc
from konnectivity.pki import files
from konnectivity.pki.directory import Directory
from konnectivity.pki.inspection import examine_leaf

FILE: Final = "cluster.json"


@dataclass(frozen=True, slots=True)
class Following:
    """Digests of what a cluster has, SHA-256 in hexadecimal; `since` is in Unix seconds."""

    bundle: str
    certificate: str
    since: float


def digest(bundle: bytes) -> str:
    """By what a bundle is known again."""
    return hashlib.sha256(bundle).hexdigest()


def note(path: Path, *, bundle: bytes, certificate: str, now: float) -> None:
    """Write down what the cluster has; the time stays if it has had that before.

    Raises:
        CertificateError: it cannot be written; what was there is unchanged.
    """
    try:
        before = recall(path)
    except CertificateError:
        before = None  # damaged: it is written anew
    found = digest(bundle)
    if before is not None and (before.bundle, before.certificate) == (found, certificate):
        return
    content = {"bundle": found, "certificate": certificate, "since": now}
    files.put(path, {FILE: json.dumps(content, indent=2).encode() + b"\n"})


def recall(path: Path) -> Following | None:
    """What was written down; None: nothing.

    Raises:
        CertificateError: it cannot be read, or is damaged.
    """
    if not (path / FILE).exists():
        return None
    try:
        found = json.loads(files.read(path / FILE))
        return Following(str(found["bundle"]), str(found["certificate"]), float(found["since"]))
    except (ValueError, KeyError, TypeError):
        raise CertificateError(
            f"{path / FILE}: damaged; delete it, a manager that runs writes it anew"
        ) from None


def lag(directory: Directory, *, now: float) -> tuple[str, float]:
    """What the cluster lacks of a directory, and since when it has had what it has, Unix seconds.

    The first is empty if it lacks nothing; both are if no manager tells.

    Raises:
        CertificateError: what the manager told cannot be read.
    """
    found = recall(directory.path)
    if found is None:
        return "", 0.0
    if found.bundle != digest(directory.bundle()):
        return "bundle of CAs", found.since
    leaf = directory.state.agent
    if leaf is not None:
        certificate = examine_leaf(directory, leaf, now=now).certificate
        if certificate is None or certificate.fingerprint_sha256 != found.certificate:
            return f"certificate {leaf.name}", found.since
    return "", found.since


def expect_followed(directory: Directory, *, now: float, after: float) -> None:
    """Make sure that the cluster has had all of a directory for `after` seconds, if it is told.

    Raises:
        CertificateError: it has not.
    """
    missing, since = lag(directory, now=now)
    if missing:
        raise CertificateError(
            f"the cluster does not have the {missing} yet, says {directory.path / FILE}; look at "
            "the manager that brings it there, or delete this file if there is none any more"
        )
    if now < since + after:
        raise CertificateError(
            f"the cluster has all since {utc(since)}; the next step is possible from "
            f"{utc(since + after)} on, when agents have taken it over (--after changes that)"
        )
