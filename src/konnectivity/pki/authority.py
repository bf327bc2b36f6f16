"""A certificate authority: PEM in, PEM out, no files and no clock.

Its certificates are ECDSA P-256 with SHA-256; a CA that was supplied signs with what key it has.
This module imports cryptography, 13 MB of memory, so server and agent must never import it.
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from konnectivity.errors import CertificateError, ConfigError
from konnectivity.net.certificate import Certificate, utc
from konnectivity.pki.role import Leaf, Role, is_address

DAY: Final = 86400.0
LEAF_LIFETIME: Final = 90 * DAY
CA_LIFETIME: Final = 3650 * DAY
BACKDATED: Final = 300.0
"""How far validity begins in the past, for clocks that are not quite alike."""
LEAST_RSA_BITS: Final = 2048

SigningKey = (
    ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, both PEM. The key is not shown by `repr`."""

    certificate: bytes
    key: bytes = field(repr=False)


class Authority:
    """What issues certificates. `pair` is its own; `what` names it in errors.

    Raises:
        ConfigError: the pair is none, or its certificate is not that of a CA.
    """

    def __init__(self, pair: KeyPair, *, what: str = "CA") -> None:
        self.pair = pair
        self.certificate = load_certificate(pair.certificate, what=f"{what} certificate")
        self._what = what
        self._key = load_key(pair.key, what=f"{what} key")
        if not fits(self.certificate, self._key):
            raise ConfigError(f"{what} key: does not belong to the {what} certificate")
        self._check_purpose()

    @classmethod
    def create(cls, name: str, *, now: float, lifetime: float = CA_LIFETIME) -> Self:
        """A new authority, `name` its common name. It signs leaves only, no further CA."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
        builder = (
            _builder(subject, subject, key.public_key(), now - BACKDATED, now + lifetime)
            .add_extension(identifier, critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
        )
        certificate = builder.sign(key, hashes.SHA256())
        return cls(KeyPair(certificate.public_bytes(serialization.Encoding.PEM), _pem(key)))

    def issue(self, leaf: Leaf, *, now: float, lifetime: float = LEAF_LIFETIME) -> KeyPair:
        """A certificate for `lifetime` seconds, but never longer than the CA's, and a new key.

        Raises:
            CertificateError: the CA is not valid at `now`.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if leaf.role.serves else None
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, leaf.role.organisation),
                x509.NameAttribute(NameOID.COMMON_NAME, leaf.name),
            ]
        )
        begin, end = now - BACKDATED, min(now + lifetime, self._end(now))
        builder = (
            _builder(self.certificate.subject, subject, key.public_key(), begin, end)
            .add_extension(self._identifier(), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([usage or ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
            )
        )
        if leaf.hosts:
            names = x509.SubjectAlternativeName([_host(host) for host in leaf.hosts])
            builder = builder.add_extension(names, critical=False)
        edwards = isinstance(self._key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
        certificate = builder.sign(self._key, None if edwards else hashes.SHA256())
        return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), _pem(key))

    def _end(self, now: float) -> float:
        """The end of the CA's validity in Unix seconds."""
        begin = self.certificate.not_valid_before_utc.timestamp()
        end = self.certificate.not_valid_after_utc.timestamp()
        if now > end:
            raise CertificateError(f"{self._what}: has expired at {utc(end)}, so it cannot issue")
        if now < begin:
            raise CertificateError(f"{self._what}: is not valid before {utc(begin)}")
        return end

    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        """Whose key signs, in the CA's own words where it has some (RFC 5280, 4.2.1.1)."""
        try:
            own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)

    def _check_purpose(self) -> None:
        if isinstance(self._key, rsa.RSAPrivateKey) and self._key.key_size < LEAST_RSA_BITS:
            raise ConfigError(
                f"{self._what} key: RSA with {self._key.key_size} bits; at least {LEAST_RSA_BITS} "
                "are needed"
            )
        extensions = self.certificate.extensions
        try:
            if not extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
                raise ConfigError(f"{self._what} certificate: is not that of a CA")
        except x509.ExtensionNotFound:
            raise ConfigError(f"{self._what} certificate: does not say that it is a CA") from None
        try:
            usage = extensions.get_extension_for_class(x509.KeyUsage).value
        except x509.ExtensionNotFound:
            return
        if not usage.key_cert_sign:
            raise ConfigError(f"{self._what} certificate: its key usage lacks keyCertSign")


def load_certificate(pem: bytes, *, what: str) -> x509.Certificate:
    """The first certificate of a PEM file.

    Raises:
        ConfigError: there is none, or it does not parse.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        _ = certificate.extensions  # parsed only now
        Certificate.parse(certificate.public_bytes(serialization.Encoding.DER))  # its times
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension):
        raise ConfigError(f"{what}: no certificate in PEM that parses") from None
    return certificate


def load_key(pem: bytes, *, what: str) -> SigningKey:
    """A private key that can sign.

    Raises:
        ConfigError: it is none, is encrypted, or of a kind that TLS has no use for.
    """
    try:
        key = serialization.load_pem_private_key(pem, None)
    except TypeError:
        raise ConfigError(f"{what}: encrypted; a key without pass phrase is needed") from None
    except (ValueError, UnsupportedAlgorithm):
        # The parser's own words may quote the input: they stay here.
        raise ConfigError(f"{what}: no private key in PEM that parses") from None
    if not isinstance(key, SigningKey):
        raise ConfigError(f"{what}: must be an ECDSA, RSA or EdDSA key")
    return key


def fits(certificate: x509.Certificate, key: SigningKey) -> bool:
    """Whether the key is the certificate's."""
    return certificate.public_key() == key.public_key()


def is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether `authority` has signed it: name, algorithm and signature."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """The DNS names and IP addresses among its subject alternative names, in their order."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress)]


def role_of(certificate: x509.Certificate) -> Role | None:
    """What it is for, by its subject; None if it does not say so."""
    said = {
        each.value for each in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    }
    return next((role for role in Role if role.organisation in said), None)


def _builder(
    issuer: x509.Name,
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begin: float,
    end: float,
) -> x509.CertificateBuilder:
    """What every certificate says; the key identifiers are what RFC 5280 and Python ask for."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.fromtimestamp(begin, datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(end, datetime.UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(host)) if is_address(host) else x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
