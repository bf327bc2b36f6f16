"""A certificate authority for tests, with its files on disk."""

from __future__ import annotations

import datetime
import itertools
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Identity:
    cert: str
    key: str


class Authority:
    """Issues certificates into `folder`; `bundle` is the CA's own file."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder / name
        self._folder.mkdir()
        self._numbers = itertools.count(1)
        self._ca = trustme.CA(organization_name="konnectivity tests")
        self.bundle = str(self._folder / "ca.crt")
        self._ca.cert_pem.write_to_path(self.bundle)

    def issue(self, *names: str, **options: object) -> Identity:
        """A certificate for names and IP addresses; options are those of `trustme.CA`."""
        leaf = self._ca.issue_cert(*names, **options)
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        return self._write(chain, leaf.private_key_pem.bytes())

    def expired(self, *names: str) -> Identity:
        return self.issue(*names, not_before=NOW - 9 * DAY, not_after=NOW - DAY)

    def future(self, *names: str) -> Identity:
        return self.issue(*names, not_before=NOW + DAY, not_after=NOW + 9 * DAY)

    def issue_rsa(self) -> Identity:
        """A certificate for localhost with an RSA key."""
        return self.issue("localhost", key_type=trustme.KeyType.RSA)

    def issue_weak(self) -> Identity:
        """A self-signed certificate with a key that no library accepts any more."""
        key = rsa.generate_private_key(65537, 1024)  # noqa: S505 - it is meant to be refused
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "weak")])
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW - DAY, NOW + DAY)
        cert = builder.sign(key, hashes.SHA256())
        return self._write(cert.public_bytes(serialization.Encoding.PEM), private_pem(key))

    def intermediate(self) -> tuple[str, Identity]:
        """The file of a CA below this one, and a certificate for localhost that it issued."""
        child = self._ca.create_child_ca()
        path = self._folder / "intermediate.crt"
        child.cert_pem.write_to_path(str(path))
        leaf = child.issue_cert("localhost")
        return str(path), self._write(leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes())

    def expired_ca(self) -> tuple[str, Identity]:
        """The file of a CA that has expired, and a valid certificate for localhost of it."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "expired CA")])
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW - 9 * DAY, NOW - DAY)
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
        ca = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        path = self._folder / "expired.crt"
        path.write_bytes(ca)
        own = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        builder = x509.CertificateBuilder(name, subject, own.public_key(), 2, NOW - DAY, NOW + DAY)
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        leaf = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
        pem = leaf.public_bytes(serialization.Encoding.PEM)
        return str(path), self._write(pem, private_pem(own))

    def issue_odd(
        self,
        *,
        common_name: str = "odd",
        names: tuple[str, ...] = (),
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
        forged: bool = False,
    ) -> Identity:
        """What trustme does not make: no alternative names, one use only, a forged signature."""
        issuer = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        ca_key = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - DAY)
            .not_valid_after(NOW + DAY)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        if names:
            alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            builder = builder.add_extension(alternatives, critical=False)
        signer = ec.generate_private_key(ec.SECP256R1()) if forged else ca_key
        cert = builder.sign(signer, hashes.SHA256())  # type: ignore[arg-type]
        return self._write(cert.public_bytes(serialization.Encoding.PEM), private_pem(key))

    def _write(self, cert: bytes, key: bytes) -> Identity:
        number = next(self._numbers)
        made = Identity(str(self._folder / f"{number}.crt"), str(self._folder / f"{number}.key"))
        Path(made.cert).write_bytes(cert)
        Path(made.key).write_bytes(key)
        return made


def private_pem(
    key: ec.EllipticCurvePrivateKey, *, legacy: bool = False, phrase: bytes = b""
) -> bytes:
    form = serialization.PrivateFormat
    return key.private_bytes(
        serialization.Encoding.PEM,
        form.TraditionalOpenSSL if legacy else form.PKCS8,
        serialization.BestAvailableEncryption(phrase) if phrase else serialization.NoEncryption(),
    )
