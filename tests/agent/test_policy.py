"""Which rules there are, what they admit, and what is wrong with bad ones."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konnectivity.agent.options import AgentOptions, validate
from konnectivity.agent.policy import Policy, Rule, problems
from konnectivity.errors import DialError
from konnectivity.net.address import Address, join_host_port, parse_ip
from konnectivity.net.connect import Denied, dial_endpoint


def admits(policy: Policy, host: str, port: int, *addresses: str) -> list[str]:
    """Those that may be tried for `host`, which is its own address unless some are given."""
    found = [parse_ip(each, port) for each in addresses or (host,)]
    try:
        admitted = policy.admit(host, port, [each for each in found if each is not None])
    except Denied:
        return []
    return [str(each.sockaddr[0]) for each in admitted]


def only(*rules: str) -> Policy:
    return Policy(rules, cluster_only=False)


def cluster(*rules: str) -> Policy:
    return Policy(rules, cluster_only=True)


@pytest.mark.parametrize(
    ("rule", "host", "port", "allowed"),
    [
        ("10.0.0.0/8", "10.1.2.3", 80, True),
        ("10.0.0.0/8", "11.1.2.3", 80, False),
        ("10.0.0.0/8:10250", "10.1.2.3", 10250, True),
        ("10.0.0.0/8:10250", "10.1.2.3", 10251, False),
        ("10.0.0.0/8:8000-8080", "10.1.2.3", 8000, True),
        ("10.0.0.0/8:8000-8080", "10.1.2.3", 8080, True),
        ("10.0.0.0/8:8000-8080", "10.1.2.3", 8081, False),
        ("10.1.2.3", "10.1.2.3", 1, True),
        ("10.1.2.3", "10.1.2.4", 1, False),
        ("fd00::/8", "fd12::1", 443, True),
        ("fd00::/8", "fe80::1", 443, False),
        ("[fd00::/8]:443", "fd12::1", 443, True),
        ("[fd00::/8]:443", "fd12::1", 444, False),
        ("[fd00::/8]", "fd12::1", 444, True),
        ("fd00::1", "fd00::1", 9, True),
        # An IPv4 address in IPv6 clothes is what it is.
        ("::/0", "::ffff:10.0.0.1", 80, False),
        ("10.0.0.0/8", "::ffff:10.0.0.1", 80, True),
    ],
)
def test_a_network_admits_its_addresses_and_ports(
    rule: str, host: str, port: int, allowed: bool
) -> None:
    assert bool(admits(only(rule), host, port)) is allowed


@pytest.mark.parametrize(
    ("rule", "host", "allowed"),
    [
        ("node-1", "node-1", True),
        ("node-1", "NODE-1.", True),
        ("node-1", "node-10", False),
        ("Node-1:443", "node-1", True),
        ("node-1:80", "node-1", False),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "a.b.Example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "badexample.com", False),
    ],
)
def test_a_name_admits_whatever_it_resolves_to(rule: str, host: str, allowed: bool) -> None:
    assert bool(admits(only(rule), host, 443, "127.0.0.1")) is allowed


def test_the_addresses_of_a_name_that_no_rule_names_are_judged_one_by_one() -> None:
    policy = only("10.0.0.0/8")
    assert admits(policy, "node", 1, "192.0.2.1", "10.0.0.1", "::1") == ["10.0.0.1"]
    assert admits(policy, "node", 1, "192.0.2.1", "::1") == []
    assert policy.refusals == {"unlisted": 1}


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "fd12::1"]
)
def test_nodes_pods_and_services_are_the_clusters_destinations(address: str) -> None:
    assert admits(cluster(), address, 10250)
    assert admits(cluster(), "node-1", 10250, address)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.0.1", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%1", "link-local"),
        ("fd00:ec2::254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("172.32.0.1", "public"),
        ("8.8.8.8", "public"),
        ("2001:db8::1", "public"),
        ("64:ff9b::7f00:1", "public"),
    ],
)
def test_w48_what_belongs_to_the_node_or_to_the_world_is_not_the_clusters(
    address: str, kind: str
) -> None:
    for host in (address, "node-1"):
        policy = cluster()
        assert not admits(policy, host, 80, address)
        assert policy.refusals == {kind: 1}


def test_a_services_name_may_lead_outside_but_not_to_the_node() -> None:
    for name in ("web.shop.svc", "web.shop.svc.cluster.local."):
        assert admits(cluster(), name, 443, "203.0.113.7")
        for address in ("127.0.0.1", "169.254.169.254", "::1", "fd00:ec2::254"):
            assert not admits(cluster(), name, 443, address)
    assert not admits(cluster(), "evil-svc", 443, "203.0.113.7")
    assert not admits(cluster(), "svc", 443, "203.0.113.7")


def test_rules_add_to_the_clusters_destinations_even_what_is_excluded() -> None:
    policy = cluster("127.0.0.1:10250", "api.example.com")
    assert admits(policy, "127.0.0.1", 10250)
    assert not admits(policy, "127.0.0.1", 10251)
    assert admits(policy, "api.example.com", 443, "203.0.113.7")
    assert admits(policy, "10.0.0.1", 80)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("", "neither"),
        ("*", "neither"),
        ("*.", "neither"),
        ("a.*.b", "neither"),
        ("10.0.0.0/33", "not a CIDR"),
        ("10.0.0/8", "not a CIDR"),
        ("name/8", "not a CIDR"),
        ("127.1", "neither"),
        ("10.1.2.3/8", "is 10.0.0.0/8 meant?"),
        ("fd00::1/8", "is fd00::/8 meant?"),
        ("::ffff:10.0.0.0/104", "IPv4's form"),
        ("10.0.0.0/8:", 'port "" is not a number'),
        ("10.0.0.0/8:http", 'port "http" is not a number'),
        ("10.0.0.0/8:0", "not within 1 to 65535"),
        ("10.0.0.0/8:65536", "not within 1 to 65535"),
        ("10.0.0.0/8:90-80", "ends before it begins"),
        ("10.0.0.0/8:80-", "is not a number"),
        ("[fd00::/8", "brackets enclose"),
        ("[fd00::/8]443", "brackets enclose"),
        ("http://name", 'port "//name" is not a number'),
    ],
)
def test_a_bad_rule_is_named_with_what_is_wrong(rule: str, reason: str) -> None:
    (problem,) = problems([rule])
    assert problem.startswith(f'allow-destinations: bad rule "{rule}": ')
    assert reason in problem


def test_all_bad_rules_are_reported_with_all_other_mistakes() -> None:
    options = AgentOptions(
        ca_cert="", allow_destinations=("10.0.0.0/33", "ok.example", "x:y"), max_tunnels=-1
    )
    lines = validate(options)
    assert [line for line in lines if "10.0.0.0/33" in line]
    assert [line for line in lines if "x:y" in line]
    assert [line for line in lines if "max-tunnels must be >= 0, got -1" in line]
    assert [line for line in lines if "CA cert" in line]
    assert not [line for line in lines if "ok.example" in line]


@given(st.text())
def test_no_text_makes_a_rule_raise_anything_but_a_reason(text: str) -> None:
    for problem in problems([text]):
        assert problem


async def test_a_name_is_connected_to_at_the_very_address_that_was_judged() -> None:
    """A second lookup may say something else; there is none."""
    lookups = 0

    async def rebinding(host: str, port: int) -> list[Address]:
        nonlocal lookups
        lookups += 1
        answer = "127.0.0.1" if lookups == 1 else "169.254.169.254"
        return [Address(socket.AF_INET, (answer, port), join_host_port(answer, port))]

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        sock = await dial_endpoint(
            "tcp", f"rebinding.test:{port}", resolve=rebinding, gate=only("127.0.0.0/8")
        )
        assert sock.getpeername() == ("127.0.0.1", port)
        sock.close()
        assert lookups == 1
        with pytest.raises(DialError) as caught:
            await dial_endpoint(
                "tcp", f"rebinding.test:{port}", resolve=rebinding, gate=only("127.0.0.0/8")
            )
    assert caught.value.reason == "policy"
    assert str(caught.value) == (
        f"dial tcp 169.254.169.254:{port}: destination not allowed by the agent's policy "
        "(not in --allow-destinations)"
    )
    await asyncio.sleep(0)


def test_a_rule_knows_how_it_was_written() -> None:
    rule = Rule.parse("*.Example.com:80-90")
    assert (rule.network, rule.name, rule.ports) == (None, ".example.com", range(80, 91))
