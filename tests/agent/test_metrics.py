"""The agent's metrics as they are declared."""

from __future__ import annotations

from tests.spec.metrics import AGENT, AGENT_METRICS, HELP

from konnectivity.agent.metrics import AGENT as CATALOGUE


def test_every_metric_of_upstream_is_declared_with_its_type_labels_and_buckets() -> None:
    declared = {each.name: each for each in CATALOGUE.metrics if not each.ours}
    assert declared.keys() == {AGENT + name for name in AGENT_METRICS}
    for name, want in AGENT_METRICS.items():
        metric = declared[AGENT + name]
        assert (metric.kind, metric.labels, metric.bounds) == (
            want.kind,
            want.labels,
            want.bounds,
        ), name
        assert metric.help == HELP.get(metric.name, metric.help)


def test_names_are_declared_once_and_those_of_ours_follow_the_convention() -> None:
    names = [each.name for each in CATALOGUE.metrics]
    assert len(names) == len(set(names))
    for metric in CATALOGUE.metrics:
        if metric.ours:
            assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
