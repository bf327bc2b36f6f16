"""The command line of an agent in the cluster, and the paths that it names."""

from __future__ import annotations

from typing import Final

from konnectivity.gotext import format_duration
from konnectivity.lifecycle.specification.spec import AgentSpec

COMMAND: Final = "/proxy-agent"
HEALTH_PORT: Final = 8093
ADMIN_PORT: Final = 8094

TOKEN_DIRECTORY: Final = "/var/run/secrets/tokens"  # noqa: S105 - a path
TOKEN_FILE: Final = "konnectivity-agent-token"  # noqa: S105 - a name
CA_DIRECTORY: Final = "/etc/konnectivity/ca"
CA_FILE: Final = "ca.crt"
CERTIFICATE_DIRECTORY: Final = "/etc/konnectivity/certificate"

HEARTBEAT: Final = 60.0
"""Seconds between heartbeats; extra arguments may change it."""
KEEPALIVE: Final = 30.0
"""Seconds between pings: a server that vanished without a word is noticed, a NAT stays open."""

READY_WAIT: Final = 900.0
"""Seconds: longer than a manager lets a rollout wait, so what stops it is not a server's return."""

OWNED: Final = frozenset(
    [
        "--proxy-server-host",
        "--proxy-server-port",
        "--ca-cert",
        "--service-account-token-path",
        "--agent-cert",
        "--agent-key",
        "--agent-identifiers",
        "--drain-timeout",
        "--count-server-leases",
        "--lease-namespace",
        "--heartbeat-namespace",
        "--health-server-host",
        "--health-server-port",
        "--agent-id",
    ]
)
"""Flags that follow from the specification; extra arguments may not contradict it."""


def arguments(spec: AgentSpec) -> list[str]:
    """The agent's flags; extra arguments come last and so win over defaults."""
    found = [
        f"--proxy-server-host={spec.server_host}",
        f"--proxy-server-port={spec.server_port}",
        f"--ca-cert={CA_DIRECTORY}/{CA_FILE}",
    ]
    if spec.uses_token:
        found.append(f"--service-account-token-path={TOKEN_DIRECTORY}/{TOKEN_FILE}")
    if spec.uses_certificate:
        found.append(f"--agent-cert={CERTIFICATE_DIRECTORY}/tls.crt")
        found.append(f"--agent-key={CERTIFICATE_DIRECTORY}/tls.key")
    if named := identifiers(spec):
        found.append(f"--agent-identifiers={named}")
    if spec.count_leases:
        found += ["--count-server-leases", f"--lease-namespace={spec.lease_namespace}"]
    if spec.heartbeats:
        found.append(f"--heartbeat-interval={format_duration(HEARTBEAT)}")
        found.append(f"--heartbeat-namespace={spec.heartbeat_namespace}")
    found.append(f"--health-server-port={HEALTH_PORT}")
    found.append(f"--drain-timeout={format_duration(spec.drain_timeout)}")
    found.append(f"--ready-wait-for-all-servers={format_duration(READY_WAIT)}")
    found.append(f"--keepalive-time={format_duration(KEEPALIVE)}")
    return [*found, *spec.extra_arguments]


def identifiers(spec: AgentSpec) -> str:
    """What an agent is near to: its node, where each node has one."""
    if spec.identifiers or not spec.is_daemonset:
        return spec.identifiers
    return "host=$(NODE_NAME)&ipv4=$(NODE_IP)"
