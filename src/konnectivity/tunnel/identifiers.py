"""What an agent says about itself: the hosts, addresses and networks it stands for.

It is a URL query in the metadata of `Connect`: `host=node-1&ipv4=10.0.0.7&cidr=10.1.0.0/16`. Values
that make no sense are no reason to refuse an agent: manifests in the field send the literal text
`ipv4=${HOST_IP}`. They are set aside in `odd`.

Source: upstream `proto/header/header.go`, `GenAgentIdentifiers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Self
from urllib.parse import parse_qsl

from konnectivity.flag import TRUE
from konnectivity.tunnel.destination import Address, Host, normalise, unmapped

Network = IPv4Network | IPv6Network

_HEX = frozenset("0123456789abcdefABCDEF")
_MAPPED_BITS = 96
"""Prefix of the IPv4-mapped addresses within IPv6."""


@dataclass(frozen=True, slots=True)
class Identifiers:
    """The identifiers of one agent stream, without repetition."""

    hosts: frozenset[str] = frozenset()
    """Names in lower case, without the root's dot."""
    addresses: frozenset[Address] = frozenset()
    networks: frozenset[Network] = frozenset()
    default_route: bool = False
    text: str = ""
    """As the agent sent it."""
    odd: tuple[str, ...] = ()
    """Pairs that are ignored, each as `key=value`."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the query. Unknown keys, `uid` among them, are none of ours.

        Raises:
            ValueError: it is no URL query; the reason in the words of Go's parser.
        """
        _check_query(text)
        hosts: list[Host] = []
        networks: list[Network] = []
        routes: list[str] = []
        odd: list[str] = []
        for key, value in parse_qsl(text, keep_blank_values=True):
            try:
                match key:
                    case "host":
                        hosts.append(_host(value))
                    case "ipv4" | "ipv6":
                        hosts.append(unmapped(ip_address(value)))
                    case "cidr":
                        networks.append(_network(value))
                    case "default-route":
                        routes.append(value)
            except ValueError:
                odd.append(f"{key}={value}")
        return cls(
            hosts=frozenset(host for host in hosts if isinstance(host, str)),
            addresses=frozenset(host for host in hosts if not isinstance(host, str)),
            networks=frozenset(networks),
            default_route=bool(routes) and routes[0] in TRUE,  # anything else is false
            text=text,
            odd=tuple(odd),
        )


def _check_query(text: str) -> None:
    if ";" in text:
        raise ValueError("invalid semicolon separator in query")
    for at in (at for at, char in enumerate(text) if char == "%"):
        escape = text[at : at + 3]
        if len(escape) < 3 or not _HEX.issuperset(escape[1:]):
            raise ValueError(f'invalid URL escape "{escape}"')


def _host(text: str) -> Host:
    host = normalise(text)
    if not host:
        raise ValueError("no host")
    return host


def _network(text: str) -> Network:
    """A network in CIDR notation; bits beyond its prefix are cleared."""
    network = ip_network(text, strict=False)
    if network.version == 6 and network.prefixlen >= _MAPPED_BITS:
        base = unmapped(network.network_address)
        if base.version == 4:
            return IPv4Network((base, network.prefixlen - _MAPPED_BITS))
    return network
