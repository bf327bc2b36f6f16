"""Notices http-connect clients that leave while they are not read.

A paused socket tells the loop nothing, so the end of a client whose endpoint does not read would
be seen only when the endpoint reads again. One slow timer asks the kernel about all of them.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Mapping
from typing import Final, Protocol

INTERVAL: Final = 2.0
"""Seconds between looks."""
_GONE: Final = select.POLLRDHUP | select.POLLHUP | select.POLLERR | select.POLLNVAL


class Client(Protocol):
    """A client that is not read."""

    def descriptor(self) -> int:
        """Its socket's, -1 for one that is closed."""

    def departed(self) -> None:
        """It has sent its last byte: what is left of it may be read."""


class Departures:
    """Looks after the clients that are paused."""

    def __init__(self, *, interval: float = INTERVAL) -> None:
        self.paused: set[Client] = set()
        """Add a client when it is paused, discard it when it is read again or gone."""
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, client: Client) -> None:
        """A client is paused."""
        self.paused.add(client)
        if self._timer is None:
            self._timer = self._loop.call_later(self._interval, self._look)

    def _look(self) -> None:
        self._timer = None
        watched = {client.descriptor(): client for client in self.paused}
        watched.pop(-1, None)
        for client in _gone(watched):
            self.paused.discard(client)
            client.departed()
        if self.paused:
            self._timer = self._loop.call_later(self._interval, self._look)

    def close(self) -> None:
        """Look no more."""
        self.paused.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _gone(clients: Mapping[int, Client]) -> list[Client]:
    poll = select.poll()
    for descriptor in clients:
        poll.register(descriptor, select.POLLRDHUP)
    return [clients[descriptor] for descriptor, event in poll.poll(0) if event & _GONE]
