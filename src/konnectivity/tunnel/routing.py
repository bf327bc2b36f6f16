"""Which agent gets a dial: the strategy `default`, a random agent that is not draining.

The other strategies of upstream plug in beside `choose`.
"""

from __future__ import annotations

from collections.abc import Callable

from konnectivity.tunnel.carrier import Backend


class Backends:
    """The agent streams that are up, in order of arrival.

    Streams of one agent count as one key, as upstream counts; the newest of them that is not
    draining is preferred, since the oldest may be a connection that died unnoticed (W54).
    """

    def __init__(self, randrange: Callable[[int], int]) -> None:
        self._randrange = randrange
        self._streams: dict[str, list[Backend]] = {}
        # The keys once more, so that a random one costs the same however many there are.
        self._keys: list[str] = []
        self._places: dict[str, int] = {}

    def add(self, backend: Backend) -> None:
        """Enter a new agent stream."""
        key = backend.agent_id
        if key not in self._streams:
            self._streams[key] = []
            self._places[key] = len(self._keys)
            self._keys.append(key)
        self._streams[key].append(backend)

    def remove(self, backend: Backend) -> None:
        """Forget a stream; unknown ones are fine."""
        key = backend.agent_id
        streams = self._streams.get(key, [])
        if backend in streams:
            streams.remove(backend)
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
            streams = self._streams[keys[(start + offset) % len(keys)]]
            for backend in reversed(streams):
                if not backend.draining:
                    return backend
            last_resort = last_resort or streams[-1]
        return last_resort
