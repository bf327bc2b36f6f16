"""The options that every TCP connection here has, accepted or dialled."""

from __future__ import annotations

import asyncio
import socket
import struct

KEEPALIVE_IDLE = 15  # seconds of silence before the first probe
KEEPALIVE_INTERVAL = 15  # seconds between probes
KEEPALIVE_PROBES = 9  # unanswered probes until the connection counts as lost
UNIX = "unix socket"
"""What a peer is called that has no address."""


def tune(sock: socket.socket, *, user_timeout: float = 0) -> None:
    """Turn Nagle's algorithm off and keepalive probes on; a Unix socket is left as it is.

    `user_timeout`, in seconds, ends the connection when sent data stays unacknowledged for so
    long; 0 leaves that to the kernel (15 minutes and more).

    Source: the defaults of Go's `net` package; RFC 5482 for the user timeout.
    """
    if sock.family != socket.AF_UNIX:
        _tune(sock, user_timeout)


def tune_transport(transport: asyncio.BaseTransport) -> None:
    """As `tune`, for a connection that the loop has made.

    uvloop's stand-in for a socket makes and drops a real one for each option; here one is enough.
    """
    descriptor = transport.get_extra_info("socket").fileno()
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor)
    try:
        _tune(sock, 0)
    finally:
        sock.detach()


def reset(transport: asyncio.Transport) -> None:
    """Close with RST, so that the peer does not take a cut for an end."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX and not transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def is_connected_to_itself(transport: asyncio.BaseTransport, address: str) -> bool:
    """Whether both ends of the connection to `address` are the same socket.

    That is TCP's simultaneous open: nobody listens on a port from the range of local ports, and
    the kernel happens to choose that very port as ours. What is sent then comes back.

    Source: Go's `selfConnect`.
    """
    own = transport.get_extra_info("sockname")
    if own is None or not address.endswith(f":{own[1]}"):
        return False  # nearly always: the second question is not free
    return bool(own == transport.get_extra_info("peername"))


def peer_name(transport: asyncio.BaseTransport) -> str:
    """The other end's address for people."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_UNIX:
        return UNIX  # the question for an address is not free, and would have no answer
    peer = transport.get_extra_info("peername")
    if isinstance(peer, tuple):
        host, port = peer[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return UNIX


def _tune(sock: socket.socket, user_timeout: float) -> None:
    tcp = socket.IPPROTO_TCP
    sock.setsockopt(tcp, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(tcp, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
    sock.setsockopt(tcp, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
    sock.setsockopt(tcp, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    if user_timeout:
        sock.setsockopt(tcp, socket.TCP_USER_TIMEOUT, int(user_timeout * 1000))
