"""Which agent gets a dial: the strategy `default`, a random agent that is not draining.

The other strategies of upstream plug in beside `choose`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from konnectivity.tunnel.carrier import Backend

SETTLED: Final = 5.0
"""Seconds after which a further stream of an agent is taken to stay."""


class Backends:
    """The agent streams that are up, in order of arrival.

    Streams of one agent count as one key, as upstream counts. An agent that looks for further
    servers and meets the same one again closes the new stream at once, so the oldest is preferred;
    but a newer one that stays says that the oldest died unnoticed (W54).
    """

    def __init__(self, randrange: Callable[[int], int], clock: Callable[[], float]) -> None:
        self._randrange = randrange
        self._clock = clock
        self._streams: dict[str, dict[Backend, float]] = {}
        """The streams of each agent and when they arrived."""
        # The keys once more, so that a random one costs the same however many there are.
        self._keys: list[str] = []
        self._places: dict[str, int] = {}

    def add(self, backend: Backend) -> None:
        """Enter a new agent stream."""
        key = backend.agent_id
        if key not in self._streams:
            self._streams[key] = {}
            self._places[key] = len(self._keys)
            self._keys.append(key)
        self._streams[key][backend] = self._clock()

    def remove(self, backend: Backend) -> None:
        """Forget a stream; unknown ones are fine."""
        key = backend.agent_id
        streams = self._streams.get(key, {})
        if backend in streams:
            del streams[backend]
            if not streams:
                del self._streams[key]
                self._forget_key(key)

    def _forget_key(self, key: str) -> None:
        place, last = self._places.pop(key), self._keys.pop()
        if last != key:
            self._keys[place] = last
            self._places[last] = place

    def __len__(self) -> int:
        """The number of agents, not of streams (upstream's `ready_backends`)."""
        return len(self._streams)

    def choose(self) -> Backend | None:
        """A random agent; a draining one only when all of them drain. None: no agent at all."""
        keys = self._keys
        if not keys:
            return None
        start = self._randrange(len(keys))
        last_resort: Backend | None = None
        for offset in range(len(keys)):
            backend = self._preferred(self._streams[keys[(start + offset) % len(keys)]])
            if not backend.draining:
                return backend
            last_resort = last_resort or backend
        return last_resort

    def _preferred(self, streams: dict[Backend, float]) -> Backend:
        """One agent's newest stream that has settled, else its oldest; draining ones last."""
        if len(streams) == 1:
            return next(iter(streams))
        usable = [backend for backend in streams if not backend.draining] or list(streams)
        before = self._clock() - SETTLED
        settled = [backend for backend in usable if streams[backend] <= before]
        return settled[-1] if settled else usable[0]
