"""How many servers are wanted and which are missing, by what leases and servers say."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from konnectivity.agent.census import Census


@dataclass
class Said:
    server_id: str = "s1"
    server_count: int = 0
    announced: dict[str, str] = field(default_factory=dict)


@dataclass
class Counted:
    count: int = 1
    servers: dict[str, str] | None = None


@pytest.mark.parametrize(
    ("source", "leases", "said", "wanted"),
    [
        ("max", 3, 5, 5),
        ("max", 5, 3, 5),
        ("max", 0, 0, 1),
        ("default", None, 3, 3),
        ("max", None, 3, 3),
        ("default", 3, 5, 3),
        ("", 3, 5, 3),
        ("default", 5, 3, 5),
        ("default", 0, 5, 1),
        ("default", None, 5, 5),
        ("default", None, 0, 1),
        ("default", None, -4, 1),
    ],
)
def test_the_count_follows_its_source(
    source: str, leases: int | None, said: int, wanted: int
) -> None:
    """Scenario 68."""
    """Scenario 68."""
    census = Census(None if leases is None else Counted(leases), source=source)
    assert census.wanted([Said(server_count=said)]) == wanted


def test_w59_the_largest_count_of_those_connected_decides_not_the_last_one() -> None:
    census = Census()
    assert census.wanted([]) == 1
    assert census.wanted([Said("a", 3), Said("b", 2)]) == 3
    assert census.wanted([Said("b", 2), Said("a", 3)]) == 3
    assert census.wanted([Said("b", 2)]) == 2
    assert census.wanted([]) == 2  # nobody is there: the last guess stands


def test_servers_that_were_announced_count_like_what_servers_say() -> None:
    announced = {"a": "", "b": "", "c": ""}
    assert Census().wanted([Said("a", 1, announced)]) == 3
    assert Census().wanted([Said("a", 5, announced)]) == 5
    assert Census(Counted(2)).wanted([Said("a", 1, announced)]) == 2
    assert Census(Counted(2), source="max").wanted([Said("a", 1, announced)]) == 3


def test_servers_are_missing_that_have_an_address_and_no_connection() -> None:
    one = Said("a", announced={"a": "a:1", "b": "b:1", "c": ""})
    two = Said("d", announced={"b": "b:2", "d": "d:1", "e": "e:1"})
    assert Census().missing([one]) == {"b": "b:1"}
    assert Census().missing([one, two]) == {"b": "b:2", "e": "e:1"}
    assert Census().missing([]) == {}


def test_leases_know_better_than_servers_which_are_missing() -> None:
    one = Said("a", announced={"b": "b:1"})
    assert Census(Counted(2, {"a": "a:1", "c": "c:1"})).missing([one]) == {"c": "c:1"}
    assert Census(Counted(1, None)).missing([one]) == {"b": "b:1"}


def test_a_server_is_gone_only_if_leases_tell_of_all_others() -> None:
    assert not Census().is_gone("a")
    assert not Census(Counted(1, None)).is_gone("a")
    assert Census(Counted(1, {"b": ""})).is_gone("a")
    assert not Census(Counted(1, {"a": ""})).is_gone("a")
