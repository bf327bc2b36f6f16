"""Addresses of TCP endpoints, read and written as Go does.

`host:port` and `[v6]:port` in, socket addresses and Go's error texts out. No lookups of names;
see `connect.py`.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import TypeAlias

# (host, port) or (host, port, flow, zone); the last form is what Python makes of families it
# was built without, and never occurs here.
SockAddr: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]

LONGEST_NAME = 254  # bytes, without the final dot (RFC 1035, 2.3.4)
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_DOTTED = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}", re.ASCII)
_NUMBER = re.compile(r"[-+]?[0-9]+")


class AddressError(ValueError):
    """The address is malformed. `str()` is what Go's dialer writes behind `dial tcp: `."""


@dataclass(frozen=True, slots=True)
class Address:
    """One address to connect to. `text` is Go's form: `127.0.0.1:80`, `[fe80::1%eth0]:80`."""

    family: socket.AddressFamily
    sockaddr: SockAddr
    text: str


def join_host_port(host: str, port: int | str) -> str:
    """`host:port`, with brackets when the host is an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_host_port(address: str) -> tuple[str, str]:
    """Split `host:port`, `[host]:port` into host and port; either may be empty.

    Raises:
        AddressError: no port, too many colons, or brackets out of place.

    Source: Go's `net.SplitHostPort`.
    """
    if not address:
        raise AddressError("missing address")
    head, colon, port = address.rpartition(":")
    if not colon:
        raise _fault(address, "missing port in address")
    if address.startswith("["):
        end = address.find("]")
        if end < 0:
            raise _fault(address, "missing ']' in address")
        if end + 1 != len(head):
            many = address[end + 1 : end + 2] == ":"
            raise _fault(address, f"{'too many colons' if many else 'missing port'} in address")
        host, rest = head[1:-1], address[end + 1 :]
    else:
        if ":" in head:
            raise _fault(address, "too many colons in address")
        host, rest = head, address
    if "[" in host or "[" in rest:
        raise _fault(address, "unexpected '[' in address")
    if "]" in rest:
        raise _fault(address, "unexpected ']' in address")
    return host, port


def parse_port(port: str) -> int:
    """A port's number from decimal digits or a service name; empty is 0.

    Raises:
        AddressError: out of range, or a name that the system's services do not have.

    Source: Go's `net.LookupPort`.
    """
    if not port:
        return 0
    if _NUMBER.fullmatch(port):
        # Beyond six digits Python could be kept busy with the conversion of a long string.
        number = int(port) if len(port) <= 20 else -1
        if not 0 <= number <= 65535:
            raise _fault(port, "invalid port")
        return number
    try:
        return socket.getservbyname(port.lower(), "tcp")
    except (OSError, ValueError) as error:
        raise AddressError(f"lookup tcp/{port}: unknown port") from error


def parse_ip(host: str, port: int) -> Address | None:
    """The address of an IP literal, None when `host` is a name.

    Only the strict forms count: `127.1` or `0x7f000001` are names, and bad ones. An IPv4 address
    in IPv6 form is IPv4. An IPv6 zone may be an interface's name or number; an unknown one is 0,
    on which connecting fails.
    """
    if _DOTTED.fullmatch(host):  # nearly all: no need for the general way
        return Address(socket.AF_INET, (host, port), f"{host}:{port}")
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address) and (ip.ipv4_mapped is None or ip.scope_id):
        plain = str(ip).partition("%")[0]
        sockaddr = (plain, port, 0, _zone_index(ip.scope_id or ""))
        return Address(socket.AF_INET6, sockaddr, join_host_port(str(ip), port))
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip
    return Address(socket.AF_INET, (str(ip), port), join_host_port(str(ip), port))


def is_domain_name(host: str) -> bool:
    """Whether a resolver may be asked for `host`.

    False for what libc would take for a number (`127.1`, `2130706433`, `0x7f000001`), so that a
    rule about addresses cannot be evaded by spelling, and for non-ASCII names, which nothing here
    sends.

    Source: Go's `isDomainName`; differs: Go asks for `0x7f000001`.
    """
    if not _NAME.fullmatch(host) or len(host.removesuffix(".")) > LONGEST_NAME:
        return False
    try:
        socket.inet_aton(host.removesuffix("."))
    except OSError:
        return bool(re.search("[A-Za-z_-]", host))
    return False


def _fault(address: str, text: str) -> AddressError:
    return AddressError(f"address {address}: {text}")


def _zone_index(zone: str) -> int:
    if zone.isascii() and zone.isdigit():
        return min(int(zone[:10]), 2**32 - 1)
    try:
        return socket.if_nametoindex(zone) if zone else 0
    except (OSError, ValueError):
        return 0
