"""A new agent is ready when it has been on all servers once; after that, any server is enough.

So a rollout, which waits until new agents are ready, takes no agent away before the new one can do
all of its work. The wait is limited: an agent that is started anew while a server is down for long
is held ready too, for evictions elsewhere wait for it.

differs: upstream's agent is ready with its first server.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

from konnectivity.observe import logs

log = logs.get(__name__)

AGAIN: Final = 60.0
"""Seconds until the log says again what is lacking."""


class Mesh(Protocol):
    """What is known of an agent's connections."""

    @property
    def reached(self) -> int: ...

    @property
    def wanted(self) -> int: ...


class Latch:
    """Closed until the agent has been on all servers, for `wait` seconds at most; 0: never closed.

    `known` tells whether the number of servers is known at all. Look as often as it may change.
    """

    def __init__(self, mesh: Mesh, *, wait: float) -> None:
        self.known: Callable[[], bool] = lambda: True
        self._mesh = mesh
        self._wait = wait
        self._open = not wait
        self._since = time.monotonic()
        self._told = ("", 0.0)

    def look(self) -> str:
        """What is lacking, if the latch is closed."""
        if self._open:
            return ""
        reached, wanted = self._mesh.reached, self._mesh.wanted
        now = time.monotonic()
        self._open = bool(reached) and self.known() and reached >= wanted
        if self._open:
            log.info("On all servers", servers=reached)
            return ""
        lacking = f"connected to {reached} of {wanted} servers"
        if not self.known():
            lacking = "the servers' leases are not known yet"
        if reached and now - self._since >= self._wait:
            self._open = True
            log.warning("Ready without having been on all servers", lacking=lacking)
            return ""
        self._tell(lacking, now)
        return lacking

    def _tell(self, lacking: str, now: float) -> None:
        text, at = self._told
        if text != lacking or now - at >= AGAIN:
            self._told = (lacking, now)
            log.info("Not on all servers yet", lacking=lacking)
