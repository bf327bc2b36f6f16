"""The two dashboards: what all servers and agents do, and what single agents do."""

from __future__ import annotations

from typing import Final

from konnectivity.lifecycle.rendering.alerts import AGENT, MANAGER, SERVER
from konnectivity.lifecycle.rendering.grafana import Dashboard, Panel, Query, Variable, to_json

_EVERY: Final = "[$__rate_interval]"
_S: Final = '{instance=~"$server"}'
_A: Final = '{agent=~"$agent"}'
_DAY: Final = 86_400
_ATTEMPTS: Final = f"rate({AGENT}server_connection_attempt_failures_total{_EVERY})"


def _plot(title: str, unit: str, *queries: tuple[str, str], text: str = "") -> Panel:
    """Lines over time; a query is an expression and a legend."""
    return Panel(title, [Query(*each) for each in queries], unit=unit, text=text)


def _number(
    title: str,
    *expressions: str,
    unit: str = "short",
    limits: tuple[float, ...] = (),
    bad_below: float | None = None,
) -> Panel:
    """A number as of now."""
    return Panel(
        title,
        [Query(each) for each in expressions],
        unit=unit,
        kind="stat",
        limits=limits,
        bad_below=bad_below,
        width=4,
        height=4,
    )


def _ranking(title: str, expression: str, text: str = "") -> Panel:
    return Panel(title, [Query(expression)], kind="table", text=text, width=12)


def _server(name: str) -> str:
    """A metric of the servers that are chosen."""
    return f"{SERVER}{name}{_S}"


def _rate(name: str, labels: str) -> tuple[str, str]:
    """How fast it grows, by labels, which are the legend too."""
    return _sum(f"rate({_server(name)}{_EVERY})", labels)


def _by_agent(name: str, labels: str = "agent") -> tuple[str, str]:
    return _sum(f"rate({SERVER}{name}{_A}{_EVERY})", labels)


def _sum(expression: str, labels: str) -> tuple[str, str]:
    legend = " ".join(f"{{{{{each}}}}}" for each in labels.split(", "))
    return f"sum by ({labels}) ({expression})", legend


def _times(metric: str, selector: str = "") -> tuple[tuple[str, str], tuple[str, str]]:
    buckets = f"sum by (le) (rate({metric}_bucket{selector}{_EVERY}))"
    return (
        (f"histogram_quantile(0.5, {buckets})", "half"),
        (f"histogram_quantile(0.99, {buckets})", "99 of 100"),
    )


def _left(program: str) -> str:
    """Seconds until each certificate in use expires."""
    in_use = f'{program}certificate_expiry_timestamp_seconds{{state="in_use"}}'
    return f"min by (instance, file) ({in_use}) - time()"


def _process(program: str, expression: str) -> tuple[str, str]:
    """A metric that every process has, of one program."""
    return f"{expression} and on (job, instance) {program}build_info", "{{instance}}"


_FAILED: Final = f"sum(rate({_server('dial_failure_count')}{_EVERY}))"
_SUCCEEDED: Final = f"sum(rate({_server('dial_duration_seconds_count')}{_EVERY}))"
_MISSING: Final = f"{AGENT}open_server_connections < {AGENT}known_server_count"
_REPAIRS: Final = f'increase({MANAGER}heals_total{{reason=~"restore|drift"}}[24h])'

