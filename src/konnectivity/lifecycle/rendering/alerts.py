"""When somebody is to be called: alerts on the metrics of servers, agents and manager.

One list for the Prometheus operator's objects and for Prometheus' own rule files. What an alert
says begins with what is wrong for users, and ends with where to look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from konnectivity.lifecycle.objects.metadata import Object

SERVER: Final = "konnectivity_network_proxy_server_"
AGENT: Final = "konnectivity_network_proxy_agent_"
MANAGER: Final = "konnectivity_manager_"

CRITICAL: Final = "critical"
WARNING: Final = "warning"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert; it fires when `expression` has held for `wait`, in Prometheus' notation.

    `check` is the code of the page with cause and remedy, in `docs/checks`.
    """

    name: str
    expression: str
    wait: str
    severity: str
    text: str
    check: str = ""

    @property
    def rule(self) -> Object:
        """As Prometheus reads it."""
        annotations = {"summary": self.text}
        if self.check:
            annotations["runbook"] = f"docs/checks/{self.check}.md"
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": self.wait,
            "labels": {"severity": self.severity},
            "annotations": annotations,
        }


def _expiry(program: str) -> str:
    return f"{program}certificate_expiry_timestamp_seconds"


def _certificates(prefix: str, program: str, who: str) -> tuple[Alert, ...]:
    in_use = f'{_expiry(program)}{{state="in_use"}}'
    on_disk = f'{_expiry(program)}{{state="on_disk"}}'
    return (
        Alert(
            f"{prefix}CertificateExpires",
            f"{in_use} - time() < 14 * 86400",
            "10m",
            WARNING,
            f"A certificate of {who} ({{{{ $labels.file }}}}) expires in "
            "{{ $value | humanizeDuration }}.",
            "KNC601",
        ),
        Alert(
            f"{prefix}CertificateExpiresSoon",
            f"{in_use} - time() < 2 * 86400",
            "10m",
            CRITICAL,
            f"A certificate of {who} ({{{{ $labels.file }}}}) expires in "
            "{{ $value | humanizeDuration }}: then no connection is made any more.",
            "KNC601",
        ),
        Alert(
            f"{prefix}CertificateNotReloaded",
            f"{in_use} != ignoring (state) {on_disk}",
            "10m",
            WARNING,
            f"The certificate on the disk of {who} ({{{{ $labels.file }}}}) is not the one in "
            "use: it was rejected, the log says why.",
            "KNC601",
        ),
    )


def _descriptors(prefix: str, program: str, who: str) -> Alert:
    share = "process_open_fds / process_max_fds"
    ours = f"on (job, instance) {program}build_info"
    return Alert(
        f"{prefix}DescriptorsRunOut",
        f"{share} > 0.8 and {ours}",
        "10m",
        WARNING,
        f"{who} uses {{{{ $value | humanizePercentage }}}} of the file descriptors that it may "
        "have; each tunnel takes one.",
        "KNC503",
    )


# A frontend that no longer waits, and a server that stops, are nobody's fault.
_FAILED: Final = (
    f"sum without (reason) "
    f'(rate({SERVER}dial_failure_count{{reason!~"frontend_close|shutdown"}}[5m]))'
)
_SUCCEEDED: Final = f"rate({SERVER}dial_duration_seconds_count[5m])"

_SERVER: Final = (
    Alert(
        "KonnectivityServerNoAgents",
        f"{SERVER}ready_backend_connections == 0",
        "5m",
        CRITICAL,
        "No agent is connected to server {{ $labels.instance }}: through it there are no logs, no "
        "exec and no webhooks.",
        "KNC201",
    ),
    Alert(
        "KonnectivityServerDialsFail",
        # Success has no series before the first one.
        f"{_FAILED} / ({_FAILED} + ({_SUCCEEDED} or 0 * {_FAILED})) > 0.1 and {_FAILED} > 0.05",
        "10m",
        WARNING,
        "{{ $value | humanizePercentage }} of the dials through server {{ $labels.instance }} "
        "fail.",
        "KNC505",
    ),
    Alert(
        "KonnectivityServerDialsPileUp",
        f"{SERVER}pending_backend_dials > 50 and deriv({SERVER}pending_backend_dials[10m]) > 0",
        "5m",
        WARNING,
        "{{ $value }} dials wait at server {{ $labels.instance }}, more and more of them: "
        "destinations or agents do not answer.",
        "KNC502",
    ),
    Alert(
        "KonnectivityServerHoldsBytes",
        f"{SERVER}held_bytes > 64 * 1024 * 1024",
        "10m",
        WARNING,
        "Server {{ $labels.instance }} holds {{ $value | humanize1024 }}B for frontends that read "
        "slowly; at 256 MiB tunnels end.",
        "KNC501",
    ),
    Alert(
        "KonnectivityServerOverflows",
        f"increase({SERVER}overflows_total[15m]) > 0",
        "0m",
        WARNING,
        "Server {{ $labels.instance }} has ended tunnels whose frontend read too slowly.",
        "KNC501",
    ),
    Alert(
        "KonnectivityServerAgentsFlap",
        f'increase({SERVER}tunnels_ended_total{{reason="agent_lost"}}[15m]) > 10',
        "15m",
        WARNING,
        "Agents of server {{ $labels.instance }} keep going away, and their tunnels with them: "
        "{{ $value | humanize }} in 15 minutes.",
        "KNC207",
    ),
    _descriptors("KonnectivityServer", SERVER, "Server {{ $labels.instance }}"),
    *_certificates("KonnectivityServer", SERVER, "server {{ $labels.instance }}"),
)

