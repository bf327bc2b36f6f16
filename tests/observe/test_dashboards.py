"""Alerts and dashboards ask for what is there, and alerts fire when they should and not else.

The expressions are parsed by a parser of PromQL that is not ours, and evaluated by Prometheus' own
`promtool`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from tests.peers.tool import run

from konnectivity.agent.metrics import AGENT
from konnectivity.lifecycle.managing.metrics import MANAGER
from konnectivity.lifecycle.objects.monitoring import monitoring
from konnectivity.lifecycle.rendering.alerts import ALERTS, Alert, rule_file
from konnectivity.lifecycle.rendering.dashboards import DASHBOARDS, files
from konnectivity.lifecycle.specification.spec import AgentSpec
from konnectivity.observe.exposition import Metric
from konnectivity.observe.process import PROCESS
from konnectivity.server.metrics import SERVER
from konnectivity.tunnel.reason import Failure, Reason

ROOT = Path(__file__).parents[2]
METRICS = {
    metric.name: metric
    for catalogue in (SERVER, AGENT, MANAGER, PROCESS)
    for metric in catalogue.metrics
}
SCRAPED = {"instance", "job", "namespace", "pod"}
"""Labels that Prometheus and its operator put on everything."""
VALUES = {
    ("dial_failure_count", "reason"): set(Failure),
    ("tunnels_ended_total", "reason"): set(Reason),
    ("certificate_expiry_timestamp_seconds", "state"): {"in_use", "on_disk"},
    ("heals_total", "reason"): {"install", "restore", "drift", "upgrade", "adopt"},
    ("condition", "type"): {
        *re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/reference/manager.md").read_text(), re.M)
    },
}
"""The values of labels that expressions name, by the end of the metric's name."""
EVERY = [alert for alerts in ALERTS.values() for alert in alerts]
VARIABLES = {"$__rate_interval": "5m", "$server": ".*", "$agent": ".*"}


def expressions() -> Iterator[tuple[str, str]]:
    for alert in EVERY:
        yield alert.name, alert.expression
    for dashboard in DASHBOARDS.values():
        for number, expression in enumerate(dashboard.expressions):
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            yield f"{dashboard.uid}-{number}", expression


def parts(node: Any) -> Iterator[Any]:
    """An expression and all that it is made of."""
    yield node
    for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
        if (part := getattr(node, name, None)) is not None and not isinstance(part, str):
            yield from parts(part)
    for part in getattr(node, "args", None) or ():
        yield from parts(part)


def metric_of(name: str) -> tuple[Metric, set[str]]:
    """The metric that a series belongs to, and the labels that the series has."""
    if name in METRICS:
        assert METRICS[name].kind != "histogram", f"{name} is a histogram, and no series"
        return METRICS[name], {*METRICS[name].labels}
    base, _, kind = name.rpartition("_")
    assert kind in ("bucket", "sum", "count"), f"there is no metric {name}"
    assert METRICS[base].kind == "histogram", f"{base} is no histogram"
    return METRICS[base], {*METRICS[base].labels} | ({"le"} if kind == "bucket" else set())


@pytest.mark.parametrize(("name", "expression"), [*expressions()])
def test_an_expression_asks_for_metrics_and_labels_that_are_there(
    name: str, expression: str
) -> None:
    nodes = [*parts(promql.parse(expression))]
    known = set(SCRAPED)
    selectors = [each for each in nodes if isinstance(each, promql.VectorSelector)]
    assert selectors
    for selector in selectors:
        metric, labels = metric_of(selector.name)
        known |= labels
        for matcher in selector.matchers.matchers:
            assert matcher.name in labels | SCRAPED, f"{selector.name} has no {matcher.name}"
            assert_values(metric.name, matcher.name, matcher.value)
    for node in nodes:
        modifier = getattr(node, "modifier", None)
        for list_ in ("labels", "matching", "group_labels"):
            found = getattr(modifier, list_, None)
            names = getattr(found, "labels", found) or []
            assert {*names} <= known, f"{name}: {names}"


def assert_values(metric: str, label: str, value: str) -> None:
    """A value that is named must be one that the metric can have."""
    if label in SCRAPED or value == ".*":
        return
    (known,) = [
        values for (end, of), values in VALUES.items() if metric.endswith(end) and of == label
    ]
    assert {*value.split("|")} <= {str(each) for each in known}


def test_the_walk_finds_every_metric_of_an_expression() -> None:
    tree = promql.parse(
        "sum by (x) (rate(a{b='c'}[5m])) / on (y) group_left (z) (d or topk(3, -e)) > f offset 5m"
    )
    found = [each.name for each in parts(tree) if isinstance(each, promql.VectorSelector)]
    assert sorted(found) == ["a", "d", "e", "f"]


