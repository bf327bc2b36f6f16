"""A throwaway CA with a server and a client certificate for the agent hop, good for a day."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths of the PEM files that both pairs are started with."""

    ca: Path
    server_cert: Path
    server_key: Path
    agent_cert: Path
    agent_key: Path


def issue(directory: Path) -> Certificates:
    """Write a new CA (P-256) and two leaves for 127.0.0.1 into `directory`."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = (
        _unsigned("bench-ca", "bench-ca", ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    files = Certificates(
        directory / "ca.crt",
        directory / "server.crt",
        directory / "server.key",
        directory / "agent.crt",
        directory / "agent.key",
    )
    files.ca.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    for name, usage, cert_file, key_file in (
        ("server", ExtendedKeyUsageOID.SERVER_AUTH, files.server_cert, files.server_key),
        ("agent", ExtendedKeyUsageOID.CLIENT_AUTH, files.agent_cert, files.agent_key),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        leaf = (
            _unsigned(name, "bench-ca", key)
            .add_extension(x509.SubjectAlternativeName([loopback]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        cert_file.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(_pem(key))
        key_file.chmod(0o600)
    return files


def _unsigned(
    subject: str, issuer: str, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
