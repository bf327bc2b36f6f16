"""Finds agents that died without a word, by the dials that they do not answer (W53).

A connection whose other end is gone looks like one that has nothing to say. An agent that owes
the answer to a dial is asked for a sign of life, and given up when it gives none. One that answers
may take as long for its dial as it likes: the endpoint may be slow.
"""

from __future__ import annotations

import asyncio
from typing import Final

from konnectivity.observe import logs
from konnectivity.tunnel.carrier import Backend
from konnectivity.tunnel.server import ServerTunnel

log = logs.get(__name__)

TICK: Final = 0.5
"""Seconds between looks. A dial that is there at two of them is late: its agent is asked."""
GIVE_UP: Final = 3.0
"""Seconds an agent may owe a sign of life while a dial waits for it."""


class Liveness:
    """The agents that owe answers, on one timer that runs only while there are some."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._oldest: dict[Backend, ServerTunnel | None] = {}
        """The dial that had waited longest at the last look."""
        self._suspects: set[Backend] = set()
        self._timer: asyncio.TimerHandle | None = None

    def expect_answer(self, backend: Backend) -> None:
        """A dial was sent."""
        if backend not in self._oldest:
            self._oldest[backend] = None
            if self._timer is None:
                self._timer = self._loop.call_later(TICK, self._look_around)

    def _look_around(self) -> None:
        for backend in list(self._oldest):
            self._look_at(backend)
        self._timer = self._loop.call_later(TICK, self._look_around) if self._oldest else None

    def _look_at(self, backend: Backend) -> None:
        before, oldest = self._oldest[backend], backend.waiting
        self._oldest[backend] = oldest
        if oldest is None:
            del self._oldest[backend]
            self._suspects.discard(backend)
        elif (backend.silence or 0.0) >= GIVE_UP:
            self._suspect(backend)
        else:
            self._suspects.discard(backend)
            if before is oldest:
                backend.probe()

    def _suspect(self, backend: Backend) -> None:
        """Give it up at the second look: this process may have slept, with an answer to read."""
        if backend not in self._suspects:
            self._suspects.add(backend)
            return
        log.summarised(
            ("silent agent", backend.agent_id),
            "Agent does not answer, its dials go to others",
            agentID=backend.agent_id,
            seconds=round(backend.silence or 0.0, 1),
        )
        backend.give_up("the agent answers neither dials nor pings")
