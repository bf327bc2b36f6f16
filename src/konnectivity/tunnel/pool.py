"""Agents of which any one will do, and a choice among them that costs the same however many.

An agent is one entry, as upstream counts, whatever the number of its streams. It may want several
(`Backend.parallel`); of these the least loaded gets a dial. One more than it wants is the agent's
own duplicate, made while it looked for further servers and closed again at once; or it is a new
one, because an old one died unnoticed (W54). `Backends.add` asks all of them for a sign of life;
those that owe none are preferred, of duplicates the oldest.

Source: upstream `pkg/server/backend_manager.go`, `DefaultBackendStorage`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from konnectivity.tunnel.carrier import Backend

Randrange = Callable[[int], int]
Streams = Collection[Backend]
"""Those of one agent, oldest first."""
Choose = Callable[["Pool", Collection[Backend]], Backend | None]
"""How one of a pool is chosen; the streams of the second argument are out of the question."""


class Pool:
    """Agent streams by agent, agents in order of arrival."""

    __slots__ = ("_ids", "_places", "_streams")

    def __init__(self) -> None:
        self._streams: dict[str, dict[Backend, None]] = {}
        # The ids once more, so that a random one costs the same however many there are.
        self._ids: list[str] = []
        self._places: dict[str, int] = {}

    def add(self, backend: Backend) -> None:
        """Enter a stream; a second time changes nothing."""
        agent_id = backend.agent_id
        if agent_id not in self._streams:
            self._streams[agent_id] = {}
            self._places[agent_id] = len(self._ids)
            self._ids.append(agent_id)
        self._streams[agent_id][backend] = None

    def remove(self, backend: Backend) -> None:
        """Forget a stream; unknown ones are fine."""
        agent_id = backend.agent_id
        streams = self._streams.get(agent_id, {})
        if backend in streams:
            del streams[backend]
            if not streams:
                del self._streams[agent_id]
                self._forget(agent_id)

    def _forget(self, agent_id: str) -> None:
        place, last = self._places.pop(agent_id), self._ids.pop()
        if last != agent_id:
            self._ids[place] = last
            self._places[last] = place

    def __len__(self) -> int:
        """The number of agents, not of streams."""
        return len(self._streams)

    def of(self, agent_id: str) -> Collection[Backend]:
        """The streams of one agent, oldest first."""
        return self._streams.get(agent_id, {})

    def streams(self) -> Iterator[Backend]:
        """All streams, by agent, oldest first."""
        return (backend for streams in self._streams.values() for backend in streams)

    def oldest(self, excluded: Collection[Backend] = ()) -> Backend | None:
        """The agent that came first; the same one until it goes, drains or falls silent."""
        return _first(self._streams.values(), excluded)

    def random(self, randrange: Randrange, excluded: Collection[Backend] = ()) -> Backend | None:
        """A random agent, or the next in a walk from there that is fit for a dial."""
        ids, streams = self._ids, self._streams
        size = len(ids)
        if not size:
            return None
        start = randrange(size)
        first = streams[ids[start]]
        if len(first) == 1:
            for backend in first:  # nearly always fit: no walk is set up
                if backend not in excluded and not _unfitness(backend):
                    return backend
        around = (streams[ids[(start + step) % size]] for step in range(size))
        return _first(around, excluded)

    def lighter(self, randrange: Randrange, excluded: Collection[Backend] = ()) -> Backend | None:
        """The less loaded of two random agents, which is nearly as good as the least of all."""
        one = self.random(randrange, excluded)
        if one is None or len(self._ids) == 1:
            return one
        other = self.random(randrange, (*excluded, *self._streams[one.agent_id]))
        if other is None:
            return one
        return min(one, other, key=lambda backend: (_unfitness(backend), self._load(backend)))

    def _load(self, backend: Backend) -> int:
        """What the agent carries on all its streams."""
        return sum(each.load for each in self._streams[backend.agent_id])


def _first(agents: Iterable[Streams], excluded: Collection[Backend]) -> Backend | None:
    """The best stream of the first agent that has one fit for a dial, else the least unfit."""
    best: Backend | None = None
    least = 4
    for streams in agents:
        backend = _best(streams, excluded)
        if backend is None:
            continue
        unfitness = _unfitness(backend)
        if not unfitness:
            return backend
        if unfitness < least:
            best, least = backend, unfitness
    return best


def _best(streams: Streams, excluded: Collection[Backend]) -> Backend | None:
    """Of one agent the fittest stream: of parallels the least loaded, of duplicates the oldest."""
    if len(streams) == 1:
        (backend,) = streams
        return None if backend in excluded else backend
    allowed = [backend for backend in streams if backend not in excluded]
    return min(allowed, key=_rank, default=None)


def _rank(backend: Backend) -> tuple[int, int]:
    return _unfitness(backend), backend.load if backend.parallel > 1 else 0


def _unfitness(backend: Backend) -> int:
    """0: none; 1: it drains; 2, 3: a sign of life is awaited."""
    return 2 * (backend.silence is not None) + backend.draining
