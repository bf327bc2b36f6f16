"""What an authority issues, and which ones are taken: judged by OpenSSL and by Python's `ssl`."""

from __future__ import annotations

import datetime
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from tests.pki.conftest import AGENT, DAY, NOW, SERVER

from konnectivity.errors import CertificateError, ConfigError
from konnectivity.pki.authority import (
    BACKDATED,
    Authority,
    KeyPair,
    SigningKey,
    hosts_of,
    load_certificate,
)
from konnectivity.pki.role import Leaf, Role


def openssl(*words: str | Path) -> str:
    done = subprocess.run(["openssl", *words], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def pem_of(key: SigningKey, phrase: bytes = b"") -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(phrase) if phrase else serialization.NoEncryption(),
    )


def ca_pair(
    key: SigningKey,
    *,
    extensions: tuple[x509.ExtensionType, ...] = (x509.BasicConstraints(True, None),),
) -> KeyPair:
    """A CA as others make it: with few extensions, and no key identifiers."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "supplied")])
    begin = datetime.datetime.fromtimestamp(NOW - DAY, datetime.UTC)
    end = datetime.datetime.fromtimestamp(NOW + 30 * DAY, datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, end)
    for each in extensions:
        builder = builder.add_extension(each, critical=True)
    edwards = isinstance(key, ed25519.Ed25519PrivateKey)
    made = builder.sign(key, None if edwards else hashes.SHA256())
    return KeyPair(made.public_bytes(serialization.Encoding.PEM), pem_of(key))


@pytest.fixture(scope="module")
def own() -> Authority:
    return Authority.create("CA of a test", now=NOW)


def test_openssl_takes_a_leaf_for_its_role_and_for_no_other(own: Authority, tmp_path: Path) -> None:
    (tmp_path / "ca").write_bytes(own.pair.certificate)
    for leaf, purpose, other in (
        (SERVER, "sslserver", "sslclient"),
        (AGENT, "sslclient", "sslserver"),
    ):
        (tmp_path / "leaf").write_bytes(own.issue(leaf, now=NOW).certificate)
        verify = ("verify", "-x509_strict", "-attime", f"{NOW:.0f}", "-CAfile", tmp_path / "ca")
        assert "OK" in openssl(*verify, "-purpose", purpose, tmp_path / "leaf")
        assert "unsuitable certificate purpose" in openssl(
            *verify, "-purpose", other, tmp_path / "leaf"
        )


def test_a_leaf_says_who_it_is_and_where(own: Authority) -> None:
    leaf = Leaf("server", Role.SERVER, ("10.0.0.1", "fd00::1", "a.example.com", "*.example.com"))
    found = load_certificate(own.issue(leaf, now=NOW).certificate, what="it")
    assert found.subject.rfc4514_string() == "CN=server,O=konnectivity:server"
    assert sorted(hosts_of(found)) == sorted(leaf.hosts)
    assert isinstance(found.public_key(), ec.EllipticCurvePublicKey)
    assert found.not_valid_before_utc.timestamp() == NOW - BACKDATED
    assert found.not_valid_after_utc.timestamp() == NOW + 90 * DAY


def test_keys_and_serial_numbers_are_never_the_same(own: Authority) -> None:
    made = [own.issue(AGENT, now=NOW) for _ in range(20)]
    serials = {load_certificate(each.certificate, what="it").serial_number for each in made}
    assert len(serials) == len({each.key for each in made}) == 20
    assert min(serials) > 2**64  # a number that was drawn, not counted


def test_the_key_is_not_shown(own: Authority) -> None:
    assert "PRIVATE" not in repr(own.pair)


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["ecdsa", "rsa", "ed25519"],
)
def test_a_supplied_ca_issues_with_the_key_that_it_has(key: SigningKey, tmp_path: Path) -> None:
    authority = Authority(ca_pair(key))
    (tmp_path / "ca").write_bytes(authority.pair.certificate)
    (tmp_path / "leaf").write_bytes(authority.issue(SERVER, now=NOW).certificate)
    time = ("-attime", f"{NOW:.0f}")
    assert "OK" in openssl("verify", *time, "-CAfile", tmp_path / "ca", tmp_path / "leaf")


def test_a_leaf_does_not_outlive_its_ca() -> None:
    authority = Authority(ca_pair(ec.generate_private_key(ec.SECP256R1())))
    found = load_certificate(authority.issue(AGENT, now=NOW).certificate, what="it")
    assert found.not_valid_after_utc.timestamp() == NOW + 30 * DAY


def test_a_ca_out_of_its_time_does_not_issue() -> None:
    authority = Authority(ca_pair(ec.generate_private_key(ec.SECP256R1())), what="CA 1")
    with pytest.raises(CertificateError, match="CA 1: has expired at 2027-02-14T"):
        authority.issue(AGENT, now=NOW + 31 * DAY)
    with pytest.raises(CertificateError, match="CA 1: is not valid before 2027"):
        authority.issue(AGENT, now=NOW - 2 * DAY)


KEY = ec.generate_private_key(ec.SECP256R1())
GOOD = ca_pair(KEY)
NO_SIGNING = x509.KeyUsage(True, *(False,) * 8)


@pytest.mark.parametrize(
    ("pair", "complaint"),
    [
        (KeyPair(b"", GOOD.key), "CA certificate: no certificate in PEM that parses"),
        (KeyPair(GOOD.key, GOOD.key), "CA certificate: no certificate in PEM that parses"),
        (KeyPair(GOOD.certificate, b"-----BEGIN"), "CA key: no private key in PEM that parses"),
        (KeyPair(GOOD.certificate, pem_of(KEY, b"x")), "CA key: encrypted; a key without pass"),
        (
            KeyPair(GOOD.certificate, pem_of(ec.generate_private_key(ec.SECP256R1()))),
            "CA key: does not belong to the CA certificate",
        ),
        (ca_pair(KEY, extensions=()), "CA certificate: does not say that it is a CA"),
        (
            ca_pair(KEY, extensions=(x509.BasicConstraints(False, None),)),
            "CA certificate: is not that of a CA",
        ),
        (
            ca_pair(KEY, extensions=(x509.BasicConstraints(True, None), NO_SIGNING)),
            "CA certificate: its key usage lacks keyCertSign",
        ),
        (
            ca_pair(rsa.generate_private_key(65537, 1024)),  # noqa: S505 - it is to be refused
            "CA key: RSA with 1024 bits; at least 2048 are needed",
        ),
    ],
)
def test_what_cannot_issue_is_refused_in_one_line(pair: KeyPair, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Authority(pair)
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "hosts", "complaint"),
    [
        ("Server", ("a",), "must be lower-case letters"),
        ("../server", ("a",), "must be lower-case letters"),
        ("a..b", ("a",), "must be lower-case letters"),
        ("ca", ("a",), "must be lower-case letters"),
        ("system:masters", ("a",), "must be lower-case letters"),
        ("server", (), "needs the names or IP addresses"),
        ("server", ("a b",), '"a b" is neither a DNS name nor an IP address'),
        ("server", ("10.0.0.256",), '"10.0.0.256" is neither'),
        ("server", ("fe80::1%eth0",), "is neither"),
        ("server", ("a.*.com",), "is neither"),
        ("server", (f"{'a' * 63}." * 4 + "com",), "is neither"),
    ],
)
def test_what_cannot_stand_in_a_certificate_is_refused(
    name: str, hosts: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint.replace("*", r"\*")):
        Leaf(name, Role.SERVER, hosts)


def test_python_loads_the_pair(own: Authority, tmp_path: Path) -> None:
    pair = own.issue(AGENT, now=NOW)
    (tmp_path / "crt").write_bytes(pair.certificate)
    (tmp_path / "key").write_bytes(pair.key)
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(tmp_path / "crt", tmp_path / "key")
