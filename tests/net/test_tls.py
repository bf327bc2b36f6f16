"""TLS settings from files and Go's names; wrong ones are refused with one line."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from tests.net.authority import Authority, Identity, private_pem
from tests.net.test_handshake import meet, old

from konnectivity.errors import ConfigError
from konnectivity.net import tls

TEXT_BLOCK = b"-----BEGIN NOTE-----\naGVsbG8=\n-----END NOTE-----\n"


pytestmark = pytest.mark.both_loops


def suites(context: ssl.SSLContext) -> set[str]:
    return {suite["name"] for suite in context.get_ciphers() if suite["protocol"] != "TLSv1.3"}


# Files


def test_a_missing_file_is_named(identity: Identity, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    with pytest.raises(ConfigError) as caught:
        tls.server_context(missing, identity.key)
    assert str(caught.value) == f"certificate {missing}: no such file or directory"
    with pytest.raises(ConfigError) as caught:
        tls.server_context(identity.cert, missing)
    assert str(caught.value) == f"key {missing}: no such file or directory"
    with pytest.raises(ConfigError) as caught:
        tls.client_context(missing)
    assert str(caught.value) == f"CA bundle {missing}: no such file or directory"


def test_an_empty_path_is_a_missing_file() -> None:
    # Upstream's agent without --ca-cert fails at start too.
    with pytest.raises(ConfigError, match=r"^CA bundle: no file is given$"):
        tls.client_context("")
    with pytest.raises(ConfigError, match=r"^certificate: no file is given$"):
        tls.server_context("", "")


def test_a_directory_in_place_of_a_file_is_named(identity: Identity, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        tls.server_context(identity.cert, str(tmp_path))
    assert str(caught.value) == f"key {tmp_path}: is a directory"


def test_an_unreadable_file_is_named(
    tmp_path: Path, unprivileged: Callable[[], AbstractContextManager[None]]
) -> None:
    locked = tmp_path / "ca.crt"
    locked.touch(mode=0)
    with unprivileged(), pytest.raises(ConfigError) as caught:
        tls.client_context(str(locked))
    assert str(caught.value) == f"CA bundle {locked}: permission denied"


def test_a_key_of_another_certificate_is_refused(authority: Authority, identity: Identity) -> None:
    other = authority.issue("localhost")
    with pytest.raises(ConfigError) as caught:
        tls.server_context(identity.cert, other.key)
    assert str(caught.value) == f"key {other.key}: does not belong to certificate {identity.cert}"


@pytest.mark.parametrize("legacy", [False, True], ids=["pkcs8", "traditional"])
def test_an_encrypted_key_is_refused_without_asking_for_a_pass_phrase(
    identity: Identity, tmp_path: Path, legacy: bool
) -> None:
    key = tmp_path / "tls.key"
    made = ec.generate_private_key(ec.SECP256R1())
    key.write_bytes(private_pem(made, legacy=legacy, phrase=b"open"))
    with pytest.raises(ConfigError) as caught:
        tls.server_context(identity.cert, str(key))
    assert str(caught.value) == f"key {key}: encrypted; a key without pass phrase is needed"


@pytest.mark.parametrize("content", [b"", b"hello", b"\x30\x82\x00\x01", TEXT_BLOCK])
def test_files_without_pem_are_refused(identity: Identity, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        tls.server_context(str(path), identity.key)
    assert str(caught.value) == f"certificate {path}: no PEM block of a certificate in it"
    with pytest.raises(ConfigError) as caught:
        tls.server_context(identity.cert, str(path))
    assert str(caught.value) == f"key {path}: no PEM block of a private key in it"
    with pytest.raises(ConfigError) as caught:
        tls.client_context(str(path))
    assert str(caught.value) == f"CA bundle {path}: no PEM block of a certificate in it"


def test_certificate_and_key_in_each_others_place_are_recognised(identity: Identity) -> None:
    with pytest.raises(ConfigError) as caught:
        tls.server_context(identity.key, identity.cert)
    assert str(caught.value) == f"certificate {identity.key}: no PEM block of a certificate in it"


def test_a_key_that_does_not_parse_is_refused(identity: Identity, tmp_path: Path) -> None:
    key = tmp_path / "tls.key"
    key.write_text("-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----\n")
    with pytest.raises(ConfigError) as caught:
        tls.server_context(identity.cert, str(key))
    assert str(caught.value) == f"key {key}: the private key does not parse"


def test_a_weak_certificate_is_refused_with_openssls_reason(
    authority: Authority, tmp_path: Path
) -> None:
    weak = authority.issue_weak()
    with pytest.raises(ConfigError) as caught:
        tls.server_context(weak.cert, weak.key)
    assert str(caught.value) == f"certificate {weak.cert}: refused by OpenSSL: ee key too small"


def test_a_certificate_without_its_key_is_refused(identity: Identity, authority: Authority) -> None:
    with pytest.raises(ConfigError, match=r"^key: no file is given$"):
        tls.client_context(authority.bundle, cert=identity.cert)
    with pytest.raises(ConfigError, match=r"^certificate: no file is given$"):
        tls.client_context(authority.bundle, key=identity.key)


def test_certificate_and_key_may_be_in_one_file(identity: Identity, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(Path(identity.key).read_bytes() + Path(identity.cert).read_bytes())
    tls.server_context(str(both), str(both))


# CA bundles


def read(path: str) -> bytes:
    return Path(path).read_bytes()


def bundle(tmp_path: Path, *parts: bytes) -> str:
    path = tmp_path / "bundle.crt"
    path.write_bytes(b"".join(parts))
    return str(path)


async def test_other_blocks_of_a_bundle_are_skipped(
    authority: Authority, identity: Identity, tmp_path: Path
) -> None:
    """Scenario 61."""
    """Scenario 61: foreign blocks, bad base64, a truncated block."""
    good = read(authority.bundle)
    lines = good.splitlines(keepends=True)
    mixed = bundle(
        tmp_path,
        b"# comment\nSubject: nobody\n",
        TEXT_BLOCK,
        read(identity.key),
        b"-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n",
        lines[0] + b"Proc-Type: 4\n\n" + b"".join(lines[1:]),  # a block with a header
        b"".join(lines[:3]),  # a block without end
        good.replace(b"\n", b"\r\n"),
    )
    server, client = await meet(
        tls.server_context(identity.cert, identity.key), tls.client_context(mixed)
    )
    assert (server.fault, client.fault) == ("", "")


async def test_every_certificate_of_a_bundle_counts(
    authority: Authority, stranger: Authority, identity: Identity, tmp_path: Path
) -> None:
    foreign, own = read(stranger.bundle), read(authority.bundle)
    for parts in ((foreign, own), (own, foreign), (own, own)):
        context = tls.client_context(bundle(tmp_path, *parts))
        server, client = await meet(tls.server_context(identity.cert, identity.key), context)
        assert (server.fault, client.fault) == ("", "")


async def test_an_intermediate_ca_may_be_the_only_one_that_is_trusted(
    authority: Authority,
) -> None:
    path, leaf = authority.intermediate()
    server, client = await meet(tls.server_context(leaf.cert, leaf.key), tls.client_context(path))
    assert (server.fault, client.fault) == ("", "")


def test_a_certificate_that_does_not_parse_makes_the_bundle_fail(
    authority: Authority, tmp_path: Path
) -> None:
    """Scenario 61."""
    """Scenario 61: a certificate that cannot be parsed."""
    good = Path(authority.bundle).read_bytes()
    broken = b"-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n"
    path = bundle(tmp_path, good, broken)
    with pytest.raises(ConfigError) as caught:
        tls.client_context(path)
    assert str(caught.value) == f"CA bundle {path}: certificate 2 of 2 does not parse"
    own = authority.issue("localhost")
    with pytest.raises(ConfigError, match="certificate 2 of 2 does not parse"):
        tls.server_context(own.cert, own.key, client_ca=path)


async def test_the_systems_certificates_are_not_trusted(
    authority: Authority, stranger: Authority, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", authority.bundle)
    monkeypatch.setenv("SSL_CERT_DIR", str(Path(authority.bundle).parent))
    context = tls.client_context(stranger.bundle)
    server, _ = await meet(tls.server_context(identity.cert, identity.key), context)
    assert server.fault == "the peer does not know the CA of our certificate"


@given(
    st.binary(max_size=200),
    st.lists(
        st.sampled_from(
            [
                b"-----BEGIN CERTIFICATE-----",
                b"-----END CERTIFICATE-----",
                b"-----BEGIN ",
                b"-----",
                b"aGVsbG8=",
                b"Proc-Type: 4",
                b"\r",
                b"\n",
            ]
        ),
        max_size=12,
    ),
)
def test_any_file_is_read_without_a_fault(data: bytes, lines: list[bytes]) -> None:
    for label, content in tls.pem_blocks(data + b"\n".join(lines)):
        assert content
        assert b"-----BEGIN " + label + b"-----" in data + b"\n".join(lines)


# Versions and suites


@pytest.mark.parametrize(
    ("name", "minimum"),
    [
        ("", ssl.TLSVersion.TLSv1_2),
        ("VersionTLS10", ssl.TLSVersion.TLSv1),
        ("VersionTLS11", ssl.TLSVersion.TLSv1_1),
        ("VersionTLS12", ssl.TLSVersion.TLSv1_2),
        ("VersionTLS13", ssl.TLSVersion.TLSv1_3),
    ],
)
def test_versions_have_gos_names(identity: Identity, name: str, minimum: ssl.TLSVersion) -> None:
    """Scenario 60."""
    """Scenario 60."""
    context = tls.server_context(identity.cert, identity.key, min_version=name)
    assert context.minimum_version == minimum


def test_an_unknown_version_is_refused_with_the_known_ones(identity: Identity) -> None:
    """Scenario 60."""
    """Scenario 60."""
    with pytest.raises(ConfigError) as caught:
        tls.server_context(identity.cert, identity.key, min_version="TLS1.2")
    assert str(caught.value) == (
        'unsupported TLS version "TLS1.2", supported values are: '
        "VersionTLS10, VersionTLS11, VersionTLS12, VersionTLS13"
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the old versions, by the client
@pytest.mark.parametrize(
    ("minimum", "version", "works"),
    [
        ("VersionTLS10", ssl.TLSVersion.TLSv1, True),
        ("VersionTLS11", ssl.TLSVersion.TLSv1, False),
        ("VersionTLS11", ssl.TLSVersion.TLSv1_1, True),
        ("", ssl.TLSVersion.TLSv1_1, False),
    ],
)
async def test_old_versions_work_only_when_asked_for(
    authority: Authority, identity: Identity, minimum: str, version: ssl.TLSVersion, works: bool
) -> None:
    client = ssl.create_default_context(cafile=authority.bundle)
    client.set_ciphers("ALL@SECLEVEL=0")
    client.minimum_version = client.maximum_version = version
    server_context = tls.server_context(
        identity.cert, identity.key, min_version=minimum, default_suites=tuple(tls.HTTP_SUITES)
    )
    server, _ = await meet(server_context, client)
    assert server.fault == ("" if works else "no shared TLS version")


def test_the_default_suites_are_the_six_that_http2_allows(identity: Identity) -> None:
    context = tls.server_context(identity.cert, identity.key)
    assert suites(context) == set(tls.GRPC_SUITES.values())
    assert len(tls.GRPC_SUITES) == 6


def test_an_http_listener_has_gos_cbc_suites_too(identity: Identity) -> None:
    context = tls.server_context(identity.cert, identity.key, default_suites=tuple(tls.HTTP_SUITES))
    assert suites(context) == set(tls.HTTP_SUITES.values())
    assert len(suites(context)) == 10


@pytest.mark.parametrize("name", sorted(tls.HTTP_SUITES))
async def test_each_suite_has_gos_name(authority: Authority, name: str) -> None:
    identity = authority.issue_rsa() if "_RSA_" in name else authority.issue("localhost")
    context = tls.server_context(identity.cert, identity.key, cipher_suites=[name])
    client = old(ssl.create_default_context(cafile=authority.bundle))
    client.set_ciphers("ALL")
    server, _ = await meet(context, client)  # type: ignore[arg-type]
    assert (server.fault, server.cipher) == ("", tls.HTTP_SUITES[name])


def test_suites_of_tls_13_are_accepted_without_effect(identity: Identity) -> None:
    names = [*tls.TLS13_SUITES, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]
    context = tls.server_context(identity.cert, identity.key, cipher_suites=names)
    assert suites(context) == {"ECDHE-RSA-AES128-GCM-SHA256"}
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


async def test_suites_of_tls_13_alone_leave_no_older_version(
    authority: Authority, identity: Identity
) -> None:
    context = tls.server_context(
        identity.cert, identity.key, cipher_suites=["TLS_AES_128_GCM_SHA256"]
    )
    server, _ = await meet(context, old(tls.client_context(authority.bundle)))
    assert server.fault == "no shared TLS version"
    server, _ = await meet(context, tls.client_context(authority.bundle))
    assert server.fault == ""


@pytest.mark.parametrize(
    "name",
    ["TLS_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "", "ALL:@SECLEVEL=0"],
)
def test_other_suites_are_refused(identity: Identity, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tls.server_context(identity.cert, identity.key, cipher_suites=[name])
    assert str(caught.value) == (
        f"cipher suite {name} not supported, doesn't exist or considered as insecure"
    )


async def test_the_agent_offers_tls_12_and_13_with_the_six_suites(
    authority: Authority, identity: Identity
) -> None:
    context = tls.client_context(authority.bundle)
    assert suites(context) == set(tls.GRPC_SUITES.values())
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    server, client = await meet(old(tls.server_context(identity.cert, identity.key)), context)
    assert (server.fault, client.version) == ("", "TLSv1.2")


@pytest.mark.parametrize(
    "make",
    [
        lambda ca, own: tls.server_context(own.cert, own.key, client_ca=ca.bundle),
        lambda ca, own: tls.client_context(ca.bundle, cert=own.cert, key=own.key),
    ],
)
def test_the_peers_certificate_is_verified(
    authority: Authority,
    identity: Identity,
    make: Callable[[Authority, Identity], ssl.SSLContext],
) -> None:
    assert make(authority, identity).verify_mode is ssl.CERT_REQUIRED
