"""The loop that turns accepted connections into protocols.

A `Listener` owns one listening socket and each connection on it until the handshake is done and
the connection belongs to its protocol. It never spins and never dies: whatever one peer does, or
when descriptors run out, the next peer is served.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from konnectivity.net import bind, tcp
from konnectivity.net.address import join_host_port
from konnectivity.net.bind import BACKLOG
from konnectivity.net.handshake import HANDSHAKE_TIMEOUT, explain, secure

log = logging.getLogger(__name__)

ACCEPT_BURST = 64  # accepted in one go, then the rest of the process has its turn
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0  # seconds without accepting while descriptors are short


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """What one listener spends on connections that are not yet made."""

    handshakes: int = 512  # at once; further peers wait in the kernel's accept queue
    handshake_timeout: float = HANDSHAKE_TIMEOUT  # seconds
    user_timeout: float = 0  # seconds, see `tcp.tune`
    log_burst: int = 10  # failed handshakes that are logged one by one in each period
    log_period: float = 10.0  # seconds


class AcceptingSocket(Protocol):
    """A listening socket that does not block, or what stands for one."""

    @property
    def family(self) -> int: ...
    def accept(self) -> tuple[socket.socket, object]: ...
    def fileno(self) -> int: ...
    def getsockname(self) -> object: ...
    def close(self) -> None: ...


class Listener:
    """Accepts on `sock`, does TLS where there is a context, and hands over to protocols.

    `context` is asked for each connection, so that new certificates count from the next one on;
    None means plain text, where the loop's own server accepts: it is faster, and there is no
    handshake to watch. `sock` is closed at the end, and a Unix socket's file deleted if it is
    still this socket's, unless the socket is `shared` with other processes. Connections that were
    handed over are not touched. `tell` is given the peer's address and the cause of each handshake
    that failed.
    """

    def __init__(
        self,
        sock: AcceptingSocket,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        *,
        context: Callable[[], ssl.SSLContext] | None = None,
        limits: ListenerLimits | None = None,
        shared: bool = False,
        tell: Callable[[str, str], None] | None = None,
    ) -> None:
        limits = limits or ListenerLimits()
        if isinstance(sock, socket.socket):  # accepted sockets inherit the options
            tcp.tune(sock, user_timeout=limits.user_timeout)
        self._sock = sock
        self._factory = protocol_factory
        self._file = None if shared else bind.file_of(sock)
        self._tls = _TlsAcceptor(sock, protocol_factory, context, limits, tell) if context else None
        self._plain: asyncio.AbstractServer | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        if self._tls is not None:
            self._tls.resume()
        else:
            await self._serve_plain()
        return self

    async def _serve_plain(self) -> None:
        loop = asyncio.get_running_loop()
        # The loop closes its socket when it likes; ours stays, for `address` and the file.
        sock = socket.socket(fileno=os.dup(self._sock.fileno()))
        if sock.family == socket.AF_UNIX:
            # Python 3.13's own loop deletes the file, be it shared or not.
            kept: dict[str, Any] = {"cleanup_socket": False} if _deletes_files(loop) else {}
            server = await loop.create_unix_server(
                self._factory, sock=sock, backlog=BACKLOG, **kept
            )
        else:
            server = await loop.create_server(self._factory, sock=sock, backlog=BACKLOG)
        self._plain = server

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def address(self) -> str:
        """Where this listens: `127.0.0.1:8091`, `[::]:8091`, `/run/konnectivity.sock`."""
        return _name(self._sock.getsockname())

    @property
    def port(self) -> int:
        """The TCP port, 0 for a Unix socket."""
        name = self._sock.getsockname()
        return int(name[1]) if isinstance(name, tuple) else 0

    async def close(self) -> None:
        """Stop accepting, end the handshakes in progress and close the socket. Safe to repeat."""
        if self._closed:
            return
        self._closed = True
        if self._tls is not None:
            self._tls.suspend()
        if self._plain is not None:
            self._plain.close()
        bind.remove_file(self._sock, self._file)
        self._sock.close()
        if self._tls is not None:
            await self._tls.end_handshakes()


class _TlsAcceptor:
    """The accept loop of a TLS listener, and its handshakes."""

    def __init__(
        self,
        sock: AcceptingSocket,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        context: Callable[[], ssl.SSLContext],
        limits: ListenerLimits,
        tell: Callable[[str, str], None] | None = None,
    ) -> None:
        self._sock = sock
        self._factory = protocol_factory
        self._context = context
        self._limits = limits
        self._handshakes: set[asyncio.Task[None]] = set()
        self._faults = _FaultLog(limits.log_burst, limits.log_period)
        self._tell = tell
        self._pause = 0.0  # seconds; above 0 while descriptors are short
        self._resumption: asyncio.TimerHandle | None = None
        self._accepting = False

    def resume(self) -> None:
        """Begin to accept, again or for the first time."""
        self._resumption = None
        closed = self._sock.fileno() < 0  # in the very turn in which a handshake ended
        if not self._accepting and not closed:
            self._accepting = True
            asyncio.get_running_loop().add_reader(self._sock, self._accept)

    def suspend(self) -> None:
        """Accept nothing; the peers wait in the accept queue."""
        if self._resumption is not None:
            self._resumption.cancel()
            self._resumption = None
        if self._accepting:
            self._accepting = False
            asyncio.get_running_loop().remove_reader(self._sock)

    async def end_handshakes(self) -> None:
        """End what is in progress, once accepting is suspended for good."""
        for handshake in self._handshakes:
            handshake.remove_done_callback(self._release)
        # One turn for tasks that have not begun: cancelled before, they would leave their
        # connection to nobody.
        await asyncio.sleep(0)
        for handshake in self._handshakes:
            handshake.cancel()
        if self._handshakes:
            await asyncio.wait(self._handshakes)
        self._faults.flush()

    def _accept(self) -> None:
        for _ in range(ACCEPT_BURST):
            if len(self._handshakes) >= self._limits.handshakes:
                self.suspend()  # the end of a handshake resumes
                return
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                self._wait_for_descriptors(error)
                return
            self._pause = 0.0
            sock.setblocking(False)
            handshake = asyncio.create_task(self._admit(sock, _name(peer)))
            self._handshakes.add(handshake)
            handshake.add_done_callback(self._release)

    def _wait_for_descriptors(self, error: OSError) -> None:
        if not self._pause:
            where = _name(self._sock.getsockname())
            log.error("Cannot accept connections for now address=%s cause=%s", where, error)
        self._pause = min(self._pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
        self.suspend()
        self._resumption = asyncio.get_running_loop().call_later(self._pause, self.resume)

    def _release(self, handshake: asyncio.Task[None]) -> None:
        self._handshakes.discard(handshake)
        if self._resumption is None:
            self.resume()

    async def _admit(self, sock: socket.socket, peer: str) -> None:
        try:
            context = self._context()
        except Exception as error:
            sock.close()
            log.error("Connection refused peer=%s cause=%s", peer, error)  # noqa: TRY400 - one line
            return
        try:
            timeout = self._limits.handshake_timeout
            await secure(self._factory, sock, context, timeout=timeout)
        except OSError as error:  # a TimeoutError and all of TLS's are such
            self._faults.report(peer, cause := explain(error))
            if self._tell is not None:
                self._tell(peer, cause)
        except Exception:
            log.exception("Connection failed peer=%s", peer)


class _FaultLog:
    """Failed handshakes: the first of each period in a line each, the others in a sum."""

    def __init__(self, burst: int, period: float) -> None:
        self._burst = burst
        self._period = period
        self._until = 0.0  # end of the current period, in the loop's time
        self._count = 0

    def report(self, peer: str, cause: str) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._until:
            self.flush()
            self._until = now + self._period
        self._count += 1
        if self._count <= self._burst:
            log.warning("TLS handshake failed peer=%s cause=%s", peer, cause)

    def flush(self) -> None:
        hidden = self._count - self._burst
        if hidden > 0:
            log.warning("TLS handshakes failed that were not logged count=%d", hidden)
        self._count = 0


def _deletes_files(loop: asyncio.AbstractEventLoop) -> bool:
    return sys.version_info >= (3, 13) and isinstance(loop, asyncio.SelectorEventLoop)


def _name(address: object) -> str:
    """A socket's address for people."""
    if isinstance(address, tuple):
        host, port, *_ = address
        return join_host_port(host.removeprefix("::ffff:"), port)
    return str(address)
