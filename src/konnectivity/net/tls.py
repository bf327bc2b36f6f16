"""TLS settings as the flags have them: PEM files, Go's names of versions and cipher suites.

Made into `Context`s, afresh whenever files change (`reload.py`); what happens on a connection is
`handshake.py`.
"""

from __future__ import annotations

import binascii
import contextlib
import ssl
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from konnectivity.errors import ConfigError
from konnectivity.net.certificate import Certificate
from konnectivity.net.handshake import Context

VERSIONS = {
    "VersionTLS10": ssl.TLSVersion.TLSv1,
    "VersionTLS11": ssl.TLSVersion.TLSv1_1,
    "VersionTLS12": ssl.TLSVersion.TLSv1_2,
    "VersionTLS13": ssl.TLSVersion.TLSv1_3,
}

# The suites that RFC 9113 (9.2.2, appendix A) allows; Go's names and OpenSSL's.
GRPC_SUITES = {
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
# What an HTTP/1.1 listener offers besides; Go's default list has them too.
HTTP_SUITES = GRPC_SUITES | {
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
}
# Always on where TLS 1.3 is; naming them changes nothing.
TLS13_SUITES = (
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
)


def server_context(
    cert: str,
    key: str,
    *,
    client_ca: str = "",
    alpn: Sequence[str] = (),
    insist_on_alpn: bool = False,
    min_version: str = "",
    cipher_suites: Sequence[str] = (),
    default_suites: Sequence[str] = tuple(GRPC_SUITES),
) -> Context:
    """A listener's settings from PEM files; with `client_ca` clients must have a certificate.

    `min_version` and the suites are Go's names; empty means TLS 1.2 and `default_suites`.

    Raises:
        ConfigError: a file or a name is wrong.
    """
    context = Context(ssl.PROTOCOL_TLS_SERVER)
    _set_version(context, min_version)
    _set_suites(context, cipher_suites, default_suites)
    _set_alpn(context, alpn, insist_on_alpn)
    context.num_tickets = 0  # no client of ours resumes a session; saves two messages
    _load_identity(context, cert, key)
    if client_ca:
        _load_trust(context, client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(
    ca: str,
    *,
    cert: str = "",
    key: str = "",
    alpn: Sequence[str] = (),
    insist_on_alpn: bool = False,
) -> Context:
    """The agent's settings: trust `ca` and nothing else, present `cert` if given.

    Raises:
        ConfigError: a file is wrong.
    """
    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    context.hostname_checks_common_name = False  # as Go: subject alternative names only
    _set_version(context, "")
    _set_suites(context, (), tuple(GRPC_SUITES))
    _set_alpn(context, alpn, insist_on_alpn)
    _load_trust(context, ca)
    if cert or key:
        _load_identity(context, cert, key)
    return context


def _set_version(context: Context, name: str) -> None:
    context.options |= ssl.OP_NO_RENEGOTIATION
    version = VERSIONS.get(name or "VersionTLS12")
    if version is None:
        known = ", ".join(VERSIONS)
        raise ConfigError(f'unsupported TLS version "{name}", supported values are: {known}')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the user has asked for it
        context.minimum_version = version


def _set_suites(context: Context, names: Sequence[str], default: Sequence[str]) -> None:
    """Set the suites up to TLS 1.2. With names of TLS 1.3 suites alone no older version is left."""
    for name in names:
        if name not in HTTP_SUITES and name not in TLS13_SUITES:
            raise ConfigError(
                f"cipher suite {name} not supported, doesn't exist or considered as insecure"
            )
    wanted = [HTTP_SUITES[name] for name in names or default if name in HTTP_SUITES]
    if not wanted:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return
    # Below TLS 1.2 signatures are made with SHA-1, which OpenSSL's levels above 0 refuse.
    old = context.minimum_version < ssl.TLSVersion.TLSv1_2
    context.set_ciphers(":".join(wanted) + ("@SECLEVEL=0" if old else ""))


def _set_alpn(context: Context, protocols: Sequence[str], insist: bool) -> None:
    if protocols:
        context.set_alpn_protocols(list(protocols))
    if insist:
        context.insisted = tuple(protocols)


def _load_identity(context: Context, cert: str, key: str) -> None:
    """Load a certificate, leaf first, and its private key."""
    _certificates("certificate", cert)
    if b"PRIVATE KEY-----" not in _read("key", key):
        raise ConfigError(f"key {key}: no PEM block of a private key in it")

    def refuse() -> str:
        raise ConfigError(f"key {key}: encrypted; a key without pass phrase is needed")

    try:
        context.load_cert_chain(cert, key, password=refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"key {key}: does not belong to certificate {cert}") from error
        if error.reason and error.reason.startswith(("EE_", "CA_")):
            cause = error.reason.replace("_", " ").lower()
            raise ConfigError(f"certificate {cert}: refused by OpenSSL: {cause}") from error
        raise ConfigError(f"key {key}: the private key does not parse") from error


def _load_trust(context: Context, ca: str) -> None:
    """Trust the certificates of a bundle, each by itself, whether self-signed or not."""
    for der in _certificates("CA bundle", ca):
        context.load_verify_locations(cadata=der)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def _certificates(what: str, path: str) -> list[bytes]:
    """The certificates of a PEM file in DER.

    Raises:
        ConfigError: unreadable file, no certificate, or one that does not parse.

    Source: the rules of Go's `AppendCertsFromPEM`; differs, with upstream: a certificate that
    does not parse is an error.
    """
    found = [der for label, der in pem_blocks(_read(what, path)) if label == b"CERTIFICATE"]
    if not found:
        raise ConfigError(f"{what} {path}: no PEM block of a certificate in it")
    scratch = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for number, der in enumerate(found, start=1):
        try:
            scratch.load_verify_locations(cadata=der)
            Certificate.parse(der)
        except (ssl.SSLError, ValueError) as error:
            which = f"certificate {number} of {len(found)}"
            raise ConfigError(f"{what} {path}: {which} does not parse") from error
    return found


def pem_blocks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Label and content of each PEM block; what does not decode or has headers is skipped.

    Source: RFC 7468, 2; Go's `pem.Decode`.
    """
    label, body = b"", list[bytes]()
    for line in map(bytes.rstrip, data.splitlines()):
        if line.startswith(b"-----BEGIN ") and line.endswith(b"-----"):
            label, body = line[11:-5], []
        elif label and line == b"-----END " + label + b"-----":
            content = b""
            with contextlib.suppress(binascii.Error):
                content = binascii.a2b_base64(b"".join(body), strict_mode=True)
            if content:
                yield label, content
            label = b""
        else:
            body.append(line)


def _read(what: str, path: str) -> bytes:
    if not path:
        raise ConfigError(f"{what}: no file is given")
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        cause = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ConfigError(f"{what} {path}: {cause.lower()}") from error
