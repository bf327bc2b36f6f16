"""Leases as objects: names, times, labels, validity whatever is in them, and selectors as text."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konnectivity.kube import leases
from konnectivity.kube.leases import Judgement, OddLeases, State, judge
from konnectivity.kube.selector import check_selector

NOW = 1_700_000_000.0


def lease(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "konnectivity-proxy-server-s1"}, "spec": spec}


def at(offset: float) -> str:
    return leases.format_time(NOW + offset)


@pytest.mark.parametrize(
    ("spec", "state"),
    [
        ({"acquireTime": at(-29)}, State.VALID),
        ({"renewTime": at(-29)}, State.VALID),
        ({"renewTime": at(-29), "acquireTime": at(-999)}, State.VALID),
        ({"acquireTime": at(-29), "renewTime": at(-999)}, State.EXPIRED),
        ({}, State.EXPIRED),
        ({"acquireTime": at(-30)}, State.EXPIRED),
        ({"renewTime": at(-30)}, State.EXPIRED),
        ({"renewTime": None, "acquireTime": at(-1)}, State.VALID),
    ],
)
def test_a_lease_is_valid_for_its_duration_after_its_last_time(
    spec: dict[str, Any], state: State
) -> None:
    """Scenario 57."""
    """Scenario 57."""
    assert judge(lease(leaseDurationSeconds=30, **spec), NOW) == Judgement(state)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (lease(renewTime=at(0)), "it has no leaseDurationSeconds"),
        (lease(renewTime=at(0), leaseDurationSeconds=None), "it has no leaseDurationSeconds"),
        (lease(renewTime=at(0), leaseDurationSeconds="30"), "leaseDurationSeconds is no integer"),
        (lease(renewTime=at(0), leaseDurationSeconds=True), "leaseDurationSeconds is no integer"),
        (lease(renewTime="soon", leaseDurationSeconds=30), "renewTime is no time"),
        (lease(renewTime=17, leaseDurationSeconds=30), "renewTime is no time"),
        (lease(acquireTime="2024-02-30T00:00:00Z", leaseDurationSeconds=3), "acquireTime is no"),
        (lease(renewTime="2024-01-01T00:00:00", leaseDurationSeconds=30), "renewTime is no time"),
        ({"metadata": {}}, "it has no spec"),
        ({"spec": []}, "it has no spec"),
    ],
)
def test_w33_a_lease_that_cannot_be_judged_is_odd_and_says_why(
    item: dict[str, Any], reason: str
) -> None:
    judgement = judge(item, NOW)
    assert judgement.state is State.ODD
    assert reason in judgement.reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(
    item=st.fixed_dictionaries(
        {},
        optional={
            "metadata": JSON | st.fixed_dictionaries({"name": JSON, "annotations": JSON}),
            "spec": JSON
            | st.fixed_dictionaries(
                {},
                optional={
                    "renewTime": JSON | st.datetimes().map(lambda time: f"{time.isoformat()}Z"),
                    "acquireTime": JSON,
                    "leaseDurationSeconds": JSON,
                    "holderIdentity": JSON,
                },
            ),
        },
    )
)
def test_w33_no_content_of_a_lease_does_harm(item: dict[str, Any]) -> None:
    assert judge(item, NOW).state in State
    server_id, address = leases.server_of(item)
    assert isinstance(leases.name_of(item) + server_id + address, str)


def test_an_odd_lease_is_reported_once_until_its_reason_changes() -> None:
    odd = OddLeases()
    assert odd.news({"a": "x", "b": "y"}) == [("a", "x"), ("b", "y")]
    assert odd.news({"a": "x", "b": "z"}) == [("b", "z")]
    assert odd.news({}) == []
    assert odd.news({"a": "x"}) == [("a", "x")]


def test_times_are_written_with_microseconds_and_read_with_any_fraction_and_zone() -> None:
    assert leases.format_time(0.25) == "1970-01-01T00:00:00.250000Z"
    assert leases.parse_time("1970-01-01T00:00:00.25Z") == 0.25
    assert leases.parse_time("1970-01-01T01:00:01+01:00") == 1.0
    for _ in range(100):
        time = random.randrange(10**16) / 10**6  # noqa: S311 - any time
        assert leases.parse_time(leases.format_time(time)) == pytest.approx(time, abs=1e-6)


def test_a_lease_is_written_as_upstream_writes_it() -> None:
    item = leases.renewed(None, server_id="s1", labels={"a": "b"}, address="", now=NOW)
    assert item == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "konnectivity-proxy-server-s1", "labels": {"a": "b"}},
        "spec": {
            "holderIdentity": "s1",
            "leaseDurationSeconds": 30,
            "renewTime": "2023-11-14T22:13:20.000000Z",
        },
    }


def test_what_others_wrote_into_a_lease_stays_but_for_its_labels() -> None:
    known = {
        "metadata": {
            "resourceVersion": "7",
            "labels": {"old": "label"},
            "annotations": {"theirs": "x", leases.ADDRESS: "old:1"},
        },
        "spec": {"leaseTransitions": 3},
    }
    item = leases.renewed(known, server_id="s1", labels={"a": "b"}, address="10.0.0.1:8091", now=1)
    assert item["metadata"]["labels"] == {"a": "b"}
    assert item["metadata"]["resourceVersion"] == "7"
    assert item["metadata"]["annotations"] == {"theirs": "x", leases.ADDRESS: "10.0.0.1:8091"}
    assert item["spec"]["leaseTransitions"] == 3
    assert leases.server_of(item) == ("s1", "10.0.0.1:8091")
    without = leases.renewed(item, server_id="s1", labels={}, address="", now=1)
    assert without["metadata"]["annotations"] == {"theirs": "x"}
    assert known["metadata"]["labels"] == {"old": "label"}


def test_a_server_without_holder_is_known_by_the_name_of_its_lease() -> None:
    assert leases.server_of(lease()) == ("s1", "")
    assert leases.server_of({"metadata": {"name": "foreign"}}) == ("", "")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("a=b,c=d", {"a": "b", "c": "d"}),
        ("a=b", {"a": "b"}),
        (" a = b ,\tc=d ", {"a": "b", "c": "d"}),
        ("a=", {"a": ""}),
    ],
)
def test_labels_are_pairs_with_blanks_around_them(text: str, labels: dict[str, str]) -> None:
    """Scenario 58."""
    """Scenario 58."""
    assert leases.parse_labels(text) == labels


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty string provided"),
        ("a", "invalid label format: a"),
        ("a=b,c", "invalid label format: c"),
        ("a=b=c", "invalid label format: a=b=c"),
        ("a=b,", "invalid label format: "),
    ],
)
def test_labels_that_are_no_pairs_are_refused_in_upstreams_words(text: str, reason: str) -> None:
    """Scenario 58."""
    """Scenario 58."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its text is compared
        leases.parse_labels(text)
    assert str(caught.value) == reason


