"""Sockets that tests hold both ends of."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator


def connected_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    one.setblocking(False)
    other.setblocking(False)
    return one, other


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@contextlib.contextmanager
def open_as(number: int) -> Iterator[socket.socket]:
    """A new socket whose descriptor has this number, which must be free."""
    with contextlib.ExitStack() as stack:
        while True:
            sock = stack.enter_context(socket.socket())
            if sock.fileno() >= number:
                break
        assert sock.fileno() == number, "still open"
        yield sock
