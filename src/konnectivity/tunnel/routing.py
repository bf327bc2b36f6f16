"""Which agent gets a dial: the strategies are asked in order until one names a stream.

Whatever is chosen, agents that drain come after those that do not, and agents whose connection
owes a sign of life after both.

Source: upstream `pkg/server/backend_manager.go`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from konnectivity.tunnel.carrier import Backend
from konnectivity.tunnel.destination import Host, host_of
from konnectivity.tunnel.pool import Choose, Pool, Randrange
from konnectivity.tunnel.strategies import STRATEGIES, DestHost, Strategy, first_trusted

RANDOM: Final = "random"
LEAST_LOADED: Final = "least-loaded"
SELECTIONS: Final = frozenset([RANDOM, LEAST_LOADED])
"""How one of several suitable agents is taken (`--agent-selection`)."""


class Backends:
    """The agent streams that are up, and the strategies that choose among them.

    A strategy that is named twice would say the same twice; the first counts.
    """

    def __init__(
        self,
        randrange: Randrange,
        *,
        strategies: Sequence[str] = ("default",),
        selection: str = RANDOM,
    ) -> None:
        self._agents = Pool()
        self._strategies = [
            STRATEGIES[name](_choice(STRATEGIES[name], selection, randrange))
            for name in dict.fromkeys(strategies)
        ]
        self._by_host = any(strategy.by_host for strategy in self._strategies)

    def add(self, backend: Backend) -> None:
        """Enter a new agent stream.

        Which of an agent's streams live is found out at once if there are more than it wants.
        """
        self._agents.add(backend)
        streams = self._agents.of(backend.agent_id)
        if len(streams) > backend.parallel:
            for each in streams:
                each.probe()
        for strategy in self._strategies:
            strategy.add(backend)

    def remove(self, backend: Backend) -> None:
        """Forget a stream; unknown ones are fine."""
        self._agents.remove(backend)
        for strategy in self._strategies:
            strategy.remove(backend)

    def choose(self, address: str = "", excluded: Collection[Backend] = ()) -> Backend | None:
        """A stream for a dial to `address`, none of `excluded`. None: there is no agent for it."""
        if len(self._strategies) == 1 and not self._by_host:
            return self._strategies[0].choose("", excluded)
        host: Host = host_of(address) if self._by_host else ""
        return first_trusted(strategy.choose(host, excluded) for strategy in self._strategies)

    def __len__(self) -> int:
        """The number of agents, not of streams."""
        return len(self._agents)

    def streams(self) -> Iterator[Backend]:
        """All streams, by agent, oldest first."""
        return self._agents.streams()

    def counts(self) -> dict[str, int]:
        """How many agents each strategy may take (upstream's `ready_backends`)."""
        return {strategy.name: len(strategy) for strategy in self._strategies}

    @property
    def ready(self) -> bool:
        """Whether some dial could be served.

        differs: upstream asks the first strategy only (W57).
        """
        return any(len(strategy) for strategy in self._strategies)

    @property
    def unready_reason(self) -> str:
        """Why no dial can be served; "" when some can."""
        if self.ready:
            return ""
        if not len(self):
            return "no connection to any proxy agent"
        needs = ", ".join(f"{each.name} ({each.needs})" for each in self._strategies)
        return (
            f"agents are connected ({len(self)}), but none has an identifier that "
            f"--proxy-strategies asks for: {needs}"
        )


def _choice(strategy: type[Strategy], selection: str, randrange: Randrange) -> Choose:
    if selection == LEAST_LOADED:
        return lambda pool, excluded: pool.lighter(randrange, excluded)
    if strategy is DestHost:  # always the same, as upstream
        return Pool.oldest
    return lambda pool, excluded: pool.random(randrange, excluded)
