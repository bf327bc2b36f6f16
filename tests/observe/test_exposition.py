from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from konnectivity.observe.exposition import Family, by_label, durations, render, single
from konnectivity.observe.histogram import Histogram


def parsed(*families: Family) -> dict[str, float]:
    """The page as the Prometheus project's own parser reads it: series to value."""
    page = render(families).decode()
    return {
        f"{sample.name}{dict(sample.labels) or ''}": sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_names_of_counters_stay_as_they_are() -> None:
    page = render([by_label("dial_failure_count", "counter", "Help.", "reason", {"no_agent": 2})])
    assert page == (
        b"# HELP dial_failure_count Help.\n# TYPE dial_failure_count counter\n"
        b'dial_failure_count{reason="no_agent"} 2\n'
    )


def test_a_family_without_samples_is_left_out() -> None:
    empty = by_label("a", "counter", "Help.", "reason", {})
    untouched = durations("b_seconds", "Help.", Histogram((1.0,)))
    assert render([empty, untouched, single("c", "gauge", "Help.", 0)]).count(b"# TYPE") == 1


def test_labels_and_help_texts_are_escaped() -> None:
    family = by_label("a", "gauge", "two\nlines \\", "who", {'a "b"\\\n': 1.5})
    assert parsed(family) == {"a{'who': 'a \"b\"\\\\\\n'}": 1.5}


def test_a_histogram_is_cumulative() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.1, 0.5, 3.0):
        histogram.observe(seconds)
    assert parsed(durations("d_seconds", "Help.", histogram)) == {
        "d_seconds_bucket{'le': '0.1'}": 1,
        "d_seconds_bucket{'le': '1'}": 2,
        "d_seconds_bucket{'le': '+Inf'}": 3,
        "d_seconds_sum": 3.6,
        "d_seconds_count": 3,
    }
