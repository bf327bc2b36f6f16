"""Endpoints: what the agent dials in the cluster, and the sockets to them.

Closing is never abrupt for what the frontend sent (W1): the socket is flushed, its write side
shut, and what the endpoint still says is read and dropped for a moment, because a close with
unread bytes is a reset that destroys bytes on their way.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import sys
import termios
from typing import ClassVar, Final, cast

from konnectivity.agent.counters import AgentCounters
from konnectivity.errors import DialError
from konnectivity.net import tcp
from konnectivity.net.connect import DIAL_TIMEOUT, Gate, open_endpoint
from konnectivity.net.deadlines import Deadline, Deadlines
from konnectivity.observe import access_log, logs
from konnectivity.observe.events import Events
from konnectivity.observe.journal import Journal
from konnectivity.tunnel.agent import AgentTunnel
from konnectivity.tunnel.reason import Reason

log = logs.get(__name__)

FLUSH_LIMIT: Final = 30.0
"""Seconds a closed tunnel's last bytes may take to reach a slow endpoint."""
LINGER: Final = 0.5
"""Seconds between our end of the stream and the close, for an endpoint that does not close."""
SETTLED: Final = 5.0
"""Seconds after which an endpoint's connection gets its keepalive probes: most do not live to
need them, and setting them is a twentieth of what a dial costs."""
READ_SIZE: Final = 128 << 10
"""Bytes read at once (upstream: 4 KiB, W62)."""
WRITE_HIGH: Final = 256 << 10
TOO_MANY: Final = "the agent has reached its limit of tunnels"


