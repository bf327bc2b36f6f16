"""Programs in states that would be tedious to bring about, told through the real admin API."""

from __future__ import annotations

import math
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from tests.peers.admin import serving

from konnectivity.observe.api import api
from konnectivity.observe.events import Events
from konnectivity.observe.page import page
from konnectivity.observe.status import (
    Certificate,
    Dial,
    Dials,
    Limit,
    Listener,
    Peer,
    PeerCertificate,
    Program,
    ServerStatus,
    Status,
    Time,
    Traffic,
    Tunnel,
    TunnelCounts,
)

DAY = 86_400
PROGRAM = Program(
    id="cp-1",
    version="1.0.0",
    started_at=Time(0),
    state="running",
    ready=True,
    unready="",
    modes=("grpc", "http-connect"),
    strategies=("destHost", "default"),
    listeners=(
        Listener("frontend", "/run/konnectivity/server.socket", tls=False),
        Listener("agent", "0.0.0.0:8091", tls=True),
        Listener("health", "0.0.0.0:8092", tls=False),
        Listener("admin", "127.0.0.1:8095", tls=False),
    ),
    limits=(),
    certificates=(),
)


@dataclass
class Scene:
    """The state that a program is in while it is served."""

    status: Status
    events: Events = field(default_factory=Events)
    port: int = 0

    async def take(self, most: int) -> Status:
        status = replace(
            self.status, generated_at=Time(time.time()), last_event=self.events.last_id
        )
        return replace(status, tunnels=status.tunnels[:most])

    def change(self, status: Status) -> None:
        """Be in another state, and tell of it."""
        self.status = status
        self.events.publish("certificate_reloaded", flag="cluster-cert", path="", error="")

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @asynccontextmanager
    async def served(self) -> AsyncIterator[Scene]:
        async with serving(page() | api(self.take, self.events)) as self.port:
            yield self


def agent(number: int, *, now: float = 0.0, **fields: object) -> Peer:
    """One of many agents: most of them are well."""
    chance = random.Random(number)  # noqa: S311 - pictures, not secrets
    now = now or time.time()
    made = Peer(
        id=f"node-{number:04}",
        software="konnectivity-agent/1.0.0",
        version="1.0.0",
        address=f"10.{number // 250 % 250}.{number % 250}.7:{40_000 + number}",
        connected_since=Time(now - chance.uniform(600, 12 * DAY)),
        identifiers={
            "host": (f"node-{number:04}",),
            "ipv4": (f"10.0.{number // 250}.{number % 250}",),
        },
        certificate=PeerCertificate(
            f"CN=node-{number:04}", Time(now + chance.uniform(60, 300) * DAY)
        ),
        round_trip=round(chance.uniform(0.0008, 0.03), 6),
        draining=False,
        credit=True,
        tunnels=TunnelCounts(open=chance.choice((0, 0, 1, 2, 5))),
        traffic=Traffic(chance.randrange(10**7), chance.randrange(10**9)),
        dials=chance.randrange(5000),
        dials_failed=chance.choice((0, 0, 0, 0, 1, 3)),
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def tunnel(number: int, **fields: object) -> Tunnel:
    chance = random.Random(number)  # noqa: S311 - pictures, not secrets
    made = Tunnel(
        id=number,
        peer=f"node-{chance.randrange(1000):04}",
        destination=f"10.0.{chance.randrange(4)}.{chance.randrange(250)}:10250",
        mode=chance.choice(("grpc", "http-connect")),
        frontend="unix",
        state="open",
        since=Time(time.time() - chance.expovariate(1 / 900)),
        traffic=Traffic(chance.randrange(10**6), chance.randrange(10**8)),
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def failure(number: int, **fields: object) -> Dial:
    causes = (
        ("error_response", "dial tcp 10.0.3.17:10250: connect: connection refused"),
        ("backend_dial_timeout", "dial timeout, backstop"),
        ("error_response", "dial tcp 10.0.9.4:8443: i/o timeout"),
    )
    result, error = causes[number % len(causes)]
    made = Dial(
        time=Time(time.time() - 47 * number - 12),
        destination=f"10.0.{number % 4}.{number * 37 % 250}:10250",
        peer=f"node-{number * 7 % 1000:04}",
        result=result,
        seconds=round(0.001 + number % 3 * 2.5, 6),
        error=error,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def certificate(name: str, days: float, **fields: object) -> Certificate:
    now = time.time()
    print_ = f"{abs(hash(name)):016x}" * 4
    made = Certificate(
        name=name,
        path=f"/etc/konnectivity/pki/{name}.crt",
        fingerprint_sha256=print_,
        not_before=Time(now - 30 * DAY),
        not_after=Time(now + days * DAY),
        loaded_at=Time(now - 3600),
        disk_fingerprint_sha256=print_,
        disk_not_after=Time(now + days * DAY),
        error="",
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def server(agents: int = 0, *, tunnels: int = 0, failures: int = 0) -> ServerStatus:
    """A server with so many of each."""
    now = time.time()
    peers = tuple(agent(number, now=now) for number in range(agents))
    program = replace(
        PROGRAM,
        started_at=Time(now - 12.3 * DAY),
        limits=(
            Limit("tunnels", tunnels, 50_000),
            Limit("pendingDials", 3, 10_000),
            Limit("heldForFrontends", 221_000_000, 268_435_456, "bytes"),
            Limit("descriptors", 2 * agents + tunnels, 1_048_576),
            Limit("eventReaders", 1, 16),
        ),
        certificates=(
            certificate("cluster-cert", 9.4),
            certificate("cluster-ca-cert", 2000),
            certificate("server-cert", 80, disk_fingerprint_sha256="ab" * 32),
        ),
    )
    return ServerStatus(
        generated_at=Time(now),
        last_event="",
        server=program,
        agents=peers,
        dials=Dials(
            pending=3,
            succeeded=184_220,
            failed={"backend_dial_timeout": 12, "error_response": 231} if failures else {},
            recent=(),
            recent_failures=tuple(map(failure, range(failures))),
        ),
        tunnel_counts=TunnelCounts(dialing=3 if tunnels else 0, open=tunnels, closing=0),
        tunnels_ended={"endpoint_close": 120_400, "frontend_close": 63_200, "endpoint_reset": 21},
        tunnels=tuple(tunnel(number) for number in range(tunnels)),
    )


def busy(status: ServerStatus, seconds: float) -> ServerStatus:
    """The same server so many seconds later: bytes and dials have gone on."""
    # The integral of a load that comes and goes: totals only grow.
    load = 1.4 * seconds - 45 * math.cos(seconds / 45) - 8 * math.cos(seconds / 17)

    def on(traffic: Traffic, share: float) -> Traffic:
        down = int(180_000 * share * load)
        return Traffic(traffic.up + down // 9, traffic.down + down)

    agents = tuple(
        replace(
            each, traffic=on(each.traffic, (number % 7) / 7), dials=each.dials + int(seconds / 9)
        )
        for number, each in enumerate(status.agents)
    )
    tunnels = tuple(replace(each, traffic=on(each.traffic, 0.4)) for each in status.tunnels)
    failed = {name: each + int(load * 0.9) for name, each in status.dials.failed.items()}
    dials = replace(status.dials, succeeded=status.dials.succeeded + int(22 * load), failed=failed)
    return replace(status, agents=agents, tunnels=tunnels, dials=dials)
