"""The server's flags and what must hold between them.

Names, types and defaults are those of upstream's `proxy-server`
(cmd/server/app/options/options.go). Nothing here opens a file or reads the environment, except
that `validate` looks whether named files exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from konnectivity.flag import FLOAT, absence, flag
from konnectivity.gotext import format_duration, quote
from konnectivity.observe.logs import LogOptions

MODES = frozenset(["grpc", "http-connect"])
STRATEGIES = frozenset(["default", "destHost", "defaultRoute"])
DIAL_TIMEOUT = 30.0  # seconds; kube-apiserver gives up on its own dials after this
FIRST_UNRESERVED_PORT = 1024
LAST_REGISTERED_PORT = 49151

TLS_VERSIONS = ("VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13")
CIPHER_SUITES = frozenset(
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
) | frozenset(
    f"TLS_ECDHE_{key}_WITH_{cipher}"
    for key in ("ECDSA", "RSA")
    for cipher in (
        "AES_128_CBC_SHA",
        "AES_256_CBC_SHA",
        "AES_128_GCM_SHA256",
        "AES_256_GCM_SHA384",
        "CHACHA20_POLY1305_SHA256",
    )
)

API = "Kubernetes API client"
LEASES = "server leases"
PROFILING = "profiling"
NO_TOKENS = "Not in this release: the server refuses to start with it."


@dataclass(frozen=True, slots=True)
class ServerOptions(LogOptions):
    """All flags of the server. Durations are seconds."""

    server_cert: str = flag("", "Certificate of the frontend TCP listener, a PEM file.")
    server_key: str = flag("", "Private key of --server-cert.")
    server_ca_cert: str = flag("", "CA bundle that frontends' client certificates must chain to.")
    cluster_cert: str = flag("", "Certificate of the agent listener, a PEM file.")
    cluster_key: str = flag("", "Private key of --cluster-cert.")
    cluster_ca_cert: str = flag(
        "", "CA bundle that agents' client certificates must chain to; empty: any agent may come."
    )
    mode: str = flag("grpc", "Frontend protocol: grpc, http-connect, or grpc,http-connect.")
    uds_name: str = flag("", "Path of the frontend's Unix socket; empty: TCP with mutual TLS.")
    delete_existing_uds_file: bool = flag(True, "Remove a left-over --uds-name before listening.")
    server_port: int = flag(8090, "Frontend TCP port; must be 0 with --uds-name.")
    server_bind_address: str = flag("", "Frontend address; empty: all interfaces.")
    agent_port: int = flag(8091, "Port of the agent listener.")
    agent_bind_address: str = flag("", "Address of the agent listener; empty: all interfaces.")
    admin_port: int = flag(8095, "Port of the admin endpoints.")
    admin_bind_address: str = flag("127.0.0.1", "Admin address; empty: all interfaces.")
    health_port: int = flag(8092, "Port of health checks and metrics.")
    health_bind_address: str = flag("", "Health address; empty: all interfaces.")
    keepalive_time: float = flag(3600.0, "HTTP/2 ping interval towards agents.")
    frontend_keepalive_time: float = flag(3600.0, "HTTP/2 ping interval towards frontends.")
    enable_profiling: bool = flag(False, "Profiling on the admin port.", later=PROFILING)
    enable_contention_profiling: bool = flag(
        False, "Block profiling; needs --enable-profiling.", later=PROFILING
    )
    server_id: str = flag("", "Identity told to agents.", variable="PROXY_SERVER_ID")
    server_count: int = flag(1, "Number of servers, told to agents.")
    agent_namespace: str = flag("", f"Namespace of the agents' service account. {NO_TOKENS}")
    agent_service_account: str = flag("", f"Name of the agents' service account. {NO_TOKENS}")
    authentication_audience: str = flag("", f"Audience of the agents' tokens. {NO_TOKENS}")
    kubeconfig: str = flag("", "Kubeconfig; empty: in-cluster configuration.", later=API)
    kubeconfig_qps: float = flag(0.0, "API requests per second.", kind=FLOAT, later=API)
    kubeconfig_burst: int = flag(0, "API requests in a burst.", later=API)
    kube_api_content_type: str = flag(
        "application/vnd.kubernetes.protobuf", "Encoding of API requests.", later=API
    )
    proxy_strategies: str = flag(
        "default",
        "Order of ways to choose an agent: default, destHost, defaultRoute.",
        later="strategy but default",
    )
    cipher_suites: tuple[str, ...] = flag(
        (), "TLS 1.2 suites of both TLS listeners, by Go's names; empty: all safe ones."
    )
    tls_min_version: str = flag("", "VersionTLS12 (when empty) or VersionTLS13.")
    xfr_channel_size: int = flag(10, "Accepted without effect: queues are bounded in bytes here.")
    enable_lease_controller: bool = flag(False, "Publish a lease per server.", later=LEASES)
    lease_namespace: str = flag("kube-system", "Namespace of the leases.", later=LEASES)
    lease_label: str = flag("k8s-app=konnectivity-server", "Labels of the lease.", later=LEASES)
    graceful_shutdown_timeout: float = flag(0.0, "Bound of an orderly stop; 0: stop at once.")
    backend_dial_timeout: float = flag(0.0, "Bound of a dial through an agent; 0: 30s.")
    warn_on_channel_limit: bool = flag(
        True, "", deprecated="it has no effect; queues have metrics instead."
    )

    @property
    def modes(self) -> frozenset[str]:
        """The frontend protocols to serve side by side (extension: upstream serves one)."""
        return frozenset(self.mode.split(","))

    @property
    def dial_timeout(self) -> float:
        """Seconds until a dial through an agent fails.

        differs: upstream has no bound by default, so a silent agent holds its callers (W24).
        """
        return self.backend_dial_timeout or DIAL_TIMEOUT


def validate(options: ServerOptions) -> list[str]:
    """All that is wrong with `options`, a line each, in upstream's order and words.

    Lines that upstream does not have name what it would only notice, or ignore, later.
    """
    return [
        *_check_files(options),
        *_check_frontend(options),
        *_check_ports(options),
        *_check_authentication(options),
        *_check_strategies(options),
        *_check_tls(options),
        *_check_labels(options),
        *_check_times(options),
    ]


def _check_files(options: ServerOptions) -> Iterator[str]:
    for side, key, cert, ca in (
        ("server", options.server_key, options.server_cert, options.server_ca_cert),
        ("cluster", options.cluster_key, options.cluster_cert, options.cluster_ca_cert),
    ):
        if key and (problem := absence(key)):
            yield f"error checking {side} key {key}, got {problem}"
        if key and not cert:
            yield f"cannot have {side} cert empty when {side} key is set to {quote(key)}"
        if cert and (problem := absence(cert)):
            yield f"error checking {side} cert {cert}, got {problem}"
        if cert and not key:
            yield f"cannot have {side} key empty when {side} cert is set to {quote(cert)}"
        if ca and (problem := absence(ca)):
            yield f"error checking {side} CA cert {ca}, got {problem}"
    if not options.cluster_cert and not options.cluster_key:
        yield "cluster cert and cluster key must be set, agents connect over TLS only"


def _check_frontend(options: ServerOptions) -> Iterator[str]:
    if not options.modes <= MODES:
        mode = quote(options.mode)
        yield f"mode must be set to either 'grpc' or 'http-connect' not {mode}"
    if options.uds_name:
        if options.server_port != 0:
            yield f"server port should be set to 0 not {options.server_port} for UDS"
        if options.server_key:
            yield "server key should not be set for UDS"
        if options.server_cert:
            yield "server cert should not be set for UDS"
        if options.server_ca_cert:
            yield "server ca cert should not be set for UDS"
        return
    if not options.server_ca_cert:
        yield "server ca cert must be set when in TCP mode (uds-name is empty)"
    if not options.server_cert and not options.server_key:
        yield "server cert and server key must be set when in TCP mode (uds-name is empty)"


def _check_ports(options: ServerOptions) -> Iterator[str]:
    ports = {
        "server": options.server_port,
        "agent": options.agent_port,
        "admin": options.admin_port,
        "health": options.health_port,
    }
    for which, port in ports.items():
        if port > LAST_REGISTERED_PORT:
            yield f"please do not try to use ephemeral port {port} for the {which} port"
    if options.uds_name:
        del ports["server"]
    for which, port in ports.items():
        if port < FIRST_UNRESERVED_PORT:
            yield f"please do not try to use reserved port {port} for the {which} port"


def _check_authentication(options: ServerOptions) -> Iterator[str]:
    if options.enable_contention_profiling and not options.enable_profiling:
        yield "if --enable-contention-profiling is set, --enable-profiling must also be set"
    asked = {
        "--agent-namespace": options.agent_namespace,
        "--agent-service-account": options.agent_service_account,
        "--authentication-audience": options.authentication_audience,
    }
    if any(asked.values()):
        if options.cluster_ca_cert:
            yield "--cluster-ca-cert can not be used when agent authentication is enabled"
        for name, value in asked.items():
            if not value:
                yield f"{name} cannot be empty when agent authentication is enabled"
        # Running without the check that was asked for would let any agent in.
        given = ", ".join(name for name, value in asked.items() if value)
        yield (
            f"agent authentication by token ({given}) is not in this release and the server "
            "does not run without it; use client certificates (--cluster-ca-cert) instead"
        )
    if options.kubeconfig and (problem := absence(options.kubeconfig)):
        yield f"checking KubeconfigPath {quote(options.kubeconfig)}, got {problem}"


def _check_strategies(options: ServerOptions) -> Iterator[str]:
    if not options.proxy_strategies:
        yield "ProxyStrategies cannot be empty"
        return
    strategies = [each for each in options.proxy_strategies.split(",") if each]
    for strategy in strategies:
        if strategy not in STRATEGIES:
            yield f"invalid proxy strategies: unknown proxy strategy: {strategy}"
    if not strategies:
        yield "invalid proxy strategies: proxy strategies cannot be empty"
    elif "default" not in strategies and STRATEGIES.issuperset(strategies):
        # Falling back to any agent would send traffic where the operator excluded it.
        yield (
            f"proxy strategies {options.proxy_strategies} without default are not in this "
            "release, which chooses among all agents; add default to the list"
        )
    if options.xfr_channel_size <= 0:
        yield f"channel size {options.xfr_channel_size} must be greater than 0"


def _check_tls(options: ServerOptions) -> Iterator[str]:
    version = options.tls_min_version
    if version and version not in TLS_VERSIONS:
        supported = ", ".join(TLS_VERSIONS)
        yield f"unsupported TLS version {quote(version)}, supported values are: {supported}"
    for suite in options.cipher_suites:
        if suite not in CIPHER_SUITES:
            yield f"cipher suite {suite} not supported, doesn't exist or considered as insecure"


def _check_labels(options: ServerOptions) -> Iterator[str]:
    if not options.enable_lease_controller:
        return
    if not options.lease_label:
        yield "empty string provided"
        return
    for pair in options.lease_label.split(","):
        if pair.count("=") != 1:
            yield f"invalid label format: {pair}"


def _check_times(options: ServerOptions) -> Iterator[str]:
    for name, seconds in (
        ("graceful-shutdown-timeout", options.graceful_shutdown_timeout),
        ("backend-dial-timeout", options.backend_dial_timeout),
    ):
        if seconds < 0:
            yield f"{name} must be >= 0, got {format_duration(seconds)}"