_GLANCE: Final = (
    _number(
        "Fewest agents on a server", f"min({_server('ready_backend_connections')})", bad_below=1
    ),
    _number("Tunnels now", f"sum({_server('established_connections')})"),
    _number(
        "Dials that fail",
        f"{_FAILED} / ({_FAILED} + {_SUCCEEDED})",
        unit="percentunit",
        limits=(0.01, 0.1),
    ),
    _number("Agents that lack a server", f"count({_MISSING}) or vector(0)", limits=(1, 10)),
    _number(
        "Next certificate to expire",
        f"min({_left(SERVER)} or {_left(AGENT)})",
        unit="s",
        bad_below=14 * _DAY,
    ),
    _number("Repairs in 24 hours", f"sum({_REPAIRS}) or vector(0)", limits=(1, 10)),
)
_DIALS: Final = (
    _plot("Dials", "ops", _rate("dial_duration_seconds_count", "instance")),
    _plot("Failed dials by reason", "ops", _rate("dial_failure_count", "reason")),
    _plot(
        "Time to dial",
        "s",
        *_times(f"{SERVER}dial_duration_seconds", _S),
        text="Of dials that succeeded, as the servers see them.",
    ),
)
_TUNNELS: Final = (
    _plot("Open tunnels", "short", (_server("established_connections"), "{{instance}}")),
    _plot(
        "Payload",
        "Bps",
        _rate("tunnel_bytes_total", "segment"),
        text="to_agent is upwards, from_agent downwards.",
    ),
    _plot("Ends of tunnels by reason", "ops", _rate("tunnels_ended_total", "reason")),
    _plot(
        "Held for slow readers",
        "bytes",
        (_server("held_bytes"), "for frontends, {{instance}}"),
        (_server("waiting_bytes"), "for agents, {{instance}}"),
    ),
    _plot("Dials under way", "short", (_server("pending_backend_dials"), "{{instance}}")),
    _plot(
        "Paused sides",
        "ops",
        _rate("pauses_total", "service_method"),
        text="How often one side of a tunnel was too slow for the other.",
    ),
)
_CONNECTIONS: Final = (
    _plot("Agents by server", "short", (_server("ready_backend_connections"), "{{instance}}")),
    _plot("Agents that came, by outcome", "ops", _rate("agent_authentications_total", "outcome")),
    _plot("Failed connections of agents, by stage", "ops", _sum(_ATTEMPTS, "stage")),
)
_PROCESSES: Final = (
    _plot(
        "CPU of servers",
        "percentunit",
        _process(SERVER, f"rate(process_cpu_seconds_total{_S}{_EVERY})"),
        text="One core is 100 %, and a server uses little more than one.",
    ),
    _plot("Memory of servers", "bytes", _process(SERVER, f"process_resident_memory_bytes{_S}")),
    _plot(
        "Versions",
        "short",
        (f"count by (version) ({SERVER}build_info)", "server {{version}}"),
        (f"count by (version) ({AGENT}build_info)", "agent {{version}}"),
    ),
)
_MENDING: Final = (
    Panel(
        "Conditions",
        [Query(f"min by (type) ({MANAGER}condition)", "{{type}}")],
        text="1 true, 0 false, -1 unknown.",
        least=None,
    ),
    _plot(
        "Objects written, by reason",
        "short",
        _sum(f"increase({MANAGER}heals_total[1h])", "reason"),
    ),
    _plot("Time to mend", "s", *_times(f"{MANAGER}heal_duration_seconds")),
)

OVERVIEW: Final = Dashboard(
    uid="konnectivity-overview",
    title="Konnectivity: overview",
    text="All servers, their agents and the manager.",
    variables=[Variable("server", f"label_values({SERVER}build_info, instance)")],
    rows=[
        ("At a glance", _GLANCE),
        ("Dials", _DIALS),
        ("Tunnels", _TUNNELS),
        ("Agents", _CONNECTIONS),
        ("Processes", _PROCESSES),
        ("Manager", _MENDING),
    ],
)

_OPEN: Final = _sum(f"{SERVER}agent_tunnels{_A}", "agent")
_UNLUCKY: Final = _sum(f"increase({SERVER}agent_dial_failures_total{_A}[1h])", "agent")

_FROM_OUTSIDE: Final = (
    _plot("Open tunnels", "short", _OPEN),
    _plot("Payload", "Bps", _by_agent("agent_bytes_total", "agent, segment")),
    _plot(
        "Dials that fail",
        "percentunit",
        (
            f"{_by_agent('agent_dial_failures_total')[0]} / {_by_agent('agent_dials_total')[0]}",
            "{{agent}}",
        ),
    ),
    _ranking(
        "Most failed dials in an hour",
        f"topk(20, {_UNLUCKY[0]})",
        text="A server tells 200 agents apart, all further ones are `other`.",
    ),
    _ranking("Most tunnels", f"topk(20, {_OPEN[0]})"),
)
_FROM_INSIDE: Final = (
    _plot("Servers connected", "short", (f"{AGENT}open_server_connections", "{{instance}}")),
    _plot(
        "Servers missing",
        "short",
        (f"{AGENT}known_server_count - {AGENT}open_server_connections > 0", "{{instance}}"),
    ),
    _plot("Failed connections by stage", "ops", _sum(_ATTEMPTS, "instance, stage")),
    _plot(
        "Failed dials of endpoints by cause",
        "ops",
        _sum(f"rate({AGENT}endpoint_dial_failure_reasons_total{_EVERY})", "reason"),
    ),
    _plot("Time to dial an endpoint", "s", *_times(f"{AGENT}dial_duration_seconds")),
    _plot(
        "Refused by the destination policy",
        "ops",
        _sum(f"rate({AGENT}refused_destinations_total{_EVERY})", "rule"),
    ),
    _plot("Certificates, time left", "s", (_left(AGENT), "{{instance}} {{file}}")),
    _plot("CPU", "percentunit", _process(AGENT, f"rate(process_cpu_seconds_total{_EVERY})")),
    _plot("Memory", "bytes", _process(AGENT, "process_resident_memory_bytes")),
)

AGENTS: Final = Dashboard(
    uid="konnectivity-agents",
    title="Konnectivity: agents",
    text="Single agents: as the servers see them, and as they see themselves.",
    variables=[Variable("agent", f"label_values({SERVER}agent_tunnels, agent)")],
    rows=[
        ("As the servers see them", _FROM_OUTSIDE),
        ("As they see themselves", _FROM_INSIDE),
    ],
)

DASHBOARDS: Final = {"overview.json": OVERVIEW, "agents.json": AGENTS}


def files() -> dict[str, str]:
    """The texts to import, by file name."""
    return {name: to_json(dashboard) for name, dashboard in DASHBOARDS.items()}
