from __future__ import annotations

from pathlib import Path

from konnectivity.agent.metrics import AGENT
from konnectivity.cli.metrics_reference import page
from konnectivity.observe.process import PROCESS
from konnectivity.server.metrics import SERVER

PAGE = Path(__file__).parents[2] / "docs/reference/metrics.md"


def test_the_page_of_metrics_is_what_its_generator_prints() -> None:
    command = "python -m konnectivity.cli.metrics_reference > docs/reference/metrics.md"
    assert PAGE.read_text() == page(), f"run {command}"


def test_the_page_has_a_row_for_every_metric() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(rows) == sum(len(each.metrics) for each in (SERVER, AGENT, PROCESS))
    assert all(row.count(" | ") == 4 for row in rows)
