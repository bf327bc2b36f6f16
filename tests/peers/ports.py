"""Free TCP ports below those that the kernel gives to outgoing connections."""

from __future__ import annotations

import itertools
import os
import socket

FIRST, PER_WORKER, WORKERS = 20_000, 1_000, 12

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
# Test runs side by side start at different ports.
_START = os.getpid() * 7 % PER_WORKER
_OFFSETS = itertools.cycle(range(PER_WORKER))


def free_port() -> int:
    """A port on which nobody listens, on any address; not given out twice soon."""
    for offset in itertools.islice(_OFFSETS, PER_WORKER):
        port = FIRST + _WORKER * PER_WORKER + (_START + offset) % PER_WORKER
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
        return port
    raise RuntimeError("no free port left")
