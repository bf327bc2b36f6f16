from __future__ import annotations

import contextlib
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konnectivity.tunnel.identifiers import Identifiers


def test_everything_that_an_agent_may_say_is_read() -> None:
    """Scenario 62: everything together, and `uid`, which is ignored."""
    text = (
        "host=localhost&host=node1.mydomain.com&cidr=127.0.0.1/16&ipv4=1.2.3.4&ipv4=5.6.7.8"
        "&ipv6=%3A%3A1&default-route=true&uid=7"
    )
    assert Identifiers.parse(text) == Identifiers(
        hosts=frozenset(["localhost", "node1.mydomain.com"]),
        addresses=frozenset(map(ip_address, ["1.2.3.4", "5.6.7.8", "::1"])),
        networks=frozenset([ip_network("127.0.0.0/16")]),
        default_route=True,
        text=text,
    )


def test_an_agent_that_says_nothing_is_fine() -> None:
    assert Identifiers.parse("") == Identifiers()


@pytest.mark.parametrize(
    ("text", "true"),
    [
        ("default-route=true", True),
        ("default-route=1", True),
        ("default-route=T", True),
        ("default-route=false", False),
        ("default-route=yes", False),
        ("default-route", False),
        ("default-route=true&default-route=false", True),
        ("default-route=false&default-route=true", False),
    ],
)
def test_the_first_default_route_counts(text: str, true: bool) -> None:
    """Scenario 62: true, false, invalid, doubled."""
    assert Identifiers.parse(text).default_route is true


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("host=a;host=b", "invalid semicolon separator in query"),
        ("host=%zz", 'invalid URL escape "%zz"'),
        ("host=a%2", 'invalid URL escape "%2"'),
        ("host=%", 'invalid URL escape "%"'),
    ],
)
def test_what_is_no_query_is_an_error_in_gos_words(text: str, reason: str) -> None:
    """Scenario 62: semicolons."""
    with pytest.raises(ValueError, match="^" + reason):
        Identifiers.parse(text)


@pytest.mark.parametrize(
    "pair",
    [
        "ipv4=${HOST_IP}",
        "ipv4=",
        "ipv6=:::::",
        "ipv4=node-1",
        "cidr=10.0.0.0/33",
        "cidr=pods",
        "host=",
        "host=.",
    ],
)
def test_w56_a_value_that_makes_no_sense_is_set_aside_and_the_others_count(pair: str) -> None:
    identifiers = Identifiers.parse(f"host=a&{pair}&host=b")
    assert identifiers.odd == (pair,)
    assert identifiers.hosts == {"a", "b"}
    assert identifiers.addresses == identifiers.networks == frozenset()


def test_w56_spellings_of_one_thing_are_one_thing() -> None:
    hosts = Identifiers.parse("host=Node-1&host=node-1.&host=NODE-1")
    assert hosts.hosts == {"node-1"}
    addresses = Identifiers.parse("ipv4=10.0.0.7&ipv6=::ffff:10.0.0.7&host=10.0.0.7")
    assert addresses.addresses == {ip_address("10.0.0.7")}
    assert addresses.hosts == frozenset()
    networks = Identifiers.parse("cidr=10.0.0.0/8&cidr=10.1.2.3/8&cidr=::ffff:10.0.0.0/104")
    assert networks.networks == {ip_network("10.0.0.0/8")}


def test_an_address_without_a_prefix_is_a_network_of_one() -> None:
    assert Identifiers.parse("cidr=10.0.0.7").networks == {ip_network("10.0.0.7/32")}


@given(st.text())
def test_no_text_has_another_fault_than_a_reason(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert Identifiers.parse(text).text == text
