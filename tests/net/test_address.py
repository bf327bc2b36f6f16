"""Addresses as Go reads them; the expected texts are those of Go's own dialer."""

from __future__ import annotations

import contextlib
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konnectivity.net.address import (
    AddressError,
    is_domain_name,
    join_host_port,
    parse_ip,
    parse_port,
    split_host_port,
)

PORTS = st.integers(0, 65535)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("localhost:80", ("localhost", "80")),
        ("localhost:", ("localhost", "")),
        (":80", ("", "80")),
        (":", ("", "")),
        ("[::1]:80", ("::1", "80")),
        ("[fe80::1%eth0]:http", ("fe80::1%eth0", "http")),
        ("[localhost]:80", ("localhost", "80")),
        ("[]:80", ("", "80")),
    ],
)
def test_host_and_port_are_split_at_the_last_colon(address: str, parts: tuple[str, str]) -> None:
    assert split_host_port(address) == parts


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("", "missing address"),
        ("localhost", "address localhost: missing port in address"),
        ("[::1]", "address [::1]: missing port in address"),
        ("[::1", "address [::1: missing ']' in address"),
        ("::1:1", "address ::1:1: too many colons in address"),
        ("::1]:1", "address ::1]:1: too many colons in address"),
        ("localhost:1:2", "address localhost:1:2: too many colons in address"),
        ("[a]:1:2", "address [a]:1:2: too many colons in address"),
        ("[::1]x:1", "address [::1]x:1: missing port in address"),
        ("[a]b]:1", "address [a]b]:1: missing port in address"),
        ("a[b:1", "address a[b:1: unexpected '[' in address"),
        ("[[a]:1", "address [[a]:1: unexpected '[' in address"),
        ("[a]:[1", "address [a]:[1: unexpected '[' in address"),
        ("a]b:1", "address a]b:1: unexpected ']' in address"),
    ],
)
def test_a_malformed_address_fails_with_gos_words(address: str, text: str) -> None:
    with pytest.raises(AddressError) as caught:
        split_host_port(address)
    assert str(caught.value) == text


@given(st.text(st.characters(blacklist_characters="[]", blacklist_categories=["Cs"])), PORTS)
def test_splitting_reverses_joining(host: str, port: int) -> None:
    assert split_host_port(join_host_port(host, port)) == (host, str(port))


@given(st.text() | st.text("[]:a1", max_size=12))
def test_any_text_is_split_or_refused(address: str) -> None:
    try:
        host, port = split_host_port(address)
    except AddressError:
        return
    assert address in {f"{host}:{port}", f"[{host}]:{port}"}


@pytest.mark.parametrize(
    ("text", "port"),
    [("80", 80), ("", 0), ("0", 0), ("65535", 65535), ("+1", 1), ("00001", 1), ("-0", 0)],
)
def test_a_port_is_a_decimal_number(text: str, port: int) -> None:
    assert parse_port(text) == port


@pytest.mark.parametrize("text", ["65536", "-1", "99999", "4294967377", "9" * 5000])
def test_a_port_out_of_range_is_invalid(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_port(text)
    assert str(caught.value) == f"address {text}: invalid port"


def test_a_port_may_be_a_services_name() -> None:
    try:
        known = socket.getservbyname("https", "tcp")
    except OSError:
        pytest.skip("a machine without a table of services")
    assert parse_port("https") == parse_port("HTTPS") == known


@pytest.mark.parametrize("text", ["no-such-service", "80x", "8 0", "\0", "٣", "http\0"])
def test_an_unknown_services_name_fails_with_gos_words(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_port(text)
    assert str(caught.value) == f"lookup tcp/{text}: unknown port"


@given(st.text())
def test_any_text_is_a_port_or_refused(text: str) -> None:
    with contextlib.suppress(AddressError):
        assert 0 <= parse_port(text) <= 65535


@given(st.ip_addresses(v=4), PORTS)
def test_an_ipv4_literal_is_itself(ip: object, port: int) -> None:
    address = parse_ip(str(ip), port)
    assert address is not None
    assert (address.family, address.sockaddr) == (socket.AF_INET, (str(ip), port))
    assert address.text == f"{ip}:{port}"


@given(st.ip_addresses(v=6), PORTS)
def test_an_ipv6_literal_is_itself_unless_it_holds_an_ipv4_address(ip: object, port: int) -> None:
    address = parse_ip(str(ip), port)
    assert address is not None
    inner = getattr(ip, "ipv4_mapped", None)
    assert address.text == (f"{inner}:{port}" if inner else f"[{ip}]:{port}")


def test_an_ipv4_address_in_ipv6_form_is_ipv4() -> None:
    address = parse_ip("::ffff:127.0.0.1", 1)
    assert address is not None
    assert (address.family, address.sockaddr) == (socket.AF_INET, ("127.0.0.1", 1))
    assert address.text == "127.0.0.1:1"


def test_a_zone_is_an_interfaces_name_or_number() -> None:
    index, name = socket.if_nameindex()[0]
    for zone in (name, str(index)):
        address = parse_ip(f"FE80::1%{zone}", 1)
        assert address is not None
        assert address.sockaddr == ("fe80::1", 1, 0, index)
        assert address.text == f"[fe80::1%{zone}]:1"
    unknown = parse_ip("fe80::1%no-such-if", 1)
    assert unknown is not None
    assert unknown.sockaddr == ("fe80::1", 1, 0, 0)


@pytest.mark.parametrize(
    "host", ["127.1", "127.0.0.01", "2130706433", "0x7f000001", "1.2.3.0x4", "017700000001"]
)
def test_other_spellings_of_an_ipv4_address_are_neither_address_nor_name(host: str) -> None:
    assert parse_ip(host, 1) is None
    assert not is_domain_name(host)
    assert not is_domain_name(f"{host}.")


@pytest.mark.parametrize(
    "host", ["localhost", "node-1", "a.b.c", "x_y", "_srv._tcp.x", "1a", "3.example.", "a" * 63]
)
def test_a_domain_name_may_be_looked_up(host: str) -> None:
    assert is_domain_name(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "a..b",
        ".a",
        "-",
        "-a",
        "a-",
        "a b",
        "a\0b",
        "a\nb",
        "ünï",
        "①",
        "a%b",
        "999",
        "a" * 64,
        ".".join(["a" * 49] * 6),
        "1.2.3.4.5",
        "a/b",
        "a:b",
        "a@b",
        "*.b",
    ],
)
def test_anything_else_may_not(host: str) -> None:
    assert not is_domain_name(host)


@given(st.text())
def test_any_text_is_a_name_or_not(host: str) -> None:
    if is_domain_name(host):
        assert host.isascii()
        assert "\0" not in host
