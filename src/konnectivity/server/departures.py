"""Notices http-connect clients that leave while they are not read.

A paused socket tells the loop nothing, so the end of a client whose endpoint does not read would
be seen only when the endpoint reads again; and one that has sent its last byte is read no more. One
slow timer asks the kernel about all of them.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Collection
from typing import Final, Protocol

INTERVAL: Final = 2.0
"""Seconds between looks."""
_CLOSED: Final = select.POLLHUP | select.POLLERR | select.POLLNVAL
_GONE: Final = _CLOSED | select.POLLRDHUP


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
        self._half_closed: set[Client] = set()
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, client: Client) -> None:
        """A client is paused."""
        self.paused.add(client)
        self._start()

    def watch_half(self, client: Client) -> None:
        """A client of a Unix socket sends no more, and may still read."""
        self._half_closed.add(client)
        self._start()

    def forget(self, client: Client) -> None:
        """A client is gone."""
        self.paused.discard(client)
        self._half_closed.discard(client)

    def _start(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(self._interval, self._look)

    def _look(self) -> None:
        self._timer = None
        for clients, signs in ((self.paused, _GONE), (self._half_closed, _CLOSED)):
            for client in _departed(clients, signs):
                self.forget(client)
                client.departed()
        if self.paused or self._half_closed:
            self._timer = self._loop.call_later(self._interval, self._look)

    def close(self) -> None:
        """Look no more."""
        self.paused.clear()
        self._half_closed.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def has_closed(descriptor: int) -> bool:
    """Whether the client of a Unix socket that has sent its last byte has closed it altogether."""
    poll = select.poll()
    poll.register(descriptor, 0)  # POLLHUP and POLLERR are always told
    return bool(poll.poll(0))


def _departed(watched: Collection[Client], signs: int) -> list[Client]:
    clients = {client.descriptor(): client for client in watched}
    clients.pop(-1, None)
    poll = select.poll()
    for descriptor in clients:
        poll.register(descriptor, select.POLLRDHUP)
    return [clients[descriptor] for descriptor, event in poll.poll(0) if event & signs]
