"""What a certificate is for: the four ends of Konnectivity's two connections.

    kube-apiserver                      server                         agent
      frontend-client ----> frontend-server | server <---- agent

The role is told in the certificate as organisation `konnectivity:<role>`, for flags such as
`--agent-certificate-identities=O=konnectivity:agent`.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from konnectivity.errors import ConfigError
from konnectivity.gotext import quote

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_LABEL: Final = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST: Final = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*", re.IGNORECASE)
_LONGEST_HOST: Final = 253  # RFC 1035, 2.3.4, without the dot at the end
RESERVED: Final = frozenset(["ca", "ca.crt", "cluster.json", "lock", "state.json"])
"""What else lies beside the leaves' folders."""


class Role(StrEnum):
    """One of the four ends."""

    SERVER = "server"
    FRONTEND_SERVER = "frontend-server"
    FRONTEND_CLIENT = "frontend-client"
    AGENT = "agent"

    @property
    def serves(self) -> bool:
        """Whether peers connect to it, so that it needs names to be found by."""
        return self in (Role.SERVER, Role.FRONTEND_SERVER)

    @property
    def organisation(self) -> str:
        """What the certificate's subject says in `O`."""
        return f"konnectivity:{self}"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate as it is wished for. `name` is its common name, and its folder's name.

    `hosts` are DNS names and IP addresses, which become subject alternative names.

    Raises:
        ConfigError: a name or a host cannot be one, or a role that serves has no host.
    """

    name: str
    role: Role
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or ".." in self.name or self.name in RESERVED:
            raise ConfigError(
                f"certificate name {quote(self.name)}: must be lower-case letters, digits, dots "
                f"and dashes, at most 63, and none of {', '.join(sorted(RESERVED))}"
            )
        if self.role.serves and not self.hosts:
            raise ConfigError(
                f"certificate {self.name}: the role {self.role} needs the names or IP addresses "
                "that its clients connect to"
            )
        for host in self.hosts:
            if not is_address(host) and not _is_host(host):
                raise ConfigError(
                    f"certificate {self.name}: {quote(host)} is neither a DNS name nor an IP "
                    "address"
                )


def is_address(host: str) -> bool:
    """Whether it is an IP address, as certificates hold them: without a zone."""
    try:
        return not getattr(ipaddress.ip_address(host), "scope_id", None)
    except ValueError:
        return False


def _is_host(host: str) -> bool:
    last = host.rpartition(".")[2]
    return len(host) <= _LONGEST_HOST and bool(_HOST.fullmatch(host)) and not last.isdigit()
