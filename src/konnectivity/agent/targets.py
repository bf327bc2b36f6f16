"""Where the next attempt to find a server goes: to its own address, or to the common name.

The own address of a server is known from its lease or from other servers. Once one has led to its
server, own addresses are believed: where none answers, the server is away, and the common name
would lead to one that is known already, so it is tried now and then only (an address may have
changed). As long as none has led anywhere, because the network does not reach them, one that fails
is set aside for a while; so is any that leads to a server that is known.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from konnectivity.agent.link import Target
from konnectivity.net.address import Address, AddressError, parse_port, split_host_port
from konnectivity.net.connect import Resolve, system_resolve

DIRECT_TIMEOUT: Final = 5.0
"""Seconds for TCP to a server's own address."""
PATIENCE: Final = 5
"""Failures of an address that is believed, until the common name is tried too."""
UNANSWERED: Final = 3
"""Failures for which one counts that took all of `DIRECT_TIMEOUT`: a host that is gone is not
waited for as often as one that refuses."""
SET_ASIDE: Final = 60.0
"""Seconds until an own address that is not believed is tried again."""
MOST_OWN: Final = 256
"""Own addresses that are remembered."""


@dataclass(slots=True)
class _Own:
    """What became of attempts at an own address. Times are the loop's."""

    tried: float = 0.0
    led: bool = False
    in_vain: int = 0
    """Failures since it led to its server, or since it was doubted."""
    aside: float = 0.0
    """Until when it is set aside."""


class Targets:
    """`host` and `port` are the common ones of all servers; `resolve` replaces the resolver."""

    def __init__(self, host: str, port: int, *, resolve: Resolve = system_resolve) -> None:
        self._host = host
        self._port = port
        self._resolve = resolve
        self._own: OrderedDict[Target, _Own] = OrderedDict()

    def direct(self, addresses: Mapping[str, str]) -> list[Target]:
        """Those of the addresses (`host:port`, by server id) that are worth an attempt.

        The one that was tried longest ago comes first: another server may be back before it.
        """
        now = asyncio.get_running_loop().time()
        found = [parse_target(address) for _, address in sorted(addresses.items())]
        known = [(each, self._own.get(each, _Own())) for each in found if each is not None]
        worth = [(own.tried, each) for each, own in known if own.aside <= now]
        return [each for _, each in sorted(worth, key=lambda pair: pair[0])]

    def led(self, target: Target) -> None:
        """An attempt at an own address has found a server that was missing."""
        own = self._of(target)
        own.led, own.in_vain = True, 0

    def failed(self, target: Target, seconds: float) -> bool:
        """An attempt at an own address took so long and found no server.

        Whether to try the common name.
        """
        own = self._of(target)
        if not any(each.led for each in self._own.values()):
            self.set_aside(target)
            return True
        own.in_vain += UNANSWERED if seconds >= DIRECT_TIMEOUT else 1
        if own.in_vain < PATIENCE:
            return False
        if own.led:
            own.in_vain = 0
        return True

    def set_aside(self, target: Target) -> None:
        """An own address does not lead to its server."""
        self._of(target).aside = asyncio.get_running_loop().time() + SET_ASIDE

    def _of(self, target: Target) -> _Own:
        """What is known of an own address that has just been tried."""
        own = self._own.setdefault(target, _Own())
        own.tried = asyncio.get_running_loop().time()
        self._own.move_to_end(target)
        if len(self._own) > MOST_OWN:
            self._own.popitem(last=False)
        return own

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
