"""The pieces of work that are counted, and the yardstick that they are divided by.

Each is a function that prepares, and returns what does the work once.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from bench.micro.line import REQUEST, Line, exchange, joined
from konnectivity.tunnel.budget import Budget, TunnelLimits
from konnectivity.tunnel.routing import Backends
from konnectivity.tunnel.server_packets import PacketBackend
from konnectivity.wire import grpc, http1, packet
from konnectivity.wire.packet import Packet

Step = Callable[[], object]

SMALL = bytes(64)
LARGE = bytes(64 << 10)
AGENTS = 1000
HEAD = (
    b"CONNECT 10.0.0.1:10250 HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: Go-http-client/1.1\r\n\r\n"
)


class _Entry:
    """What the yardstick makes, reads and changes."""

    __slots__ = ("count", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0

    def add(self, count: int) -> int:
        self.count += count
        return self.count


def yardstick() -> Step:
    """What programs in Python mostly do. To change it is to record all ratios anew."""

    def step() -> int:
        entries: dict[str, _Entry] = {}
        total = 0
        for number in range(32):
            name = "abcdefgh"[number & 7]
            entry = entries.get(name)
            if entry is None:
                entry = entries[name] = _Entry(name)
            total += entry.add(number)
            if isinstance(entry.name, str) and total % 3 == 0:
                total ^= len((entry.name, number, [total]))
        return total + len(b"".join([b"head", bytes(4), SMALL[:16]]))

    return step


def packets() -> Step:
    """A dial's two packets, written and read."""
    request = Packet(packet.DIAL_REQ, protocol="tcp", address="10.0.0.1:10250", random=1 << 26)
    response = Packet(packet.DIAL_RSP, random=1 << 26, connect_id=7)

    def step() -> None:
        packet.decode(packet.encode(request))
        packet.decode(packet.encode(response))

    return step


def frames(size: int) -> Step:
    """A message of so many bytes on one HTTP/2 stream, and the credit back."""
    one, other = joined()
    message = grpc.message(bytes(size))

    def step() -> None:
        one.send(message)
        exchange(one, other)

    return step


def calls() -> Step:
    """A call: request, response, trailers."""
    server, agent = joined()

    def step() -> None:
        stream_id = agent.core.open_stream(REQUEST)
        exchange(server, agent)
        server.core.send_headers(stream_id, grpc.response_headers())
        server.core.end_stream(stream_id, grpc.trailers(grpc.OK))
        agent.core.end_stream(stream_id)
        exchange(server, agent)

    return step


def dials() -> Step:
    """A tunnel, opened and closed."""
    line = Line()

    def step() -> None:
        line.open().close()
        line.carry()

    return step


def bytes_through_tunnel(up: bytes, down: bytes) -> Step:
    """Bytes of the frontend, then bytes of the endpoint."""
    line = Line()
    tunnel = line.open()
    endpoint = line.endpoint
    assert endpoint is not None

    def step() -> None:
        if up:
            tunnel.send(up)
            line.carry()
        endpoint.endpoint_data(memoryview(down))
        line.carry()

    return step


def heads() -> Step:
    """The head of a CONNECT, read."""
    return lambda: http1.parse_request(HEAD)


def choices() -> Step:
    """One of a thousand agents, chosen."""
    chance = random.Random(1)  # noqa: S311 - the same in each run
    backends = Backends(chance.randrange)
    limits = TunnelLimits()
    end, _ = joined()
    for number in range(AGENTS):
        backend = PacketBackend(
            end,
            agent_id=f"agent-{number}",
            credit=True,
            limits=limits,
            budget=Budget(limits.process),
        )
        backends.add(backend)
    return lambda: backends.choose("10.0.0.1:10250")


YARDSTICK = "yardstick"
WORK: dict[str, tuple[int, Callable[[], Step]]] = {
    YARDSTICK: (1500, yardstick),
    "packets": (2000, packets),
    "frames-64": (1500, lambda: frames(64)),
    "frames-65536": (500, lambda: frames(64 << 10)),
    "call": (300, calls),
    "dial": (300, dials),
    "echo": (400, lambda: bytes_through_tunnel(SMALL, SMALL)),
    "download": (400, lambda: bytes_through_tunnel(b"", LARGE)),
    "connect-head": (3000, heads),
    "choice": (6000, choices),
}
"""By name: how often it is done to be counted, about a hundred million instructions, and what."""
