"""Holds an endpoint's first bytes until the frontend has surely read that the tunnel is open.

kube-apiserver's HTTP-CONNECT client fails when even one byte arrives together with the 200, and
konnectivity-client drops DATA that follows DIAL_RSP at once (W3, W4).
Neither needs more than a moment, and neither needs any once the frontend itself has sent something.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import termios
from collections.abc import Callable
from typing import Final

PAUSE: Final = 0.02
"""Seconds between DIAL_RSP and the first byte: what upstream's client needs to note its tunnel.

On an idle machine it lost none after 2 ms; on a busy one some after 10 ms, and none after 20.
"""
LOOK: Final = 0.005
"""Seconds between the 200 and the first look whether the client has read it, and between looks."""
LONGEST: Final = 1.0
"""Seconds after which the bytes go out whatever the socket says."""


class FirstBytes:
    """Between a tunnel's answer and its frontend. `release` writes what was held."""

    __slots__ = (
        "_end",
        "_held",
        "_loop",
        "_pause",
        "_release",
        "_since",
        "_timer",
        "_transport",
        "open",
    )

    def __init__(
        self, release: Callable[[bytes], None], *, transport: asyncio.Transport | None = None
    ) -> None:
        self.open = False
        """Bytes may pass at once."""
        self._release = release
        self._transport = transport
        self._pause = PAUSE if transport is None else LOOK
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._held: list[bytes] = []
        self._end: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def answered(self) -> None:
        """The frontend was just told that the tunnel is open."""
        self._since = self._loop.time()

    def hold(self, data: bytes | memoryview) -> None:
        """Keep `data`, and see to it that it goes out soon."""
        self._held.append(bytes(data))
        self._start_timer()

    def finish(self, end: Callable[[], None]) -> None:
        """Call `end` behind the held bytes; the news of the end comes too early like they."""
        if self.open:
            end()
        else:
            self._end = end
            self._start_timer()

    def _start_timer(self) -> None:
        if self._timer is None:
            due = max(0.0, self._since + self._pause - self._loop.time())
            self._timer = self._loop.call_later(due, self._try_release)

    @property
    def held(self) -> int:
        """Bytes held."""
        return sum(map(len, self._held))

    def _try_release(self) -> None:
        self._timer = None
        waited = self._loop.time() - self._since
        if waited < LONGEST and _unread(self._transport):
            self._timer = self._loop.call_later(LOOK, self._try_release)
        else:
            self.let_pass()

    def let_pass(self) -> None:
        """The frontend spoke, or time is up: write what is held, and hold no more."""
        self.open = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, []
        if held:
            self._release(b"".join(held))
        self._release = _nothing
        end, self._end = self._end, None
        if end is not None:
            end()

    def drop(self) -> None:
        """The frontend is gone, or closing: it wants none of it."""
        self.open = True
        self._held = []
        self._release = _nothing
        self._end = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _nothing(_data: bytes) -> None:
    """Stands for the frontend once it is not needed: a cycle would wait for the collector."""


def _unread(transport: asyncio.Transport | None) -> bool:
    """Whether the peer of a Unix socket has yet to read what was written to it.

    For TCP the kernel knows only what the other kernel has, which says nothing.
    """
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or sock.family != socket.AF_UNIX:
        return False
    try:
        unread = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:
        return False
    return int.from_bytes(unread, "little", signed=True) > 0
