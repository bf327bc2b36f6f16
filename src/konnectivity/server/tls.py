"""TLS of the server's two listeners, as its flags say; the files are followed while it runs."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence

from konnectivity.net import tls
from konnectivity.net.reload import CertificateWatch, Holds, PemFile
from konnectivity.observe import logs
from konnectivity.server.options import ServerOptions

log = logs.get(__name__)

OLD_VERSIONS = frozenset(["VersionTLS10", "VersionTLS11"])
_ALPN = {"grpc": "h2", "http-connect": "http/1.1"}


def for_frontends(
    options: ServerOptions, watch: CertificateWatch
) -> Callable[[], ssl.SSLContext] | None:
    """The frontend listener's context for each handshake; None for a Unix socket.

    gRPC insists on ALPN and leaves the CBC suites out; Go's HTTP/1.1 does neither.

    Raises:
        ConfigError: a file is wrong.
    """
    if options.uds_name:
        return None
    only_http = options.modes == {"http-connect"}
    return watch.add(
        lambda: tls.server_context(
            options.server_cert,
            options.server_key,
            client_ca=options.server_ca_cert,
            alpn=[name for mode, name in _ALPN.items() if mode in options.modes],
            insist_on_alpn=options.modes == {"grpc"},
            min_version=options.tls_min_version,
            cipher_suites=options.cipher_suites,
            default_suites=tuple(tls.HTTP_SUITES if only_http else tls.GRPC_SUITES),
        ),
        _files("server", options.server_cert, options.server_key, options.server_ca_cert),
    )


def for_agents(options: ServerOptions, watch: CertificateWatch) -> Callable[[], ssl.SSLContext]:
    """The agent listener's context for each handshake.

    Raises:
        ConfigError: a file is wrong.
    """
    if options.tls_min_version in OLD_VERSIONS:
        log.warning(
            "TLS below 1.2 is insecure; agents and kube-apiserver need none of it",
            tlsMinVersion=options.tls_min_version,
        )
    return watch.add(
        lambda: tls.server_context(
            options.cluster_cert,
            options.cluster_key,
            client_ca=options.cluster_ca_cert,
            alpn=["h2"],
            insist_on_alpn=True,
            min_version=options.tls_min_version,
            cipher_suites=options.cipher_suites,
        ),
        _files("cluster", options.cluster_cert, options.cluster_key, options.cluster_ca_cert),
    )


def _files(side: str, cert: str, key: str, ca: str) -> Sequence[PemFile]:
    return (
        PemFile(f"{side}-cert", cert, Holds.CHAIN),
        PemFile(f"{side}-key", key, Holds.KEY),
        PemFile(f"{side}-ca-cert", ca, Holds.BUNDLE),
    )
