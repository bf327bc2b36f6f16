from __future__ import annotations

from ipaddress import ip_address

import pytest

from konnectivity.tunnel.destination import host_of, host_text


@pytest.mark.parametrize(
    ("destination", "host"),
    [
        ("node-1:10250", "node-1"),
        ("node-1", "node-1"),
        ("10.0.0.7:10250", "10.0.0.7"),
        ("10.0.0.7", "10.0.0.7"),
        ("::", "::"),
        ("9878::7675:1292:9183:7562", "9878::7675:1292:9183:7562"),
        ("[9878::7675:1292:9183:7562]:1234", "9878::7675:1292:9183:7562"),
        ("[::]:80", "::"),
        ("[::1]", "::1"),
        (" node-1:80", " node-1"),
        (":80", ""),
        ("", ""),
    ],
)
def test_the_host_is_what_stands_before_the_port(destination: str, host: str) -> None:
    """Scenarios 33 and 59."""
    assert host_text(destination) == host


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("[2001:DB8::1]:443", "2001:db8:0:0::1"),
        ("Node-1.Example.:443", "node-1.example"),
        ("[::ffff:10.0.0.7]:443", "10.0.0.7"),
        ("straße", "STRASSE"),
    ],
)
def test_w56_hosts_are_compared_as_addresses_and_folded_names(one: str, other: str) -> None:
    assert host_of(one) == host_of(other)


@pytest.mark.parametrize("odd", ["10.0.0.256", "node:1:2", "1234", "${HOST_IP}", "010.0.0.1"])
def test_what_is_no_address_is_a_name(odd: str) -> None:
    assert host_of(odd) == odd.lower()


def test_a_name_and_an_address_are_different_things() -> None:
    assert host_of("10.0.0.7:443") == ip_address("10.0.0.7")
    assert host_of("10.0.0.7.example:443") == "10.0.0.7.example"
