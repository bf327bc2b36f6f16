"""How far a time server's clock is from ours: one question of SNTP.

Source: RFC 4330, 5 (client operations); RFC 5905, 7.3 (packet).
"""

from __future__ import annotations

import asyncio
import struct
import time
from typing import Final

from konnectivity.errors import LinkError
from konnectivity.net.address import join_host_port

PORT: Final = 123
EPOCH: Final = 2_208_988_800
"""Seconds from 1900, where NTP counts from, to 1970."""
QUESTION: Final = bytes([0x23]) + bytes(47)
"""Version 4, mode 3 (client)."""
_ANSWER: Final = struct.Struct("!B39x2I")  # leap, version and mode; transmit timestamp


async def clock_skew(host: str, port: int = PORT, *, limit: float = 5.0) -> float:
    """Seconds by which the time server is ahead of this machine, give or take half the way there.

    Raises:
        LinkError: it gives no time.
    """
    loop = asyncio.get_running_loop()
    where = f"time server {join_host_port(host, port)}"
    asking = _Asking()
    try:
        async with asyncio.timeout(limit):
            transport, _ = await loop.create_datagram_endpoint(
                lambda: asking, remote_addr=(host, port)
            )
            try:
                sent = time.time()
                transport.sendto(QUESTION)
                answer = await asking.answer
                received = time.time()
            finally:
                transport.abort()
    except TimeoutError as error:
        raise LinkError("clock", f"{where}: no answer within {limit:g} s") from error
    except OSError as error:
        raise LinkError("clock", f"{where}: {error.strerror or error}") from error
    if len(answer) < _ANSWER.size or answer[0] & 7 not in (4, 5):
        raise LinkError("clock", f"{where}: what it answers is not NTP")
    _, whole, fraction = _ANSWER.unpack_from(answer)
    return float(whole - EPOCH + fraction / 2**32 - (sent + received) / 2)


class _Asking(asyncio.DatagramProtocol):
    """Waits for one datagram."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, address: object) -> None:
        if not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
