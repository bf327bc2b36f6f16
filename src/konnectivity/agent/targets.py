"""Where the next attempt to find a server goes: to its own address, or to the common name.

The own address of a server is known from its lease or from other servers. One that did not lead to
it, because the network does not reach it or something else answers, is set aside for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Final

from konnectivity.agent.link import Target
from konnectivity.net.address import Address, AddressError, parse_port, split_host_port
from konnectivity.net.connect import Resolve, system_resolve

DIRECT_TIMEOUT: Final = 5.0
"""Seconds for TCP to a server's own address: the common name is tried next."""
SET_ASIDE: Final = 60.0
"""Seconds until an own address that failed is tried again."""


class Targets:
    """`host` and `port` are the common ones of all servers; `resolve` replaces the resolver."""

    def __init__(self, host: str, port: int, *, resolve: Resolve = system_resolve) -> None:
        self._host = host
        self._port = port
        self._resolve = resolve
        self._aside: dict[Target, float] = {}
        """Until when, in the loop's time."""

    def direct(self, addresses: Mapping[str, str]) -> Target | None:
        """The first of the addresses (`host:port`, by server id) that is worth an attempt."""
        now = asyncio.get_running_loop().time()
        self._aside = {target: until for target, until in self._aside.items() if until > now}
        for _, address in sorted(addresses.items()):
            target = parse_target(address)
            if target is not None and target not in self._aside:
                return target
        return None

    def set_aside(self, target: Target) -> None:
        """An attempt at an own address did not find the server."""
        self._aside[target] = asyncio.get_running_loop().time() + SET_ASIDE

    def balanced(self, *, avoid: Collection[str] = (), prefer: str = "") -> Target:
        """The common name; of its IP addresses `prefer` comes first, those to `avoid` last."""

        def rank(found: Address) -> tuple[bool, bool]:
            return found.sockaddr[0] != prefer, found.sockaddr[0] in avoid

        async def resolve(host: str, port: int) -> list[Address]:
            return sorted(await self._resolve(host, port), key=rank)

        return Target(self._host, self._port, resolve=resolve)


def parse_target(address: str) -> Target | None:
    """A target from `host:port`, None if it is no such thing: peers may say what they want."""
    try:
        host, service = split_host_port(address)
        port = parse_port(service)
    except AddressError:
        return None
    return Target(host, port, timeout=DIRECT_TIMEOUT) if host and port else None
