"""The agent's flags and what must hold between them.

Names, types and defaults are those of upstream's `proxy-agent`
(cmd/agent/app/options/options.go). Nothing here opens a file or reads the environment, except
that `validate` looks whether named files exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_plus

from konnectivity.flag import absence, flag
from konnectivity.gotext import format_duration, quote
from konnectivity.kube.selector import check_selector
from konnectivity.observe.log_options import LogOptions
from konnectivity.wire.parallel import MOST as MOST_CONNECTIONS

IDENTIFIERS = frozenset(["ipv4", "ipv6", "host", "cidr", "default-route"])
COUNT_SOURCES = frozenset(["", "default", "max"])
LAST_PORT = 65535
LONGEST_ALPN = 255  # bytes of a protocol's name (RFC 7301, 3.1)
SHORTEST_HEARTBEAT = 1.0
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_BAD_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2}).{0,2}")


@dataclass(frozen=True, slots=True)
class AgentOptions(LogOptions):
    """All flags of the agent. Durations are seconds."""

    agent_cert: str = flag("", "Client certificate for the server connection, a PEM file.")
    agent_key: str = flag("", "Private key of --agent-cert.")
    ca_cert: str = flag("", "CA bundle that servers' certificates must chain to; required.")
    proxy_server_host: str = flag("127.0.0.1", "Name or IP of the server or its load balancer.")
    proxy_server_port: int = flag(8091, "Agent port of the server.")
    alpn_proto: tuple[str, ...] = flag((), "ALPN protocols to offer before h2.")
    certificate_reload_interval: float = flag(
        10.0, "How often certificate, key and CA bundle are looked at for changes; at least 1s."
    )
    health_server_host: str = flag("", "Health address; empty: all interfaces.")
    health_server_port: int = flag(8093, "Port of health checks and metrics.")
    admin_bind_address: str = flag("127.0.0.1", "Admin address; empty: all interfaces.")
    admin_server_port: int = flag(8094, "Port of the admin endpoints.")
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
    agent_id: str = flag("", "Identity told to servers.", variable="PROXY_AGENT_ID")
    agent_identifiers: str = flag(
        "", "What the agent is near to, as a query string: host=...&ipv4=...&default-route=true."
    )
    sync_interval: float = flag(1.0, "Interval of looking for further servers.")
    sync_interval_cap: float = flag(10.0, "Upper bound of that interval after failures.")
    sync_forever: bool = flag(False, "Look for further servers when enough are connected too.")
    ready_wait_for_all_servers: float = flag(
        0.0,
        "How long a new agent is not ready until it has been on all servers; 0: ready with any.",
    )
    connections_per_server: int = flag(
        1, "Connections to each server that is ours too; tunnels spread over them."
    )
    probe_interval: float = flag(
        1.0, "Accepted without effect: a lost connection is noticed at once here."
    )
    keepalive_time: float = flag(3600.0, "HTTP/2 ping interval; at least 10s.")
    tunnel_streams: bool = flag(
        True, "Give each tunnel an HTTP/2 stream of its own, where the server takes them."
    )
    service_account_token_path: str = flag(
        "", "File with the bearer token, read at each connection attempt."
    )
    allow_destinations: tuple[str, ...] = flag(
        (),
        "The only endpoints to dial: CIDR, name or *.suffix, each with :port, :port-port or "
        "neither; empty: all.",
    )
    cluster_destinations_only: bool = flag(
        False,
        "Dial only what a cluster has: private addresses and names of services; and what "
        "--allow-destinations adds.",
    )
    max_tunnels: int = flag(20_000, "Tunnels and dials at once; 0: any number.")
    drain_timeout: float = flag(
        25.0, "How long to wait for tunnels after SIGTERM, then they are closed; 0: for ever."
    )
    warn_on_channel_limit: bool = flag(
        False, "Accepted without effect: a full queue pauses its source here."
    )
    xfr_channel_size: int = flag(150, "Accepted without effect: queues are bounded in bytes here.")
    count_server_leases: bool = flag(False, "Count servers by their leases.")
    lease_namespace: str = flag("kube-system", "Namespace of the leases.")
    lease_label_selector: str = flag(
        "k8s-app=konnectivity-server",
        "Selector of the leases that count; empty: all of the namespace.",
        old_name="lease-label",
    )
    server_count_source: str = flag(
        "default", "With leases: default, they alone count; max, or what servers say if more."
    )
    heartbeat_interval: float = flag(
        0.0, "How often to write the agent's state to the Kubernetes API, for diagnosis; 0: never."
    )
    heartbeat_namespace: str = flag("konnectivity-heartbeats", "Namespace of these heartbeats.")
    kubeconfig: str = flag(
        "", "Kubeconfig for leases and heartbeats; empty: in-cluster configuration."
    )
    kube_api_content_type: str = flag(
        "application/vnd.kubernetes.protobuf",
        "Accepted without effect: requests to the API are JSON here.",
    )


def validate(options: AgentOptions) -> list[str]:
    """All that is wrong with `options`, a line each, in upstream's order and words.

    Lines that upstream does not have name what it would only notice, or ignore, later.
    """
    from konnectivity.observe import protection  # it needs asyncio, which the help does not

    return [
        *_check_certificates(options),
        *_check_ports(options),
        *_check_intervals(options),
        *_check_connections(options),
        *_check_identity(options),
        *_check_tunnels(options),
        *_check_leases(options),
        *_check_heartbeats(options),
        *protection.check(
            options.admin_cert,
            options.admin_key,
            options.admin_client_ca,
            options.admin_token_file,
        ),
    ]


def _check_certificates(options: AgentOptions) -> Iterator[str]:
    key, cert, ca = options.agent_key, options.agent_cert, options.ca_cert
    if key and (problem := absence(key)):
        yield f"error checking agent key {key}, got {problem}"
    if key and not cert:
        yield f"cannot have agent cert empty when agent key is set to {quote(key)}"
    if cert and (problem := absence(cert)):
        yield f"error checking agent cert {cert}, got {problem}"
    if cert and not key:
        yield f"cannot have agent key empty when agent cert is set to {quote(cert)}"
    if ca and (problem := absence(ca)):
        yield f"error checking agent CA cert {ca}, got {problem}"
    if not ca:
        yield "agent CA cert must be set (ca-cert), servers are verified against it"
    for protocol in options.alpn_proto:
        if not (protocol.isascii() and 0 < len(protocol) <= LONGEST_ALPN):
            yield f"alpn-proto {quote(protocol)} must be 1 to {LONGEST_ALPN} letters of ASCII"
    if options.certificate_reload_interval < 1:
        interval = format_duration(options.certificate_reload_interval)
        yield f"certificate-reload-interval must be at least 1s, got {interval}"


def _check_ports(options: AgentOptions) -> Iterator[str]:
    ports = {
        "proxy": options.proxy_server_port,
        "health": options.health_server_port,
        "admin": options.admin_server_port,
    }
    for which, port in ports.items():
        if port <= 0:
            yield f"{which} server port {port} must be greater than 0"
        if port > LAST_PORT:
            yield f"{which} server port {port} must not be greater than {LAST_PORT}"
    if options.xfr_channel_size <= 0:
        yield f"channel size {options.xfr_channel_size} must be greater than 0"
    if options.enable_contention_profiling and not options.enable_profiling:
        yield "if --enable-contention-profiling is set, --enable-profiling must also be set"


def _check_intervals(options: AgentOptions) -> Iterator[str]:
    interval, cap = options.sync_interval, options.sync_interval_cap
    if interval > cap:
        yield (
            f"sync interval {format_duration(interval)} must be less than "
            f"sync interval cap {format_duration(cap)}"
        )
    if (wait := options.ready_wait_for_all_servers) < 0:
        yield f"ready-wait-for-all-servers must be >= 0, got {format_duration(wait)}"
    for name, seconds in (("sync", interval), ("probe", options.probe_interval)):
        if seconds <= 0:
            yield f"{name} interval {format_duration(seconds)} must be greater than 0s"


def _check_connections(options: AgentOptions) -> Iterator[str]:
    if not 1 <= options.connections_per_server <= MOST_CONNECTIONS:
        yield (
            f"connections-per-server must be 1 to {MOST_CONNECTIONS}, "
            f"got {options.connections_per_server}"
        )


def _check_identity(options: AgentOptions) -> Iterator[str]:
    token = options.service_account_token_path
    if token and (problem := absence(token)):
        yield f"error checking service account token path {token}, got {problem}"
    for reason in _check_identifiers(options.agent_identifiers):
        yield f"agent address is invalid: {reason}"


def _check_identifiers(text: str) -> Iterator[str]:
    """What Go's `url.ParseQuery` refuses, and keys that no server knows."""
    for pair in filter(None, text.split("&")):
        key = pair.partition("=")[0]
        if ";" in pair:
            yield "invalid semicolon separator in query"
        elif bad := _BAD_ESCAPE.search(pair):
            yield f"invalid URL escape {quote(bad.group())}"
        elif unquote_plus(key) not in IDENTIFIERS:
            yield f"unknown address type: {unquote_plus(key)}"


