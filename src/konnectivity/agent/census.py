"""How many servers there are, and which: what leases and the servers themselves say, combined.

It decides how many connections are wanted, which servers could be reached directly, and which
connections lead to servers that are gone. Nothing here connects to anything.

Source: upstream `pkg/agent/clientset.go` (`ServerCount`, `syncOnce`); differs: what servers say
counts while they are connected, the largest number of all (W59), not the last one that was heard.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol


class Connected(Protocol):
    """What is known of a server because we are connected to it."""

    server_id: str
    server_count: int
    announced: Mapping[str, str]
    """Addresses of all servers by id, if it told us; the addresses may be empty."""


class Leases(Protocol):
    """What leases say; see `LeaseCounter`."""

    @property
    def count(self) -> int: ...

    @property
    def servers(self) -> dict[str, str] | None: ...


class Census:
    """The count by `--server-count-source`; without `leases` what servers say decides alone."""

    def __init__(self, leases: Leases | None = None, *, source: str = "default") -> None:
        self._leases = leases
        self._source = source
        self._said = 1

    def wanted(self, connected: Iterable[Connected]) -> int:
        """How many servers to be connected to, at least 1."""
        said = [max(each.server_count, len(each.announced)) for each in connected]
        if said:  # with nobody there what was said last is the best guess
            self._said = max(1, *said)
        if self._leases is None:
            return self._said
        count = max(1, self._leases.count)
        return max(count, self._said) if self._source == "max" else count

    def addresses(self, connected: Iterable[Connected]) -> dict[str, str]:
        """Addresses of servers of which they are known, by id.

        Leases are newer than what servers said when we connected, so they decide if they can.
        """
        known: dict[str, str] = {}
        for each in connected:
            known |= each.announced
        if self._leases is not None and (servers := self._leases.servers) is not None:
            known = dict(servers)
        return {server_id: address for server_id, address in known.items() if address}

    def missing(self, connected: Collection[Connected]) -> dict[str, str]:
        """The same of those that we are not connected to."""
        known = self.addresses(connected)
        for each in connected:
            known.pop(each.server_id, None)
        return known

    def is_gone(self, server_id: str) -> bool:
        """Whether leases tell of all servers, and this is none of them."""
        servers = self._leases.servers if self._leases is not None else None
        return servers is not None and server_id not in servers
