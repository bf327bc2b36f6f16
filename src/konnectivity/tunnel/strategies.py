"""Which agents are in question for a destination: the entries of `--proxy-strategies`.

`default`, `defaultRoute` and `destHost` are upstream's; `destCIDR` is ours, and makes use of the
`cidr` identifiers that upstream's agents send and its server ignores (W56, W61).

Source: upstream `pkg/server/*_backend_manager.go`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import ClassVar, Final, Generic, TypeVar

from konnectivity.tunnel.carrier import Backend
from konnectivity.tunnel.destination import Host
from konnectivity.tunnel.identifiers import Identifiers
from konnectivity.tunnel.pool import Choose, Pool

Key = TypeVar("Key")

DOUBT: Final = 1.0
"""Seconds a sign of life may be awaited before agents further down the list are better."""


class Strategy(ABC):
    """Knows its agents, and which of them to take for a host."""

    name: ClassVar[str]
    needs: ClassVar[str] = ""
    """The identifiers without which it never takes an agent."""
    by_host: ClassVar[bool] = False

    def __init__(self, choose: Choose) -> None:
        self._choose = choose
        self._agents = Pool()

    def __len__(self) -> int:
        """The number of agents it may take.

        differs: upstream counts identifiers for `destHost` (W70).
        """
        return len(self._agents)

    @abstractmethod
    def add(self, backend: Backend) -> None:
        """Enter a stream, if the strategy has a use for it."""

    @abstractmethod
    def remove(self, backend: Backend) -> None:
        """Forget a stream; unknown ones are fine."""

    @abstractmethod
    def choose(self, host: Host, excluded: Collection[Backend]) -> Backend | None:
        """A stream for a dial to `host`; None: ask the next strategy."""


class Default(Strategy):
    """Any agent."""

    name = "default"

    def add(self, backend: Backend) -> None:
        """Every stream is of use."""
        self._agents.add(backend)

    def remove(self, backend: Backend) -> None:
        """Forget a stream."""
        self._agents.remove(backend)

    def choose(self, host: Host, excluded: Collection[Backend]) -> Backend | None:
        """One of all, whatever the host."""
        return self._choose(self._agents, excluded)


class DefaultRoute(Default):
    """Any agent that offers itself for what no other stands for."""

    name = "defaultRoute"
    needs = "default-route=true"

    def add(self, backend: Backend) -> None:
        """Enter a stream that offers itself."""
        if backend.identifiers.default_route:
            super().add(backend)


class _ByKey(Strategy, Generic[Key]):
    """A pool of agents for each key that they announce."""

    by_host = True

    def __init__(self, choose: Choose) -> None:
        super().__init__(choose)
        self._pools: dict[Key, Pool] = {}

    @abstractmethod
    def keys(self, identifiers: Identifiers) -> Iterable[Key]:
        """What an agent's streams are entered under."""

    def add(self, backend: Backend) -> None:
        """Enter a stream under each of its keys."""
        for key in self.keys(backend.identifiers):
            if key not in self._pools:
                self._pools[key] = Pool()
                self.appeared(key)
            self._pools[key].add(backend)
            self._agents.add(backend)

    def remove(self, backend: Backend) -> None:
        """Forget a stream, and keys that nobody has any more."""
        for key in self.keys(backend.identifiers):
            pool = self._pools.get(key)
            if pool is not None:
                pool.remove(backend)
                if not len(pool):
                    del self._pools[key]
                    self.vanished(key)
        self._agents.remove(backend)

    def appeared(self, key: Key) -> None:
        """A key is there for the first time."""

    def vanished(self, key: Key) -> None:
        """The last agent with a key is gone."""


class DestHost(_ByKey[Host]):
    """The agent that stands for the host itself."""

    name = "destHost"
    needs = "host, ipv4 or ipv6"

    def keys(self, identifiers: Identifiers) -> Iterable[Host]:
        """Names and addresses."""
        return (*identifiers.hosts, *identifiers.addresses)

    def choose(self, host: Host, excluded: Collection[Backend]) -> Backend | None:
        """One of those that announce exactly this host."""
        pool = self._pools.get(host)
        return self._choose(pool, excluded) if pool is not None else None


class DestCidr(_ByKey[tuple[int, int, int]]):
    """An agent that stands for the smallest network around the address. Names have none.

    A key is a network: IP version, prefix length, prefix.
    """

    name = "destCIDR"
    needs = "cidr"

    def __init__(self, choose: Choose) -> None:
        super().__init__(choose)
        self._networks: Counter[tuple[int, int]] = Counter()
        """How many networks there are of each version and prefix length."""
        self._lengths: dict[int, list[int]] = {4: [], 6: []}
        """Those prefix lengths, longest first: the cost of a choice does not grow beyond them."""

    def keys(self, identifiers: Identifiers) -> Iterable[tuple[int, int, int]]:
        """Networks."""
        for network in identifiers.networks:
            prefix = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
            yield network.version, network.prefixlen, prefix

    def appeared(self, key: tuple[int, int, int]) -> None:
        """Remember the prefix length."""
        version, length, _ = key
        self._networks[version, length] += 1
        if length not in self._lengths[version]:
            self._lengths[version].append(length)
            self._lengths[version].sort(reverse=True)

    def vanished(self, key: tuple[int, int, int]) -> None:
        """Forget the prefix length with its last network."""
        version, length, _ = key
        self._networks[version, length] -= 1
        if not self._networks[version, length]:
            self._lengths[version].remove(length)

    def choose(self, host: Host, excluded: Collection[Backend]) -> Backend | None:
        """One of those with the longest prefix."""
        return None if isinstance(host, str) else first_trusted(self._around(host, excluded))

    def _around(self, host: Host, excluded: Collection[Backend]) -> Iterator[Backend | None]:
        if isinstance(host, str):
            return
        for length in self._lengths[host.version]:
            key = (host.version, length, int(host) >> (host.max_prefixlen - length))
            pool = self._pools.get(key)
            if pool is not None:
                yield self._choose(pool, excluded)


def first_trusted(candidates: Iterable[Backend | None]) -> Backend | None:
    """The first that is not in doubt, else the first of all."""
    doubtful: Backend | None = None
    for backend in candidates:
        if backend is not None:
            if (backend.silence or 0.0) < DOUBT:
                return backend
            doubtful = doubtful or backend
    return doubtful


STRATEGIES: Final[dict[str, type[Strategy]]] = {
    strategy.name: strategy for strategy in (Default, DestHost, DefaultRoute, DestCidr)
}


def split(text: str) -> list[str]:
    """The entries of `--proxy-strategies`; blanks around them and empty ones do not count (W61)."""
    return [name for each in text.split(",") if (name := each.strip())]