def test_the_selector_of_labels_is_sorted_by_key() -> None:
    assert leases.selector({"b": "2", "a": "1"}) == "a=1,b=2"


@pytest.mark.parametrize("name", ["a", "a-b.c", "0" * 253])
def test_names_that_the_api_takes(name: str) -> None:
    assert leases.is_object_name(name)


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a..b", "0" * 254, "a\n"])
def test_names_that_the_api_refuses(name: str) -> None:
    assert not leases.is_object_name(name)


# Selectors


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "k8s-app=konnectivity-server",
        "a==b, c != d,e",
        "!a",
        "! a,b in (x, y),c notin(z)",
        "example.com/name in ()",
        "a=",
        "a=,b=c",
        "a in (x,,y)",
        "n>1,m<2",
        "in=in",
    ],
)
def test_the_full_syntax_of_selectors_is_taken(text: str) -> None:
    check_selector(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        ("a=b=c", "found '=', expected: ',' or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        ("a,,b", "found ',', expected: identifier after ','"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in", "unable to parse requirement: found '', expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("!a=b", "found '=', expected: ',' or 'end of string'"),
        ("a>b", 'the value must be an integer: "b"'),
        ("-a", 'key: Invalid value: "-a"'),
        ("a/b/c=d", 'key: Invalid value: "a/b/c"'),
        ("Ex.com/b", 'key: Invalid value: "Ex.com/b"'),
        ("a" * 64, "key: Invalid value"),
        ("a=-", 'values[a]: Invalid value: "-"'),
        ("a in (b/c)", 'values: Invalid value: "b/c"'),
    ],
)
def test_a_wrong_selector_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its text is compared
        check_selector(text)
    assert reason in str(caught.value)


@given(st.text(alphabet="ab/-.=!,() <>in\t", max_size=20))
def test_any_text_is_a_selector_or_is_not(text: str) -> None:
    with contextlib.suppress(ValueError):
        check_selector(text)
