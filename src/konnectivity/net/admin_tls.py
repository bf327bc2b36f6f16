"""TLS of a program's admin listener (`--admin-cert`, `--admin-key`, `--admin-client-ca`; W50)."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from konnectivity.net import tls
from konnectivity.net.reload import CertificateWatch, Holds, PemFile


def for_admin(
    watch: CertificateWatch, *, cert: str, key: str, client_ca: str
) -> Callable[[], ssl.SSLContext] | None:
    """The context for each handshake; None without a certificate: plain HTTP.

    Raises:
        ConfigError: a file is wrong.
    """
    if not cert:
        return None
    return watch.add(
        lambda: tls.server_context(cert, key, client_ca=client_ca, alpn=["http/1.1"]),
        (
            PemFile("admin-cert", cert, Holds.CHAIN),
            PemFile("admin-key", key, Holds.KEY),
            PemFile("admin-client-ca", client_ca, Holds.BUNDLE),
        ),
    )
