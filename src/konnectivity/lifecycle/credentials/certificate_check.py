"""What the certificate in a cluster is worth: is it whole, of a CA that counts, and in its time?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from konnectivity.errors import ConfigError
from konnectivity.lifecycle.credentials.certificate_objects import CERTIFICATE, KEY, secret_entry
from konnectivity.net.certificate import Certificate
from konnectivity.pki.authority import fits, is_issued_by, load_certificate, load_key


@dataclass(frozen=True, slots=True)
class Verdict:
    """`fault` is empty if nothing is wrong but perhaps its time; `reason` is a word for it."""

    certificate: Certificate | None
    reason: str = ""
    fault: str = ""

    def at(self, now: float) -> tuple[str, str]:
        """Reason and fault at `now`, in Unix seconds; both empty if nothing is wrong."""
        if self.certificate is None or self.fault:
            return self.reason, self.fault
        late = self.certificate.fault_at(now)
        word = "NotYetValid" if now < self.certificate.not_before else "Expired"
        return (word, late) if late else ("", "")


def check(secret: Mapping[str, Any], bundle: bytes) -> Verdict:
    """Judge the certificate in a Secret; `bundle` are the CAs that servers trust, PEM."""
    try:
        certificate = load_certificate(secret_entry(secret, CERTIFICATE).encode(), what=CERTIFICATE)
        key = load_key(secret_entry(secret, KEY).encode(), what=KEY)
    except ConfigError as error:
        return Verdict(None, "Damaged", str(error))
    facts = Certificate.parse(certificate.public_bytes(Encoding.DER))
    if not fits(certificate, key):
        return Verdict(facts, "Damaged", f"{KEY}: does not belong to the certificate")
    if not any(is_issued_by(certificate, each) for each in _authorities(bundle)):
        return Verdict(facts, "UnknownAuthority", "is of a CA that servers do not trust")
    return Verdict(facts)


def _authorities(bundle: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(bundle)
    except ValueError:
        return []
