"""Dashboards as Grafana reads them: rows of panels, each with its queries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

WIDTH: Final = 24
"""Columns of Grafana's grid."""
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
SCHEMA: Final = 39
"""The version of the format: Grafana 10 and later read it."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """An expression, and what its series are called."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture. `kind` is Grafana's `timeseries`, `stat` or `table`, `unit` one of its units.

    `limits` are values from which on it turns yellow and red; of `bad_below` it is the other way.
    `least` is where the axis begins; None leaves it to the values.
    """

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: str = "timeseries"
    text: str = ""
    limits: tuple[float, ...] = ()
    bad_below: float | None = None
    least: float | None = 0
    width: int = 8
    height: int = 8


@dataclass(frozen=True, slots=True)
class Variable:
    """What the reader chooses: the values of a label of a metric."""

    name: str
    query: str


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Rows of panels by title."""

    uid: str
    title: str
    text: str
    variables: Sequence[Variable]
    rows: Sequence[tuple[str, Sequence[Panel]]]

    @property
    def expressions(self) -> list[str]:
        """All that is asked of Prometheus."""
        return [query.expression for _, row in self.rows for each in row for query in each.queries]


def to_json(dashboard: Dashboard) -> str:
    """The text to import."""
    document = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.text,
        "tags": ["konnectivity"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [_datasource(), *map(_variable, dashboard.variables)]},
        "panels": _panels(dashboard),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _datasource() -> Json:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
    }


def _variable(variable: Variable) -> Json:
    return {
        "name": variable.name,
        "label": variable.name.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": variable.query, "refId": variable.name},
        "definition": variable.query,
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "sort": 7,
    }


def _panels(dashboard: Dashboard) -> list[Json]:
    """Side by side as long as there is room, then below."""
    found: list[Json] = []
    y = 0
    for title, row in dashboard.rows:
        found.append({"type": "row", "title": title, "collapsed": False, "panels": []})
        found[-1] |= {"id": len(found), "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}}
        x, y, height = 0, y + 1, 0
        for panel in row:
            if x + panel.width > WIDTH:
                x, y, height = 0, y + height, 0
            place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            found.append({"id": len(found) + 1, "gridPos": place} | _panel(panel))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return found


def _panel(panel: Panel) -> Json:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "targets": [_target(panel, *each) for each in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _options(panel),
    }


def _target(panel: Panel, number: int, query: Query) -> Json:
    now = panel.kind != "timeseries"
    return {
        "refId": chr(ord("A") + number),
        "datasource": SOURCE,
        "expr": query.expression,
        "legendFormat": query.legend or "__auto",
        "instant": now,
        "range": not now,
        "format": "table" if panel.kind == "table" else "time_series",
    }


def _field(panel: Panel) -> Json:
    steps: list[Json] = [{"color": "green", "value": None}]
    if panel.bad_below is not None:
        steps = [{"color": "red", "value": None}, {"color": "green", "value": panel.bad_below}]
    for color, value in zip(("yellow", "red"), panel.limits, strict=False):
        steps.append({"color": color, "value": value})
    field: Json = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "timeseries":
        field["custom"] = {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never"}
        if panel.least is not None:
            field["min"] = panel.least
    return field


def _options(panel: Panel) -> Json:
    if panel.kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "none"}
    if panel.kind == "table":
        return {"showHeader": True, "sortBy": [{"displayName": "Value", "desc": True}]}
    return {
        "legend": {"displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
