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
from konnectivity.kube.leases import is_object_name, lease_name, parse_labels
from konnectivity.kube.selector import check_key, check_value
from konnectivity.net.address import AddressError, parse_port, split_host_port
from konnectivity.observe.log_options import LogOptions
from konnectivity.server.certificates import compile_pattern
from konnectivity.tunnel.routing import SELECTIONS
from konnectivity.tunnel.strategies import STRATEGIES, split

MODES = frozenset(["grpc", "http-connect"])
DIAL_TIMEOUT = 30.0  # seconds; kube-apiserver gives up on its own dials after this
FIRST_UNRESERVED_PORT = 1024
LAST_REGISTERED_PORT = 49151
MOST_WORKERS = 64  # each costs some 30 MB and a connection of every agent

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


@dataclass(frozen=True, slots=True)
class ServerOptions(LogOptions):
    """All flags of the server. Durations are seconds."""

    server_cert: str = flag("", "Certificate of the frontend TCP listener, a PEM file.")
    server_key: str = flag("", "Private key of --server-cert.")
    server_ca_cert: str = flag(
        "", "CA bundle that frontends' client certificates must chain to; required over TCP."
    )
    cluster_cert: str = flag("", "Certificate of the agent listener, a PEM file; required.")
    cluster_key: str = flag("", "Private key of --cluster-cert.")
    cluster_ca_cert: str = flag(
        "", "CA bundle that agents' client certificates must chain to; empty: none is asked for."
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
    keepalive_time: float = flag(10.0, "HTTP/2 ping interval towards agents.")
    frontend_keepalive_time: float = flag(3600.0, "HTTP/2 ping interval towards frontends.")
    admin_cert: str = flag("", "Certificate of the admin endpoints, a PEM file; empty: plain HTTP.")
    admin_key: str = flag("", "Private key of --admin-cert.")
    admin_client_ca: str = flag(
        "", "CA bundle that admin clients' certificates must chain to; empty: none is asked for."
    )
    admin_token_file: str = flag(
        "", "File with the bearer tokens that the admin endpoints accept, one a line; empty: none."
    )
    enable_profiling: bool = flag(False, "Profiles under /debug/pprof/ on the admin port.")
    enable_contention_profiling: bool = flag(
        False, "Record what holds the event loop; needs --enable-profiling."
    )
    server_id: str = flag("", "Identity told to agents.", variable="PROXY_SERVER_ID")
    server_count: int = flag(1, "Number of servers, told to agents.")
    agent_namespace: str = flag(
        "", "Namespace of the agents' service account; agents must then show a token of it."
    )
    agent_service_account: str = flag("", "Name of the agents' service account.")
    authentication_audience: str = flag("", "Audience of the agents' tokens.")
    authentication_timeout: float = flag(10.0, "Bound of one token review.")
    authentication_cache_ttl: float = flag(
        10.0, "How long a token that was found good is not reviewed again; 0: not at all."
    )
    authentication_recheck_interval: float = flag(
        600.0, "How often the tokens of connected agents are reviewed again; 0: never."
    )
    max_agent_connection_age: float = flag(
        0.0, "Age at which an agent is asked to connect anew, give or take a tenth; 0: none."
    )
    agent_certificate_identities: tuple[str, ...] = flag(
        (),
        "Agents' certificates must bear one of these, such as CN=agent, O=group, "
        "DNS=*.example.com, URI=spiffe://cluster.local/ns/kube-system/sa/*; empty: any will do.",
    )
    frontend_certificate_identities: tuple[str, ...] = flag(
        (), "The same for frontends' certificates."
    )
    bind_identifiers_to_node: bool = flag(
        False, "Agents may only claim host and address of the node that their token is bound to."
    )
    kubeconfig: str = flag("", "Kubeconfig; empty: in-cluster configuration.")
    kubeconfig_qps: float = flag(
        0.0, "API requests per second; 0: 5, and 50 for token reviews.", kind=FLOAT
    )
    kubeconfig_burst: int = flag(0, "API requests in a burst; 0: 10, and 100 for token reviews.")
    kube_api_content_type: str = flag(
        "application/vnd.kubernetes.protobuf", "Accepted without effect: JSON is spoken."
    )
    proxy_strategies: str = flag(
        "default",
        "Ways to choose an agent, in order: default, destHost, defaultRoute, destCIDR.",
    )
    agent_selection: str = flag(
        "random", "Which of several suitable agents gets a dial: random or least-loaded."
    )
    retry_dials: bool = flag(
        True, "Give a dial that an agent failed, not the endpoint, to another one, once."
    )
    tunnel_streams: bool = flag(
        True, "Let agents that can give each tunnel an HTTP/2 stream of its own."
    )
    cipher_suites: tuple[str, ...] = flag(
        (), "TLS 1.2 suites of both TLS listeners, by Go's names; empty: all safe ones."
    )
    tls_min_version: str = flag("", "VersionTLS10 to VersionTLS13; empty: VersionTLS12.")
    certificate_reload_interval: float = flag(
        10.0, "How often certificates, keys and CA bundles are looked at for changes; at least 1s."
    )
    xfr_channel_size: int = flag(10, "Accepted without effect: queues are bounded in bytes here.")
    enable_lease_controller: bool = flag(
        False, "Publish a lease for this server, and delete those of servers that are gone."
    )
    lease_namespace: str = flag("kube-system", "Namespace of the leases.")
    lease_label: str = flag(
        "k8s-app=konnectivity-server", "Labels of the lease, and of the leases to be deleted."
    )
    advertise_agent_address: str = flag(
        "",
        "Where agents reach this very server, host:port, published with its lease; empty: none.",
    )
    graceful_shutdown_timeout: float = flag(0.0, "Bound of an orderly stop; 0: stop at once.")
    backend_dial_timeout: float = flag(0.0, "Bound of a dial through an agent; 0: 30s.")
    max_tunnels: int = flag(50_000, "Tunnels and dials at once, of a worker; 0: any number.")
    max_pending_dials: int = flag(
        10_000, "Dials of a worker that no agent has answered yet, at once; 0: any number."
    )
    workers: int = flag(
        1, "Processes that share the ports; agents connect to each as to a server of its own."
    )
    warn_on_channel_limit: bool = flag(
        True, "", deprecated="it has no effect; queues have metrics instead."
    )

    @property
    def modes(self) -> frozenset[str]:
        """The frontend protocols to serve side by side (extension: upstream serves one)."""
        return frozenset(self.mode.split(","))

    @property
    def strategies(self) -> list[str]:
        """The ways to choose an agent, in order."""
        return split(self.proxy_strategies)

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
    from konnectivity.observe import protection  # it needs asyncio, which the help does not

    return [
        *_check_files(options),
        *_check_frontend(options),
        *_check_ports(options),
        *_check_authentication(options),
        *_check_strategies(options),
        *_check_tls(options),
        *_check_labels(options),
        *_check_times(options),
        *protection.check(
            options.admin_cert,
            options.admin_key,
            options.admin_client_ca,
            options.admin_token_file,
        ),
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
        for name, value in asked.items():
            if not value:
                yield f"{name} cannot be empty when agent authentication is enabled"
    elif options.bind_identifiers_to_node:
        yield f"--bind-identifiers-to-node needs agent authentication: {', '.join(asked)}"
    yield from _check_identities(options)
    if options.kubeconfig and (problem := absence(options.kubeconfig)):
        yield f"checking KubeconfigPath {quote(options.kubeconfig)}, got {problem}"


def _check_identities(options: ServerOptions) -> Iterator[str]:
    for name, patterns in (
        ("agent-certificate-identities", options.agent_certificate_identities),
        ("frontend-certificate-identities", options.frontend_certificate_identities),
    ):
        for text in patterns:
            try:
                compile_pattern(text)
            except ValueError as error:
                yield f"--{name} {quote(text)} {error}"
    if options.agent_certificate_identities and not options.cluster_ca_cert:
        yield "--agent-certificate-identities needs --cluster-ca-cert"
    if options.frontend_certificate_identities and options.uds_name:
        yield "frontend certificate identities should not be set for UDS"


def _check_strategies(options: ServerOptions) -> Iterator[str]:
    if not options.proxy_strategies:
        yield "ProxyStrategies cannot be empty"
        return
    for strategy in options.strategies:
        if strategy not in STRATEGIES:
            yield f"invalid proxy strategies: unknown proxy strategy: {strategy}"
    if not options.strategies:
        yield "invalid proxy strategies: proxy strategies cannot be empty"
    if options.agent_selection not in SELECTIONS:
        selection = quote(options.agent_selection)
        yield f"agent-selection must be set to either 'random' or 'least-loaded' not {selection}"
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
    if options.certificate_reload_interval < 1:
        interval = format_duration(options.certificate_reload_interval)
        yield f"certificate-reload-interval must be at least 1s, got {interval}"


def _check_labels(options: ServerOptions) -> Iterator[str]:
    if options.advertise_agent_address:
        yield from _check_advertised(options)
    if not options.enable_lease_controller:
        return
    try:
        for key, value in parse_labels(options.lease_label).items():
            check_key(key)
            check_value(key, value)
    except ValueError as error:
        yield str(error)
    if options.server_id and not is_object_name(lease_name(options.server_id)):
        yield (
            f"server id {quote(options.server_id)} cannot be part of a lease's name: only "
            "lower-case letters, digits, - and . may be in it, a letter or digit at its end"
        )


def _check_advertised(options: ServerOptions) -> Iterator[str]:
    address = options.advertise_agent_address
    try:
        host, service = split_host_port(address)
        wrong = "" if host and parse_port(service) else f"address {address}: host and port wanted"
    except AddressError as error:
        wrong = str(error)
    if wrong:
        yield f"advertise-agent-address is invalid: {wrong}"
    if not options.enable_lease_controller:
        yield "--advertise-agent-address is published with a lease: set --enable-lease-controller"


def _check_times(options: ServerOptions) -> Iterator[str]:
    for name, seconds in (
        ("graceful-shutdown-timeout", options.graceful_shutdown_timeout),
        ("backend-dial-timeout", options.backend_dial_timeout),
        ("authentication-cache-ttl", options.authentication_cache_ttl),
        ("authentication-recheck-interval", options.authentication_recheck_interval),
        ("max-agent-connection-age", options.max_agent_connection_age),
    ):
        if seconds < 0:
            yield f"{name} must be >= 0, got {format_duration(seconds)}"
    if options.authentication_timeout <= 0:
        shown = format_duration(options.authentication_timeout)
        yield f"authentication-timeout must be > 0, got {shown}"
    if not 1 <= options.workers <= MOST_WORKERS:
        yield f"workers must be 1 to {MOST_WORKERS}, got {options.workers}"
    for name, count in (
        ("max-tunnels", options.max_tunnels),
        ("max-pending-dials", options.max_pending_dials),
    ):
        if count < 0:
            yield f"{name} must be >= 0, got {count}"