def _check_tunnels(options: AgentOptions) -> Iterator[str]:
    if options.allow_destinations:
        from konnectivity.agent import policy  # it needs asyncio, which the flags' help does not

        yield from policy.problems(options.allow_destinations)
    if options.max_tunnels < 0:
        yield f"max-tunnels must be >= 0, got {options.max_tunnels}"
    if options.drain_timeout < 0:
        yield f"drain-timeout must be >= 0, got {format_duration(options.drain_timeout)}"


def _check_leases(options: AgentOptions) -> Iterator[str]:
    if options.kubeconfig and (problem := absence(options.kubeconfig)):
        yield f"error checking KubeconfigPath {quote(options.kubeconfig)}, got {problem}"
    try:
        check_selector(options.lease_label_selector)
    except ValueError as error:
        text = quote(options.lease_label_selector)
        yield f'invalid argument {text} for "--lease-label-selector" flag: {error}'
    source = options.server_count_source
    if source not in COUNT_SOURCES:
        yield f"--server-count-source must be one of '', 'default', 'max', got {source}"


def _check_heartbeats(options: AgentOptions) -> Iterator[str]:
    interval = options.heartbeat_interval
    if interval and interval < SHORTEST_HEARTBEAT:
        yield f"heartbeat-interval must be 0 or at least 1s, got {format_duration(interval)}"
    if not _NAMESPACE.fullmatch(options.heartbeat_namespace):
        yield f"heartbeat-namespace {quote(options.heartbeat_namespace)} is no name of a namespace"
