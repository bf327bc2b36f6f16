"""The page `docs/reference/metrics.md`, from the same declarations as the metrics.

`python -m konnectivity.cli.metrics_reference` prints it.
"""

from __future__ import annotations

import sys

from konnectivity.agent.metrics import AGENT
from konnectivity.observe.exposition import Catalogue, Metric
from konnectivity.observe.process import PROCESS
from konnectivity.server.metrics import SERVER

HEAD = """\
# Metrics

What `/metrics` answers with: the server on its health and on its admin port, the agent on its
health port. This page is printed by `python -m konnectivity.cli.metrics_reference`; change the
declarations, not the page.

- The format is Prometheus' text, version 0.0.4.
- Names, types, labels and buckets are those of upstream's `proxy-server` and `proxy-agent`, unless
  the last column says that a metric is ours. Upstream's metrics with labels, and some without,
  appear when they are first touched; so do ours with labels.
- Durations are in seconds. Segments are seen from the server: `from_client` and `to_client` are
  packets between kube-apiserver and server, `to_agent` and `from_agent` those between server and
  agent.
- A gauge is counted in the tables themselves while the page is written, so it cannot drift.
- Go's own metrics (`go_*`) and those of its HTTP handler (`promhttp_*`) are not there.
"""


def page() -> str:
    """The whole page in Markdown."""
    parts = [
        HEAD,
        _section("Server", SERVER),
        _section("Agent", AGENT),
        _section("Both", PROCESS),
    ]
    return "\n".join(parts)


def _section(title: str, catalogue: Catalogue) -> str:
    lines = [f"## {title}", ""]
    if catalogue.prefix:
        lines += [f"All names begin with `{catalogue.prefix}`.", ""]
    lines += ["| Name | Type | Labels | Meaning | Whose |", "|---|---|---|---|---|"]
    lines += [_row(metric, catalogue.prefix) for metric in catalogue.metrics]
    return "\n".join([*lines, ""])


def _row(metric: Metric, prefix: str) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels) or "none"
    cells = (
        f"`{metric.name.removeprefix(prefix)}`",
        metric.kind,
        labels,
        " ".join(filter(None, [metric.help, metric.note, _buckets(metric)])),
        "ours" if metric.ours else "upstream's",
    )
    return f"| {' | '.join(cells)} |"


def _buckets(metric: Metric) -> str:
    bounds = ", ".join(f"{bound:g}" for bound in metric.bounds)
    return f"Buckets: {bounds}." if bounds else ""


if __name__ == "__main__":
    sys.stdout.write(page())