_AGENT: Final = (
    Alert(
        "KonnectivityAgentDisconnected",
        f"{AGENT}open_server_connections == 0",
        "5m",
        CRITICAL,
        "Agent {{ $labels.pod }} is connected to no server: through it there are no logs, no exec "
        "and no webhooks.",
        "KNC201",
    ),
    Alert(
        "KonnectivityAgentServersMissing",
        f"{AGENT}open_server_connections < {AGENT}known_server_count",
        "5m",
        WARNING,
        "Agent {{ $labels.pod }} is connected to {{ $value }} servers and there are more: those "
        "that it lacks may have no agent.",
        "KNC201",
    ),
    Alert(
        "KonnectivityAgentFlaps",
        f"sum without (direction) (increase({AGENT}server_connection_failure_count[15m])) > 5",
        "15m",
        WARNING,
        "The connections of agent {{ $labels.pod }} to its servers keep breaking: "
        "{{ $value | humanize }} in 15 minutes.",
        "KNC207",
    ),
    Alert(
        "KonnectivityAgentDialsFail",
        f"sum without (reason) (rate({AGENT}endpoint_dial_failure_total[10m])) > 1",
        "15m",
        WARNING,
        "Agent {{ $labels.pod }} fails to reach endpoints: {{ $value | humanize }} a second.",
        "KNC505",
    ),
    Alert(
        "KonnectivityAgentHoldsBytes",
        f"{AGENT}held_bytes > 64 * 1024 * 1024",
        "10m",
        WARNING,
        "Agent {{ $labels.pod }} holds {{ $value | humanize1024 }}B for endpoints that read "
        "slowly; at 256 MiB tunnels end.",
        "KNC501",
    ),
    _descriptors("KonnectivityAgent", AGENT, "Agent {{ $labels.pod }}"),
    *_certificates("KonnectivityAgent", AGENT, "agent {{ $labels.pod }}"),
)

_MANAGER: Final = (
    Alert(
        "KonnectivityDataPlaneUnreachable",
        f'{MANAGER}condition{{type="DataPlaneReachable"}} == 0',
        "5m",
        CRITICAL,
        "The API server could not read a log of an agent's pod through the tunnel: no logs, no "
        "exec, no webhooks.",
        "KNC401",
    ),
    Alert(
        "KonnectivityAgentsUnavailable",
        f'{MANAGER}condition{{type=~"Installed|Available"}} == 0',
        "5m",
        CRITICAL,
        "The agents are not as they should be, {{ $labels.type }} is false: objects are missing, "
        "or no agent is available.",
        "KNC102",
    ),
    Alert(
        "KonnectivityManagerNobodyLeads",
        f"max without (instance, pod) ({MANAGER}leading) == 0",
        "5m",
        WARNING,
        "No manager may write: what is deleted does not come back.",
        "KNC701",
    ),
    Alert(
        "KonnectivityManagerCannotWrite",
        f"{MANAGER}failing_objects > 0",
        "10m",
        WARNING,
        "{{ $value }} objects cannot be written; the manager's Events say which, and which right "
        "is missing.",
        "KNC701",
    ),
    Alert(
        "KonnectivityManagerHealsOften",
        "sum without (kind, reason) "
        f'(increase({MANAGER}heals_total{{reason=~"restore|drift"}}[1h])) > 3',
        "0m",
        WARNING,
        "Somebody undoes what the manager mends: {{ $value | humanize }} repairs in an hour.",
        "KNC702",
    ),
)

ALERTS: Final[Mapping[str, Sequence[Alert]]] = {
    "konnectivity-server": _SERVER,
    "konnectivity-agent": _AGENT,
    "konnectivity-manager": _MANAGER,
}
"""All of them, by the program whose metrics they look at."""


def group(name: str, alerts: Sequence[Alert]) -> Object:
    """A group of rules."""
    return {"name": name, "rules": [each.rule for each in alerts]}


def rule_file() -> Object:
    """What Prometheus' setting `rule_files` reads."""
    return {"groups": [group(name, alerts) for name, alerts in ALERTS.items()]}
