"""Metrics as text (Prometheus exposition format 0.0.4): declared once, filled at each scrape.

Written here because the usual client library renames counters that do not end in `_total`, and
upstream has several of those that dashboards rely on (docs/decisions/metrics.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from konnectivity.observe.histogram import Histogram

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Key = TypeVar("Key", bound=str | tuple[str, ...])
"""The values of a metric's labels, in the order of their names; of a single label just that."""


@dataclass(frozen=True, slots=True)
class Metric:
    """The declaration of one metric: what the exposition and the page of all metrics say of it.

    `kind` is `counter`, `gauge` or `histogram`. `bounds` are a histogram's upper bounds. `ours`
    marks what upstream does not have, `note` is for the page alone.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    ours: bool = False
    note: str = ""

    def value(self, value: float) -> Family:
        """The metric with its one value; it has no labels."""
        return self.each({(): value})

    def each(self, values: Mapping[Key, float]) -> Family:
        """The metric with one value for each combination of its labels, in any order."""
        lines = [f"{self.name}{self._labels(key)} {_number(values[key])}" for key in sorted(values)]
        return Family(self, lines)

    def durations(self, histogram: Histogram) -> Family:
        """The metric as a histogram without labels, which appears with its first observation."""
        return self.durations_each({(): histogram})

    def durations_each(self, histograms: Mapping[Key, Histogram]) -> Family:
        """The metric as one histogram for each combination of its labels."""
        lines: list[str] = []
        for key in sorted(histograms):
            histogram, labels = histograms[key], self._labels(key)
            if not histogram.total:
                continue
            for bound, count in histogram.buckets():
                le = self._labels(key, f'le="{_number(bound)}"')
                lines.append(f"{self.name}_bucket{le} {count}")
            lines.append(f"{self.name}_sum{labels} {_number(histogram.sum)}")
            lines.append(f"{self.name}_count{labels} {histogram.total}")
        return Family(self, lines)

    def _labels(self, key: str | tuple[str, ...], *further: str) -> str:
        values = (key,) if isinstance(key, str) else key
        named = zip(self.labels, values, strict=True)
        pairs = ",".join([f'{name}="{_escape(value)}"' for name, value in named] + [*further])
        return f"{{{pairs}}}" if pairs else ""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric at one scrape. Without lines it is left out, as upstream's untouched vectors."""

    metric: Metric
    lines: list[str]


class Catalogue:
    """The metrics of one program, in the order of their declaration."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.metrics: list[Metric] = []

    def counter(
        self, name: str, text: str, *labels: str, ours: bool = False, note: str = ""
    ) -> Metric:
        """Declare a counter."""
        return self._add(Metric(self.prefix + name, "counter", text, labels, (), ours, note))

    def gauge(
        self, name: str, text: str, *labels: str, ours: bool = False, note: str = ""
    ) -> Metric:
        """Declare a gauge."""
        return self._add(Metric(self.prefix + name, "gauge", text, labels, (), ours, note))

    def histogram(
        self,
        name: str,
        text: str,
        *labels: str,
        bounds: tuple[float, ...],
        ours: bool = False,
        note: str = "",
    ) -> Metric:
        """Declare a histogram of durations."""
        return self._add(Metric(self.prefix + name, "histogram", text, labels, bounds, ours, note))

    def _add(self, metric: Metric) -> Metric:
        self.metrics.append(metric)
        return metric


def render(families: Iterable[Family]) -> bytes:
    """All families as one page."""
    lines: list[str] = []
    for family in families:
        if family.lines:
            metric = family.metric
            lines.append(f"# HELP {metric.name} {_escape_help(metric.help)}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines += family.lines
    return ("\n".join(lines) + "\n").encode()


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _escape_help(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n")
