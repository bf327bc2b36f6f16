"""The destination policy: which endpoints this agent dials (W48).

It is asked with the very addresses that are connected to next, so a name that resolves anew cannot
slip through. Upstream has no policy, and dials whatever a server names.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from konnectivity.net.address import Address, is_domain_name
from konnectivity.net.connect import Denied

IP: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

ALL_PORTS: Final = range(65536)
LAST_PORT: Final = 65535


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


CLUSTER_NETWORKS: Final = _networks(
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"
)
"""Where clusters have nodes, pods and services: RFC 1918, RFC 6598, RFC 4193."""
CLUSTER_NAMES: Final = (".svc", ".svc.cluster.local")
NEVER_CLUSTER: Final = {
    "loopback": _networks("127.0.0.0/8", "::1/128"),
    "unspecified": _networks("0.0.0.0/8", "::/128"),
    "multicast": _networks("224.0.0.0/4", "ff00::/8"),
    "link-local": _networks("169.254.0.0/16", "fe80::/10"),
    # Those of AWS (with its pod identities), Google, Oracle and Alibaba that are not link-local.
    "metadata": _networks(
        "fd00:ec2::254/128",
        "fd00:ec2::23/128",
        "fd20:ce::254/128",
        "fd00:c1::a9fe:a9fe/128",
        "100.100.100.200/32",
    ),
}
"""What belongs to the agent's own node, or to its provider; none of it is a cluster's endpoint."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of `--allow-destinations`: a network or a name, and ports."""

    network: Network | None
    name: str
    """Lower case; `.suffix` stands for all names that end so; empty for a network."""
    ports: range

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read `CIDR`, `name` or `*.suffix`, each with `:port` or `:port-port` or without.

        An IPv6 network that has ports stands in brackets.

        Raises:
            ValueError: with what is wrong.
        """
        host, ports = _split(text)
        network = _parse_network(host)
        if network is not None:
            return cls(network, "", ports)
        name = host.lower().removesuffix(".")
        if not is_domain_name(name.removeprefix("*.")):
            raise ValueError("neither a CIDR, a name nor *.suffix, with :port or :port-port")
        return cls(None, name.removeprefix("*") if name.startswith("*.") else name, ports)

    def names(self, host: str, port: int) -> bool:
        """Whether this rule names `host` (lower case, without the final dot)."""
        if not self.name or port not in self.ports:
            return False
        return host.endswith(self.name) if self.name.startswith(".") else host == self.name

    def covers(self, ip: IP, port: int) -> bool:
        """Whether this rule's network has that address."""
        return self.network is not None and port in self.ports and ip in self.network


def _split(text: str) -> tuple[str, range]:
    """Host and ports. Two colons and no brackets are an IPv6 network without ports."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("brackets enclose an IPv6 network, as in [fd00::/8]:443")
        return host, _parse_ports(rest[1:]) if rest else ALL_PORTS
    if text.count(":") != 1:
        return text, ALL_PORTS
    host, _, ports = text.partition(":")
    return host, _parse_ports(ports)


def _parse_ports(text: str) -> range:
    first, dash, last = text.partition("-")
    numbers = [first, last] if dash else [first, first]
    if not all(each.isascii() and each.isdigit() and len(each) <= 5 for each in numbers):
        raise ValueError(f'port "{text}" is not a number, nor a range such as 8000-8080')
    low, high = (int(each) for each in numbers)
    if not 0 < low <= high <= LAST_PORT:
        raise ValueError(f"port {text} is not within 1 to {LAST_PORT}, or ends before it begins")
    return range(low, high + 1)


def _parse_network(text: str) -> Network | None:
    """The network of a CIDR or a single address; None for what looks like neither."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        if "/" in text:
            raise ValueError(f"{text} is not a CIDR") from None
        return None
    if ipaddress.ip_interface(text).ip != network.network_address:
        raise ValueError(f"{text} has bits behind its prefix; is {network} meant?")
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped:
        raise ValueError("an IPv4 network is written in IPv4's form")
    return network


def problems(rules: Iterable[str]) -> Iterator[str]:
    """What is wrong with the values of `--allow-destinations`, a line each."""
    for text in rules:
        try:
            Rule.parse(text)
        except ValueError as error:
            yield f'allow-destinations: bad rule "{text}": {error}'


class Policy:
    """The rules of one agent. `refusals` counts refused dials by the kind of address.

    `cluster_only` admits the cluster's networks and names beside what `rules` allow; without it
    only `rules` do.
    """

    def __init__(
        self, rules: Sequence[str], *, cluster_only: bool, refusals: Counter[str] | None = None
    ) -> None:
        self.refusals: Counter[str] = Counter() if refusals is None else refusals
        self._rules = [Rule.parse(text) for text in rules]
        self._cluster_only = cluster_only

    def admit(self, host: str, port: int, addresses: Sequence[Address]) -> list[Address]:
        """Those of `host`'s addresses that may be connected to, at least one.

        Raises:
            Denied: none of them may.
        """
        name = host.lower().removesuffix(".")
        if any(rule.names(name, port) for rule in self._rules):
            return list(addresses)
        verdicts = [(each, self._objection(name, each, port)) for each in addresses]
        admitted = [each for each, objection in verdicts if not objection]
        if admitted:
            return admitted
        kind = verdicts[0][1]
        self.refusals[kind] += 1
        where = "not in --allow-destinations"
        if self._cluster_only:
            where = f"--cluster-destinations-only: {kind} address"
        raise Denied(f"destination not allowed by the agent's policy ({where})")

    def _objection(self, name: str, address: Address, port: int) -> str:
        """The kind of an address that may not be dialled; empty for one that may."""
        ip, kind = _classified(str(address.sockaddr[0]))
        if any(rule.covers(ip, port) for rule in self._rules):
            return ""
        if not self._cluster_only:
            return "unlisted"
        return "" if kind == "public" and name.endswith(CLUSTER_NAMES) else kind


@lru_cache(maxsize=4096)  # a cluster's endpoints are dialled again and again
def _classified(text: str) -> tuple[IP, str]:
    """The address as the kernel will take it, and its kind, which is empty for a cluster's."""
    ip: IP = ipaddress.ip_address(text.partition("%")[0])  # a zone says nothing here
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip
    for kind, networks in NEVER_CLUSTER.items():
        if any(ip in network for network in networks):
            return ip, kind
    return ip, "" if any(ip in network for network in CLUSTER_NETWORKS) else "public"
