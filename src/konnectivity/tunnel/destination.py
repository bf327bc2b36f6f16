"""The host of a dial's destination, in a form that can be compared.

Addresses compare as addresses and names regardless of case and of the root's dot, so `2001:DB8::1`
is `2001:db8:0::1` and `Node-1.` is `node-1` (W56). No name is looked up.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address
Host = Address | str
"""An address, or a name in lower case."""


def host_text(destination: str) -> str:
    """The host as it stands in `host:port`, `[v6]:port`, or alone.

    Source: upstream `pkg/util/net.go`; differs: there, `[v6]` without a port loses its last group.
    """
    if destination.count(":") <= 1:
        return destination.partition(":")[0]
    if "[" in destination:
        text = destination if destination.endswith("]") else destination.rpartition(":")[0]
        return text.strip("[]")
    return destination


def host_of(destination: str) -> Host:
    """The host of a dial's destination; "" where there is none."""
    return normalise(host_text(destination))


def normalise(text: str) -> Host:
    """An address or a name, as others are compared with it."""
    # Names end in a letter; asking costs less than parsing one as an address.
    if ":" in text or text[-1:].isdigit():
        try:
            return unmapped(ip_address(text))
        except ValueError:
            pass
    return text.removesuffix(".").casefold()


def unmapped(address: Address) -> Address:
    """The IPv4 address inside an IPv4-mapped IPv6 address; any other as it is."""
    if address.version == 6 and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
