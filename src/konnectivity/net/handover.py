"""A connected socket becomes a transport, and has one owner at every moment.

uvloop's `create_connection(sock=...)` lets go of the socket object only after the transport has
begun to work. A peer that resets in between makes the transport close the descriptor and the
object close it again, which by then may be another connection's. `connect_accepted_socket` lets go
at once, and cares as little as the kernel who accepted whom. (`handshake.secure` does what is left
to do for TLS, which in that function is the server's.)
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TypeVar

P = TypeVar("P", bound=asyncio.BaseProtocol)


async def transport_on(
    sock: socket.socket, factory: Callable[[], P]
) -> tuple[asyncio.Transport, P]:
    """A transport for the protocol that `factory` makes; from now on it owns `sock`."""
    protocol = factory()
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, sock)
    return transport, protocol
