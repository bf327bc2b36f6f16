"""Accepted connections go from one process to another: over a Unix socket, as descriptors.

The kernel would spread connections by chance. An agent needs one to each worker, and looks for
those it lacks by connecting again: so whoever accepts gives each connection of a host to the next
worker, and after as many tries as there are workers the agent has met them all.
"""

from __future__ import annotations

import random
import socket
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Final

HOSTS: Final = 100_000
"""Hosts of which is known which worker comes next; about 150 bytes each."""


def pair() -> tuple[socket.socket, socket.socket]:
    """The giving and the taking end. Each message is one connection."""
    giving, taking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    giving.setblocking(False)
    taking.setblocking(False)
    return giving, taking


class HandedSocket:
    """The taking end, as a listening socket: `accept` gives what another process accepted.

    `listening` is the socket at which that process listens; it is asked for its address only.
    """

    def __init__(self, taking: socket.socket, listening: socket.socket) -> None:
        self.family = listening.family
        self._taking = taking
        self._name = listening.getsockname()

    def accept(self) -> tuple[socket.socket, object]:
        """The next connection and its peer's address.

        Raises:
            BlockingIOError: there is none now.
            ConnectionAbortedError: there was one, and its peer has gone.
        """
        _, descriptors, _, _ = socket.recv_fds(self._taking, 1, 1)
        if not descriptors:
            raise BlockingIOError
        sock = socket.socket(fileno=descriptors[0])
        try:
            return sock, sock.getpeername()
        except OSError as error:
            sock.close()
            raise ConnectionAbortedError(str(error)) from error

    def fileno(self) -> int:
        """What becomes readable with a connection; -1 once closed."""
        return self._taking.fileno()

    def getsockname(self) -> object:
        """The address that the peers have connected to."""
        return self._name

    def close(self) -> None:
        """Take no more; what was given already waits for the next process at this end."""
        self._taking.close()


class Rotation:
    """Which worker gets a connection: for each host one after the other."""

    def __init__(self, givings: Sequence[socket.socket]) -> None:
        self._givings = givings
        self._next: OrderedDict[str, int] = OrderedDict()
        self._first: int | None = None

    def prefer(self, number: int) -> None:
        """Begin anew with this worker for every host: it has just come back without agents."""
        self._next.clear()
        self._first = number

    def give(self, sock: socket.socket, host: str, *, among: Collection[int]) -> int | None:
        """Give `sock` to the next worker of `among`; its number, None if none can take it."""
        count = len(self._givings)
        start = self._next.pop(host, -1)
        if start < 0:
            # At random, so that the first ones are spread.
            start = random.randrange(count) if self._first is None else self._first  # noqa: S311
        for step in range(count):
            number = (start + step) % count
            if number not in among:
                continue
            try:
                socket.send_fds(self._givings[number], [b"c"], [sock.fileno()])
            except OSError:  # its queue is full, or nobody is there
                continue
            self._remember(host, (number + 1) % count)
            return number
        self._remember(host, start)
        return None

    def _remember(self, host: str, number: int) -> None:
        self._next[host] = number
        if len(self._next) > HOSTS:
            self._next.popitem(last=False)
