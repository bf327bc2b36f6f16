"""The server's metrics as they are declared, and figures by agent."""

from __future__ import annotations

from tests.spec.metrics import HELP, SERVER, SERVER_METRICS

from konnectivity.server.agent_figures import OTHER, AgentFigures, AgentTable
from konnectivity.server.counters import Waits
from konnectivity.server.metrics import SERVER as CATALOGUE


def test_every_metric_of_upstream_is_declared_with_its_type_labels_and_buckets() -> None:
    declared = {each.name: each for each in CATALOGUE.metrics if not each.ours}
    assert declared.keys() == {SERVER + name for name in SERVER_METRICS}
    for name, want in SERVER_METRICS.items():
        metric = declared[SERVER + name]
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


def test_figures_are_kept_for_so_many_agents_and_all_others_share_theirs() -> None:
    table = AgentTable(limit=2)
    for agent in ("a", "b", "c"):
        table.enter(agent)
        table.of(agent).dials += 1
    assert {key: each.dials for key, each in table.all()} == {"a": 1, "b": 1, OTHER: 1}


def test_an_agent_that_is_gone_makes_room_and_no_sum_shrinks() -> None:
    table = AgentTable(limit=2)
    for agent in ("a", "b"):
        table.enter(agent)
        table.of(agent).bytes_to_agent += 10
    table.leave("a")
    table.enter("c")
    table.of("c").bytes_to_agent += 1
    sums = {key: each.bytes_to_agent for key, each in table.all()}
    assert sums == {"b": 10, "c": 1, OTHER: 10}


def test_an_agent_that_comes_back_goes_on_with_its_figures() -> None:
    table = AgentTable(limit=2)
    table.enter("a")
    table.of("a").dials += 1
    table.leave("a")
    table.enter("a")
    assert table.of("a").dials == 1


def test_an_agent_with_a_second_stream_stays_until_both_are_gone() -> None:
    table = AgentTable(limit=1)
    table.enter("a")
    table.enter("a")
    table.leave("a")
    table.enter("b")
    assert [key for key, _ in table.all()] == ["a"]
    table.leave("a")
    table.enter("b")
    assert [key for key, _ in table.all()] == ["b"]


def test_an_agent_that_calls_itself_other_is_one_of_the_others() -> None:
    table = AgentTable()
    table.enter(OTHER)
    table.of(OTHER).dials += 1
    table.leave(OTHER)
    assert dict(table.all()) == {OTHER: AgentFigures(dials=1)}


def test_a_wait_counts_when_it_begins_and_lasts_until_it_ends() -> None:
    waits = Waits()
    began = waits.begin()
    assert (waits.begun, waits.seconds.total) == (1, 0)
    waits.end(began - 1)
    assert (waits.begun, waits.seconds.total) == (1, 1)
    assert 1 <= waits.seconds.sum < 2
