"""The event loop alone in the place of a pair: what a program on uvloop cannot do without.

One process takes a CONNECT at a Unix socket, connects to the endpoint and passes bytes on. No TLS,
no agent, nothing multiplexed, no limits, no counts; of HTTP, one line of the request.

    python -m bench.bare SOCKET
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import uvloop

from bench.certificate import Certificates
from bench.pair import Pair, await_ready, listens, started

NAME = "bare"


@contextmanager
def serving(certificates: Certificates) -> Iterator[Pair]:
    """Start it, hand it out once it listens, and stop it; no certificate is used.

    Raises:
        BenchError: it ended or is not ready; with the last line of its log.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        uds, log = Path(directory) / "frontend.sock", Path(directory) / "bare.log"
        with started((sys.executable, "-m", "bench.bare", str(uds)), log) as process:
            await_ready(partial(listens, uds), process, log, NAME)
            yield Pair(NAME, uds, process.pid, 0)


class _End(asyncio.Protocol):
    """One end of a connection; what comes goes to the other, at the other's pace."""

    def __init__(self, other: _End | None = None) -> None:
        self.transport: asyncio.Transport | None = None
        self.other = other

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.other is not None:
            self.other.reached(self)

    def reached(self, endpoint: _End) -> None:
        self.other = endpoint
        if self.transport is not None:
            self.transport.write(b"HTTP/1.1 200 Connection Established\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._connect(data)
        elif self.other.transport is not None:
            self.other.transport.write(data)

    def _connect(self, request: bytes) -> None:
        host, _, port = request.split()[1].decode().rpartition(":")
        loop = asyncio.get_running_loop()
        dial = loop.create_connection(lambda: _End(self), host.strip("[]"), int(port))
        self.dial = loop.create_task(dial)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


async def _serve(path: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(_End, path, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
