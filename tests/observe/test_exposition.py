from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families

from konnectivity.observe.exposition import Catalogue, Family, render
from konnectivity.observe.histogram import Histogram, RequestCounts

METRICS = Catalogue("prefix_")


def parsed(*families: Family) -> dict[str, float]:
    """The page as the Prometheus project's own parser reads it: series to value."""
    page = render(families).decode()
    return {
        f"{sample.name}{dict(sample.labels) or ''}": sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def histogram(bounds: tuple[float, ...], durations: Iterable[float]) -> Histogram:
    made = Histogram(bounds)
    for seconds in durations:
        made.observe(seconds)
    return made


def test_names_of_counters_stay_as_they_are() -> None:
    failures = METRICS.counter("dial_failure_count", "Help.", "reason")
    assert render([failures.each({"no_agent": 2})]) == (
        b"# HELP prefix_dial_failure_count Help.\n# TYPE prefix_dial_failure_count counter\n"
        b'prefix_dial_failure_count{reason="no_agent"} 2\n'
    )


def test_a_family_without_samples_is_left_out() -> None:
    families = [
        METRICS.counter("a", "Help.", "reason").each({}),
        METRICS.histogram("b_seconds", "Help.", bounds=(1.0,)).durations(Histogram((1.0,))),
        METRICS.gauge("c", "Help.").value(0),
    ]
    assert render(families).count(b"# TYPE") == 1


def test_labels_and_help_texts_are_escaped() -> None:
    family = METRICS.gauge("e", "two\nlines \\", "who").each({'a "b"\\\n': 1.5})
    assert parsed(family) == {"prefix_e{'who': 'a \"b\"\\\\\\n'}": 1.5}


def test_values_of_several_labels_stand_in_the_order_of_their_names() -> None:
    family = METRICS.counter("f_total", "Help.", "segment", "packet_type")
    page = render([family.each({("to_agent", "DATA"): 7, ("from_agent", "DATA"): 1})])
    assert page.splitlines()[2:] == [
        b'prefix_f_total{segment="from_agent",packet_type="DATA"} 1',
        b'prefix_f_total{segment="to_agent",packet_type="DATA"} 7',
    ]


def test_a_histogram_is_cumulative() -> None:
    family = METRICS.histogram("d_seconds", "Help.", bounds=(0.1, 1.0))
    assert parsed(family.durations(histogram((0.1, 1.0), (0.1, 0.5, 3.0)))) == {
        "prefix_d_seconds_bucket{'le': '0.1'}": 1,
        "prefix_d_seconds_bucket{'le': '1'}": 2,
        "prefix_d_seconds_bucket{'le': '+Inf'}": 3,
        "prefix_d_seconds_sum": 3.6,
        "prefix_d_seconds_count": 3,
    }


def test_zeros_that_are_added_to_a_histogram_leave_the_original_as_it_was() -> None:
    waits = histogram((0.1, 1.0), (0.5,))
    assert waits.with_zeros(3).buckets()[0] == (0.1, 3)
    assert (waits.with_zeros(3).total, waits.with_zeros(3).sum) == (4, 0.5)
    assert waits.total == 1


def test_requests_are_counted_by_status_and_reason() -> None:
    counts = RequestCounts((0.1,))
    counts.observe(0.05)
    counts.observe(0.5, status=404, reason="NotFound")
    calls = METRICS.counter("g_total", "Help.", "http_status_code", "reason")
    seconds = METRICS.histogram("g_seconds", "Help.", "http_status_code", bounds=(0.1,))
    assert parsed(calls.each(counts.total), seconds.durations_each(counts.seconds)) == {
        "prefix_g_total{'http_status_code': '200', 'reason': ''}": 1,
        "prefix_g_total{'http_status_code': '404', 'reason': 'NotFound'}": 1,
        "prefix_g_seconds_bucket{'http_status_code': '200', 'le': '0.1'}": 1,
        "prefix_g_seconds_bucket{'http_status_code': '200', 'le': '+Inf'}": 1,
        "prefix_g_seconds_sum{'http_status_code': '200'}": 0.05,
        "prefix_g_seconds_count{'http_status_code': '200'}": 1,
        "prefix_g_seconds_bucket{'http_status_code': '404', 'le': '0.1'}": 0,
        "prefix_g_seconds_bucket{'http_status_code': '404', 'le': '+Inf'}": 1,
        "prefix_g_seconds_sum{'http_status_code': '404'}": 0.5,
        "prefix_g_seconds_count{'http_status_code': '404'}": 1,
    }
