"""Free TCP ports, below those that the kernel gives to outgoing connections.

Each process has a block of its own for as long as it lives, so that test runs and workers side by
side do not get in each other's way.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
import tempfile
from pathlib import Path

FIRST, BLOCK, BLOCKS = 20_000, 200, 60


def _own_block() -> int:
    """The first port of a block that no other living process has."""
    for number in range(BLOCKS):
        path = Path(tempfile.gettempdir()) / f"konnectivity-test-ports-{number}.lock"
        try:
            lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        except OSError:
            continue  # another user's
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
        else:
            return FIRST + number * BLOCK  # the lock ends with the process
    raise RuntimeError("no free block of ports left")


_PORTS = itertools.cycle(range(start := _own_block(), start + BLOCK))


def free_port() -> int:
    """A port on which nobody listens, on any address; not given out twice soon."""
    for port in itertools.islice(_PORTS, BLOCK):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
        return port
    raise RuntimeError("no free port left")