def test_alerts_have_names_of_their_own_and_lead_to_pages() -> None:
    assert len({alert.name for alert in EVERY}) == len(EVERY)
    for alert in EVERY:
        assert alert.severity in ("critical", "warning")
        assert re.fullmatch(r"KNC\d{3}", alert.check)


@pytest.mark.parametrize("alert", EVERY, ids=lambda alert: alert.name)
def test_the_page_of_an_alert_is_there(alert: Alert) -> None:
    assert (ROOT / alert.rule["annotations"]["runbook"]).exists()


def test_every_alert_is_in_the_documentation() -> None:
    text = (ROOT / "docs/how-to/dashboards.md").read_text()
    for rows in re.findall(r"^\| (`Konnectivity.*?) \|.*\| (\w+) \|$", text, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", rows[0]):
            assert next(each for each in EVERY if each.name == name).severity == rows[1]
    assert {*re.findall(r"`(Konnectivity\w+)`", text)} == {each.name for each in EVERY}


def test_the_operator_and_prometheus_get_the_same_alerts() -> None:
    spec = AgentSpec(server="s.example.com:8091", image="i", monitoring=True)
    (rule,) = (each for each in monitoring(spec) if each["kind"] == "PrometheusRule")
    (group,) = rule["spec"]["groups"]
    everywhere = {each["name"]: each["rules"] for each in rule_file()["groups"]}
    assert group["rules"] == everywhere["konnectivity-agent"]


# Dashboards


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_laid_out_without_overlaps(name: str) -> None:
    document = json.loads(files()[name])
    taken: set[tuple[int, int]] = set()
    for panel in document["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    ids = [panel["id"] for panel in document["panels"]]
    assert ids == [*range(1, len(ids) + 1)]
    titles = [panel["title"] for panel in document["panels"] if panel["type"] != "row"]
    assert len({*titles}) == len(titles)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_uses_the_variables_that_it_has(name: str) -> None:
    text = files()[name]
    document = json.loads(text)
    own = {each["name"] for each in document["templating"]["list"]}
    used = {*re.findall(r"\$\{?(\w+)", text)} - {"__rate_interval", "__all"}
    assert used == own
    for each in document["templating"]["list"]:
        if each["type"] == "query":
            metric, label = re.fullmatch(
                r"label_values\((\w+), (\w+)\)", each["definition"]
            ).groups()  # type: ignore[union-attr]
            assert label in metric_of(metric)[1] | SCRAPED


# Alerts, as Prometheus evaluates them


@dataclass
class Case:
    """Series under which an alert fires after `minutes`, what it says, and when it does not."""

    alert: str
    fires: dict[str, str]
    text: str
    quiet: dict[str, str]
    minutes: int = 60
    labels: dict[str, str] = field(default_factory=dict)


S, A, M = SERVER.prefix, AGENT.prefix, MANAGER.prefix
WHERE = {"instance": "10.0.0.1:8095", "job": "k", "pod": "p-1"}
NONE = "0x120"
"""A series that stays at 0, one value a minute."""


def series(name: str, **labels: str) -> str:
    pairs = ",".join(f'{key}="{value}"' for key, value in (WHERE | labels).items())
    return f"{name}{{{pairs}}}"


def expiry(program: str, seconds: int, *, disk: int = 0) -> dict[str, str]:
    """A certificate that ends so many seconds after the first minute, and one on the disk."""
    name = f"{program}certificate_expiry_timestamp_seconds"
    return {
        series(name, file="cert", state="in_use"): f"{seconds}x120",
        series(name, file="cert", state="on_disk"): f"{disk or seconds}x120",
    }


def certificates(program: str, prefix: str, who: str) -> Iterator[Case]:
    file = {"file": "cert"}
    used = file | {"state": "in_use"}
    day = 86_400
    yield Case(
        f"{prefix}CertificateExpires",
        expiry(program, 10 * day + 3600),
        f"A certificate of {who} (cert) expires in 10d 0h 0m 0s.",
        expiry(program, 30 * day),
        labels=used,
    )
    yield Case(
        f"{prefix}CertificateExpiresSoon",
        expiry(program, day + 3600),
        f"A certificate of {who} (cert) expires in 1d 0h 0m 0s: then no connection is made any "
        "more.",
        expiry(program, 10 * day),
        labels=used,
    )
    yield Case(
        f"{prefix}CertificateNotReloaded",
        expiry(program, 60 * day, disk=90 * day),
        f"The certificate on the disk of {who} (cert) is not the one in use: it was rejected, the "
        "log says why.",
        expiry(program, 60 * day),
        labels=file,
    )


def descriptors(program: str, prefix: str, who: str) -> Case:
    def used(number: int) -> dict[str, str]:
        return {
            series("process_open_fds"): f"{number}x120",
            series("process_max_fds"): "1000x120",
            series(f"{program}build_info", version="1"): "1x120",
        }

    other = {
        'process_open_fds{instance="o",job="k"}': "9x120",
        'process_max_fds{instance="o",job="k"}': "10x120",
    }
    return Case(
        f"{prefix}DescriptorsRunOut",
        used(900),
        f"{who} uses 90% of the file descriptors that it may have; each tunnel takes one.",
        used(100) | other,
    )


def slow(program: str, alert: str, text: str) -> Case:
    held = series(f"{program}held_bytes")
    return Case(alert, {held: "134217728x120"}, text, {held: "1048576x120"})


CASES = [
    Case(
        "KonnectivityServerNoAgents",
        {series(f"{S}ready_backend_connections"): NONE},
        "No agent is connected to server 10.0.0.1:8095: through it there are no logs, no exec and "
        "no webhooks.",
        {series(f"{S}ready_backend_connections"): "1x120"},
    ),
    Case(
        "KonnectivityServerDialsFail",
        {
            series(f"{S}dial_failure_count", reason="error_response"): "0+30x120",
            series(f"{S}dial_failure_count", reason="frontend_close"): "0+900x120",
            series(f"{S}dial_duration_seconds_count"): "0+90x120",
        },
        "25% of the dials through server 10.0.0.1:8095 fail.",
        {
            series(f"{S}dial_failure_count", reason="frontend_close"): "0+90x120",
            series(f"{S}dial_failure_count", reason="error_response"): "0+5x120",
            series(f"{S}dial_duration_seconds_count"): "0+90x120",
        },
    ),
    Case(
        "KonnectivityServerDialsFail",
        {series(f"{S}dial_failure_count", reason="no_agent"): "0+30x120"},
        "100% of the dials through server 10.0.0.1:8095 fail.",
        {series(f"{S}dial_failure_count", reason="no_agent"): "0+1x120"},
    ),
    Case(
        "KonnectivityServerDialsPileUp",
        {series(f"{S}pending_backend_dials"): "0+10x120"},
        "600 dials wait at server 10.0.0.1:8095, more and more of them: destinations or agents do "
        "not answer.",
        {series(f"{S}pending_backend_dials"): "60x120"},
    ),
    slow(
        S,
        "KonnectivityServerHoldsBytes",
        "Server 10.0.0.1:8095 holds 128MiB for frontends that read slowly; at 256 MiB tunnels end.",
    ),
    Case(
        "KonnectivityServerOverflows",
        {series(f"{S}overflows_total"): "0x55 1x60"},
        "Server 10.0.0.1:8095 has ended tunnels whose frontend read too slowly.",
        {series(f"{S}overflows_total"): "5x120"},
    ),
    Case(
        "KonnectivityServerAgentsFlap",
        {series(f"{S}tunnels_ended_total", reason="agent_lost"): "0+2x120"},
        "Agents of server 10.0.0.1:8095 keep going away, and their tunnels with them: 30 in 15 "
        "minutes.",
        {
            series(f"{S}tunnels_ended_total", reason="endpoint_close"): "0+9x120",
            series(f"{S}tunnels_ended_total", reason="agent_lost"): "0x50 20x70",
        },
        labels={"reason": "agent_lost"},
    ),
    descriptors(S, "KonnectivityServer", "Server 10.0.0.1:8095"),
    *certificates(S, "KonnectivityServer", "server 10.0.0.1:8095"),
    Case(
        "KonnectivityAgentDisconnected",
        {series(f"{A}open_server_connections"): NONE, series(f"{A}known_server_count"): NONE},
        "Agent p-1 is connected to no server: through it there are no logs, no exec and no "
        "webhooks.",
        {series(f"{A}open_server_connections"): "1x120"},
    ),
    Case(
        "KonnectivityAgentServersMissing",
        {
            series(f"{A}open_server_connections"): "2x120",
            series(f"{A}known_server_count"): "3x120",
        },
        "Agent p-1 is connected to 2 servers and there are more: those that it lacks may have no "
        "agent.",
        {
            series(f"{A}open_server_connections"): "3x58 2x3 3x60",
            series(f"{A}known_server_count"): "3x120",
        },
    ),
    Case(
        "KonnectivityAgentFlaps",
        {series(f"{A}server_connection_failure_count", direction="from_server"): "0+1x120"},
        "The connections of agent p-1 to its servers keep breaking: 15 in 15 minutes.",
        {series(f"{A}server_connection_failure_count", direction="from_server"): "0x50 3x70"},
    ),
    Case(
        "KonnectivityAgentDialsFail",
        {
            series(f"{A}endpoint_dial_failure_total", reason="timeout"): "0+60x120",
            series(f"{A}endpoint_dial_failure_total", reason="unknown"): "0+60x120",
        },
        "Agent p-1 fails to reach endpoints: 2 a second.",
        {series(f"{A}endpoint_dial_failure_total", reason="timeout"): "0+30x120"},
    ),
    slow(
        A,
        "KonnectivityAgentHoldsBytes",
        "Agent p-1 holds 128MiB for endpoints that read slowly; at 256 MiB tunnels end.",
    ),
    descriptors(A, "KonnectivityAgent", "Agent p-1"),
    *certificates(A, "KonnectivityAgent", "agent p-1"),
    Case(
        "KonnectivityDataPlaneUnreachable",
        {series(f"{M}condition", type="DataPlaneReachable"): NONE},
        "The API server could not read a log of an agent's pod through the tunnel: no logs, no "
        "exec, no webhooks.",
        {
            series(f"{M}condition", type="DataPlaneReachable"): "-1x120",
            series(f"{M}condition", type="Paused"): NONE,
        },
        labels={"type": "DataPlaneReachable"},
    ),
    Case(
        "KonnectivityAgentsUnavailable",
        {series(f"{M}condition", type="Available"): NONE},
        "The agents are not as they should be, Available is false: objects are missing, or no "
        "agent is available.",
        {
            series(f"{M}condition", type="Available"): "1x120",
            series(f"{M}condition", type="Installed"): "1x120",
        },
        labels={"type": "Available"},
    ),
    Case(
        "KonnectivityManagerNobodyLeads",
        {series(f"{M}leading"): NONE, series(f"{M}leading", instance="b", pod="p-2"): NONE},
        "No manager may write: what is deleted does not come back.",
        {series(f"{M}leading"): NONE, series(f"{M}leading", instance="b", pod="p-2"): "1x120"},
        labels={"instance": "", "pod": ""},
    ),
    Case(
        "KonnectivityManagerCannotWrite",
        {series(f"{M}failing_objects"): "2x120"},
        "2 objects cannot be written; the manager's Events say which, and which right is missing.",
        {series(f"{M}failing_objects"): NONE},
    ),
    Case(
        "KonnectivityManagerHealsOften",
        {
            series(f"{M}heals_total", kind="DaemonSet", reason="restore"): "0+1x120",
            series(f"{M}heals_total", kind="DaemonSet", reason="drift"): "0+1x120",
        },
        "Somebody undoes what the manager mends: 120 repairs in an hour.",
        {
            series(f"{M}heals_total", kind="DaemonSet", reason="upgrade"): "0+1x120",
            series(f"{M}heals_total", kind="DaemonSet", reason="restore"): "0x70 2x50",
        },
        minutes=90,
    ),
]


def unit(case: Case, given: dict[str, str], *, fires: bool) -> dict[str, Any]:
    """One test in promtool's notation."""
    alert = next(each for each in EVERY if each.name == case.alert)
    labels = {"severity": alert.severity, **WHERE, **case.labels}
    expected = {
        "exp_labels": {name: value for name, value in labels.items() if value},
        "exp_annotations": alert.rule["annotations"] | {"summary": case.text},
    }
    return {
        "name": f"{case.alert} {'fires' if fires else 'is quiet'}",
        "interval": "1m",
        "input_series": [{"series": name, "values": text} for name, text in given.items()],
        "alert_rule_test": [
            {
                "alertname": case.alert,
                "eval_time": f"{case.minutes}m",
                "exp_alerts": [expected] if fires else [],
            }
        ],
    }


def test_every_alert_is_tried() -> None:
    assert {case.alert for case in CASES} == {alert.name for alert in EVERY}


async def test_alerts_fire_when_they_should_and_not_else(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_bytes((ROOT / "deploy/prometheus/rules.yaml").read_bytes())
    tests = [unit(case, case.fires, fires=True) for case in CASES]
    tests += [unit(case, case.quiet, fires=False) for case in CASES]
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "5m", "tests": tests}
    path = tmp_path / "alerts.yaml"
    path.write_text(yaml.safe_dump(document))
    assert "SUCCESS" in await run("promtool", "test", "rules", str(path))


async def test_a_wrong_expectation_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_bytes((ROOT / "deploy/prometheus/rules.yaml").read_bytes())
    tests = [unit(CASES[0], CASES[0].quiet, fires=True)]
    path = tmp_path / "alerts.yaml"
    path.write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": tests}))
    with pytest.raises(AssertionError, match="FAILED"):
        await run("promtool", "test", "rules", str(path))


async def test_prometheus_reads_the_rules() -> None:
    found = await run("promtool", "check", "rules", str(ROOT / "deploy/prometheus/rules.yaml"))
    assert f"{len(EVERY)} rules found" in found