class EndpointSocket(asyncio.BufferedProtocol):
    """One connected endpoint: the `Endpoint` of one `AgentTunnel`.

    All endpoints read into one buffer: the loop fills and hands over without a pause between, and
    what is kept is copied into the packet it goes out with.
    """

    _buffer: ClassVar = memoryview(bytearray(READ_SIZE))

    def __init__(self, tunnel: AgentTunnel, owner: Endpoints) -> None:
        self.slow = False
        self._tunnel: AgentTunnel | None = tunnel
        self._owner = owner
        self._flushed = False
        self._written = False
        self._since = 0.0
        self.transport: asyncio.Transport | None = None
        self._settling: Deadline | None = None
        self._timer: Deadline | None = None
        self._checks = 0

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The endpoint answered: the tunnel is up, unless nobody wants it any more."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH)
        self._owner.sockets.add(self)
        self._settling = self._owner.settles.start(self._settle)
        tunnel = self._tunnel
        if tunnel is None:
            self.transport.abort()
        elif tcp.is_connected_to_itself(transport, tunnel.address):
            text = f"dial {tunnel.protocol} {tunnel.address}: connect: connection refused"
            tunnel.failed(text)
            self.abort()
        elif tunnel.connected(self):
            self._since = tunnel.since = self._owner.clock()
        else:
            self.transport.abort()

    def _settle(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            tcp.tune_transport(self.transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the loop reads to."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes of the endpoint; after the end they are dropped."""
        if self._tunnel is not None:
            self._tunnel.endpoint_data(self._buffer[:nbytes])

    def eof_received(self) -> bool:
        """The endpoint ended its side; where nothing can say so, that ends the tunnel."""
        if self._tunnel is not None and self._tunnel.endpoint_ended():
            return True
        self._end(Reason.ENDPOINT_CLOSE)
        return False

    def pause_writing(self) -> None:
        """The endpoint reads slowly."""
        self.slow = True

    def resume_writing(self) -> None:
        """The endpoint took what waited."""
        self.slow = False
        if self._tunnel is not None:
            self._tunnel.caught_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        self._owner.sockets.discard(self)
        if self._settling is not None:
            self._settling.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._end(Reason.ENDPOINT_RESET if exc else Reason.ENDPOINT_CLOSE)

    def _end(self, reason: Reason) -> None:
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            tunnel.endpoint_closed(reason)
            self._count(tunnel)

    def _let_go(self) -> None:
        """The tunnel ended by itself."""
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            self._count(tunnel)

    def _count(self, tunnel: AgentTunnel) -> None:
        if self._since:
            self._owner.ended(tunnel, since=self._since)

    # Endpoint (tunnel/agent.py)

    @property
    def unsent(self) -> int:
        """Bytes the endpoint has not taken."""
        return self.transport.get_write_buffer_size() if self.transport is not None else 0

    def write(self, data: bytes | memoryview) -> None:
        """Bytes of the frontend."""
        if self.transport is not None and not self.transport.is_closing():
            self._written = True
            self.transport.write(data)

    def pause_reading(self) -> None:
        """Let the kernel push back on the endpoint."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def end_writing(self) -> None:
        """Shut the write side behind all bytes."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write_eof()

    def finish(self) -> None:
        """Flush, shut the write side, then close, all within `FLUSH_LIMIT`."""
        self._let_go()
        transport = self.transport
        if transport is None or transport.is_closing() or self._timer is not None:
            return
        if not self._written or (not self.unsent and _all_acknowledged(transport)):
            # Not at once: a dial that came in the same packet is more urgent than a close.
            asyncio.get_running_loop().call_soon(transport.close)
            return
        self.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()
        self._timer = self._owner.lingers.start(self._linger)

    def _linger(self) -> None:
        """Close one interval after the flush; give up after `FLUSH_LIMIT`."""
        self._checks += 1
        if self._flushed:
            self._close()
            return
        self._flushed = not self.unsent
        if not self._flushed and self._checks * LINGER >= FLUSH_LIMIT:
            log.summarised("unflushed", "Endpoint did not take its last bytes", bytes=self.unsent)
            self.abort()
        else:
            self._timer = self._owner.lingers.start(self._linger)

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close now, with a reset."""
        self._let_go()
        if self.transport is not None:
            tcp.reset(self.transport)


def _all_acknowledged(transport: asyncio.Transport) -> bool:
    """Whether the endpoint's kernel has every byte, so that even a reset could destroy none."""
    sock = transport.get_extra_info("socket")
    try:
        unacknowledged = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:
        return False
    return not any(unacknowledged)


class Endpoints:
    """Dials endpoints for all tunnels of the agent, and owns the dials and the sockets.

    `gate` says where they may lead, None: anywhere. `max_tunnels` counts dials and sockets, 0: any
    number.
    """

    def __init__(
        self, counters: AgentCounters, *, gate: Gate | None = None, max_tunnels: int = 0
    ) -> None:
        self._counters = counters
        self._gate = gate
        self._max_tunnels = max_tunnels or sys.maxsize
        self._loop = asyncio.get_running_loop()
        self.clock = self._loop.time
        self.events = Events()
        self.journal = Journal(self.events, peers="server")
        self._numbers = itertools.count(1)
        self.access_log = False
        """Whether each tunnel gets a line when it ends (`--access-log`)."""
        self._dials: set[asyncio.Task[None]] = set()
        self.sockets: set[EndpointSocket] = set()
        self.lingers = Deadlines(LINGER)
        self.settles = Deadlines(SETTLED)
        self._limits = Deadlines(DIAL_TIMEOUT)

    def dial(self, tunnel: AgentTunnel) -> None:
        """Reach the tunnel's address; the tunnel is told of the outcome."""
        tunnel.number, tunnel.since = next(self._numbers), self.clock()
        if len(self.sockets) + len(self._dials) >= self._max_tunnels:
            self._refuse(tunnel)
            return
        task = self._loop.create_task(self._dial(tunnel))
        tunnel.dialing = task
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    def _refuse(self, tunnel: AgentTunnel) -> None:
        """Too many tunnels; sockets that are still flushed for closed ones count, too."""
        limit = self._max_tunnels
        self._counters.dial_failures["limit"] += 1
        self._note(tunnel, "limit", TOO_MANY)
        log.summarised("max-tunnels", "Too many tunnels for a dial (--max-tunnels)", limit=limit)
        tunnel.failed(f"dial {tunnel.protocol} {tunnel.address}: {TOO_MANY} ({limit})")

    async def _dial(self, tunnel: AgentTunnel) -> None:
        started = self._loop.time()
        try:
            await open_endpoint(
                tunnel.protocol,
                tunnel.address,
                lambda: EndpointSocket(tunnel, self),
                limits=self._limits,
                gate=self._gate,
            )
        except DialError as error:
            self._counters.dial_failures[error.reason] += 1
            if error.reason == "policy":
                log.summarised("policy", "Dial refused", address=tunnel.address, error=str(error))
            log.v(1, "Endpoint dial failed", address=tunnel.address, error=str(error))
            self._note(tunnel, error.reason, str(error))
            tunnel.failed(str(error))
        except OSError as error:
            self._counters.dial_failures["unknown"] += 1
            self._note(tunnel, "unknown", str(error))
            tunnel.failed(f"dial {tunnel.protocol}: {error.strerror or error}")
        else:
            seconds = self._loop.time() - started
            self._counters.dial_seconds.observe(seconds)
            self.journal.dialed(tunnel.carrier, tunnel.address, seconds=seconds)

    def _note(self, tunnel: AgentTunnel, failure: str, error: str) -> None:
        """Remember a dial that failed."""
        self.journal.dialed(
            tunnel.carrier,
            tunnel.address,
            seconds=self.clock() - tunnel.since,
            failure=failure,
            error=error,
        )

    def ended(self, tunnel: AgentTunnel, *, since: float) -> None:
        """A tunnel is over that had been open `since` then."""
        seconds = self.clock() - since
        self._counters.tunnel_ended(tunnel, seconds)
        self.journal.ended(
            tunnel.carrier,
            tunnel.address,
            reason=tunnel.reason.value if tunnel.reason else "?",
            error="",
            seconds=seconds,
            traffic=tunnel.traffic,
        )
        if self.access_log:
            access_log.endpoint_ended(tunnel, seconds)

    async def close(self) -> None:
        """Cancel all dials and drop all sockets."""
        for task in list(self._dials):
            task.cancel()
        if self._dials:
            await asyncio.gather(*self._dials, return_exceptions=True)
        self.lingers.close()
        self.settles.close()
        self._limits.close()
        for sock in list(self.sockets):
            sock.abort()
