"""Metrics as text (Prometheus exposition format 0.0.4).

Written here because the usual client library renames counters that do not end in `_total`, and
upstream has several of those that dashboards rely on (docs/decisions/metrics.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from konnectivity.observe.histogram import Histogram

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Family:
    """One metric: its samples are (labels, value) pairs.

    `kind` is `counter`, `gauge` or `histogram`. A family without samples is left out, as
    upstream's untouched vectors are.
    """

    name: str
    kind: str
    help: str
    samples: list[tuple[Mapping[str, str], float]] = field(default_factory=list)
    histogram: Histogram | None = None


def single(name: str, kind: str, help_text: str, value: float) -> Family:
    """A metric without labels."""
    return Family(name, kind, help_text, [({}, value)])


def by_label(
    name: str, kind: str, help_text: str, label: str, values: Mapping[str, float]
) -> Family:
    """A metric with one label."""
    return Family(name, kind, help_text, [({label: key}, value) for key, value in values.items()])


def durations(name: str, help_text: str, histogram: Histogram) -> Family:
    """A histogram; it appears with its first observation."""
    return Family(name, "histogram", help_text, histogram=histogram)


def render(families: Iterable[Family]) -> bytes:
    """All families as one page."""
    lines: list[str] = []
    for family in families:
        samples = _histogram_lines(family) if family.histogram else _sample_lines(family)
        if samples:
            lines.append(f"# HELP {family.name} {_escape_help(family.help)}")
            lines.append(f"# TYPE {family.name} {family.kind}")
            lines += samples
    return ("\n".join(lines) + "\n").encode()


def _sample_lines(family: Family) -> list[str]:
    return [f"{family.name}{_labels(labels)} {_number(value)}" for labels, value in family.samples]


def _histogram_lines(family: Family) -> list[str]:
    histogram = family.histogram
    if histogram is None or not histogram.total:
        return []
    lines = [
        f'{family.name}_bucket{{le="{_number(bound)}"}} {count}'
        for bound, count in histogram.buckets()
    ]
    lines.append(f"{family.name}_sum {_number(histogram.sum)}")
    lines.append(f"{family.name}_count {histogram.total}")
    return lines


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = ",".join(f'{key}="{_escape(value)}"' for key, value in labels.items())
    return f"{{{pairs}}}"


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _escape_help(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n")
