"""When and where the agent connects: back-off, own addresses of servers, surplus, draining."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
from tests.chaos.proxy import ChaosProxy
from tests.e2e.conftest import Log, grpcio_stays, log, until
from tests.net.authority import Authority, Identity
from tests.peers import schema
from tests.peers.endpoint import Endpoint, echo
from tests.peers.server import FakeServer

from konnectivity.agent.census import Census
from konnectivity.agent.connections import Connections, SyncOptions
from konnectivity.agent.counters import AgentCounters
from konnectivity.agent.link import LinkOptions
from konnectivity.agent.targets import DIRECT_TIMEOUT, PATIENCE, Targets
from konnectivity.net import tls
from konnectivity.net.address import Address, parse_ip
from konnectivity.net.connect import connect_server
from konnectivity.net.h2 import H2Settings
from konnectivity.tunnel.budget import TunnelLimits

__all__ = ["grpcio_stays", "log"]  # fixtures

StartServer = Callable[..., "asyncio.Future[FakeServer]"]


@dataclass
class Counted:
    """What leases would say."""

    count: int = 1
    servers: dict[str, str] | None = None


@pytest.fixture
async def fakes() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def serve(fakes: AsyncExitStack, authority: Authority, identity: Identity) -> StartServer:
    """Starts fake servers: their id, the count that they tell, servers that they announce."""

    async def start(
        server_id: str = "s1",
        count: int = 1,
        *,
        announced: str = "",
        identity: Identity = identity,
        port: int = 0,
    ) -> FakeServer:
        answer = (("serverid", server_id), ("servercount", str(count)))
        if announced:
            answer = (*answer, ("konnectivity-servers", announced))
        server = FakeServer(authority, identity, answer=answer, port=port)
        return await fakes.enter_async_context(server)

    return start  # type: ignore[return-value]


@asynccontextmanager
async def connecting(
    server: FakeServer | ChaosProxy,
    authority: Authority,
    identity: Identity,
    *,
    leases: Counted | None = None,
    interval: float = 0.05,
    cap: float = 0.1,
    forever: bool = False,
    gone_after: float = 60.0,
    host: str = "127.0.0.1",
) -> AsyncIterator[Connections]:
    context = tls.client_context(
        authority.bundle, cert=identity.cert, key=identity.key, alpn=["h2"], insist_on_alpn=True
    )
    connections = Connections(
        LinkOptions(
            host=host,
            port=server.port,
            agent_id="agent-1",
            identifiers="",
            token_path="",
            h2=H2Settings(),
            limits=TunnelLimits(),
        ),
        SyncOptions(interval, cap, forever, gone_after),
        context=lambda: context,
        counters=AgentCounters(),
        census=Census(leases),
    )
    task = asyncio.create_task(connections.run())
    try:
        yield connections
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def ids(connections: Connections) -> list[str]:
    return sorted(link.server_id for link in connections.usable)


# Spacing


@pytest.mark.parametrize(("count", "forever"), [(3, False), (1, True)], ids=["wanted", "forever"])
async def test_w58_attempts_that_meet_known_servers_only_are_spaced_like_failures(
    count: int, forever: bool, serve: StartServer, authority: Authority, identity: Identity
) -> None:
    server = await serve(count=count)
    async with connecting(server, authority, identity, cap=0.4, forever=forever) as connections:
        await until(lambda: connections.links)
        await asyncio.sleep(1.0)
        assert 3 <= server.calls <= 9  # each 50 ms it would be 19
        assert ids(connections) == ["s1"]
        await server.stop()


async def test_w58_the_loss_of_a_link_ends_the_long_waits(
    serve: StartServer, authority: Authority, identity: Identity
) -> None:
    server = await serve(count=2)
    async with connecting(server, authority, identity, cap=60.0) as connections:
        first = await server.session()
        await until(lambda: server.calls == 6)  # the next wait is 0.38 s, and then half a second
        await until(lambda: server.calls == 7)
        (old,) = connections.links
        first.over.set()
        started = time.monotonic()
        await until(lambda: connections.links and old not in connections.links)
        assert time.monotonic() - started < 0.45
        await server.stop()


async def test_a_growing_count_ends_the_long_waits(
    serve: StartServer, authority: Authority, identity: Identity
) -> None:
    server = await serve()
    leases = Counted(2)
    async with connecting(server, authority, identity, leases=leases, cap=60.0) as connections:
        await until(lambda: server.calls == 7)
        leases.count = 3
        connections.recount()
        started = time.monotonic()
        await until(lambda: server.calls == 8)
        assert time.monotonic() - started < 0.3
        assert connections._counters.known_servers == 3
        await server.stop()


async def test_a_link_that_lasted_is_replaced_at_once(
    serve: StartServer, authority: Authority, identity: Identity
) -> None:
    server = await serve()
    async with connecting(server, authority, identity, interval=0.8, cap=0.8) as connections:
        session = await server.session()
        await asyncio.sleep(1.0)
        (old,) = connections.links
        session.over.set()
        started = time.monotonic()
        await until(lambda: connections.links and old not in connections.links)
        assert time.monotonic() - started < 0.75  # an interval would be longer
        await server.stop()


async def test_a_server_that_drops_whatever_it_accepts_is_not_hammered(
    serve: StartServer, authority: Authority, identity: Identity, log: Log
) -> None:
    server = await serve()
    async with connecting(server, authority, identity, cap=0.4):

        async def drop() -> None:
            while True:
                (await server.session()).over.set()

        dropping = asyncio.create_task(drop())
        await asyncio.sleep(1.0)
        dropping.cancel()
        assert 3 <= server.calls <= 9
        await server.stop()


async def test_a_server_that_kept_a_link_for_long_is_trusted_anew(
    serve: StartServer, authority: Authority, identity: Identity
) -> None:
    server = await serve()
    async with connecting(server, authority, identity, cap=0.5) as connections:
        for _ in range(6):
            (await server.session()).over.set()  # the next wait is half a second
        lasting = await server.session()
        await asyncio.sleep(0.6)
        lasting.over.set()
        young = await server.session()
        (old,) = connections.links
        young.over.set()
        started = time.monotonic()
        await until(lambda: connections.links and old not in connections.links)
        assert time.monotonic() - started < 0.45
        await server.stop()


# What servers say


async def test_w59_what_a_server_says_later_replaces_what_it_said(
    serve: StartServer, authority: Authority, identity: Identity
) -> None:
    server = await serve(count=3)
    async with connecting(server, authority, identity) as connections:
        await until(lambda: server.calls >= 2)
        assert connections._counters.known_servers == 3
        server._answer = (("serverid", "s1"), ("servercount", "1"))
        await until(lambda: connections._counters.known_servers == 1)
        await asyncio.sleep(0.2)
        calls = server.calls
        await asyncio.sleep(0.3)
        assert server.calls == calls  # nothing is missing any more
        await server.stop()


# Own addresses


async def test_servers_whose_address_is_announced_are_dialled_there_by_the_common_name(
    serve: StartServer, authority: Authority, identity: Identity
) -> None:
    named = authority.issue("localhost")
    servers = {f"s{number}": await serve(f"s{number}", identity=named) for number in (2, 3)}
    text = "&".join(f"{name}=127.0.0.1:{server.port}" for name, server in servers.items())
    first = await serve("s1", announced=f"s1=&{text}", identity=named)
    async with connecting(first, authority, identity, host="localhost") as connections:
        await until(lambda: ids(connections) == ["s1", "s2", "s3"])
        assert {link.address for link in connections.links} == {"127.0.0.1"}
        assert first.calls == 1
        assert [server.calls for server in servers.values()] == [1, 1]
        for server in (first, *servers.values()):
            await server.stop()


async def test_servers_whose_address_is_in_their_lease_are_dialled_there(
    serve: StartServer, authority: Authority, identity: Identity
) -> None:
    first, second = await serve("s1"), await serve("s2")
    leases = Counted(2, {"s1": "", "s2": f"127.0.0.1:{second.port}"})
    async with connecting(first, authority, identity, leases=leases) as connections:
        await until(lambda: ids(connections) == ["s1", "s2"])
        assert first.calls <= 1
        await first.stop()
        await second.stop()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "127.0.0.1:{}"])
async def test_an_own_address_that_does_not_lead_to_its_server_is_set_aside_for_the_common_name(
    address: str, serve: StartServer, authority: Authority, identity: Identity
) -> None:
    first = await serve("s1")
    leases = Counted(2, {"s1": "", "s2": address.format(first.port)})
    async with connecting(first, authority, identity, leases=leases) as connections:
        await until(lambda: first.calls >= 4)
        assert ids(connections) == ["s1"]
        assert connections._counters.link_failures["tcp"] == (address == "127.0.0.1:1")
        await first.stop()


def refused(connections: Connections, server: FakeServer) -> int:
    """How often nobody answered at the address of a server."""
    failed = {each.target: each.times for each in connections.attempts.failed}
    return failed.get(f"127.0.0.1:{server.port}", 0)


Mesh = tuple[FakeServer, FakeServer, Connections]


@pytest.fixture
async def mesh(serve: StartServer, authority: Authority, identity: Identity) -> AsyncIterator[Mesh]:
    """Connections to `s1`, the common name, and to `s2`, whose address `s1` announces."""
    second = await serve("s2")
    first = await serve("s1", announced=f"s1=&s2=127.0.0.1:{second.port}")
    async with connecting(first, authority, identity) as connections:
        await until(lambda: ids(connections) == ["s1", "s2"])
        yield first, second, connections
        await first.stop()


async def test_while_a_server_is_away_the_common_name_is_tried_now_and_then_only(
    serve: StartServer, mesh: Mesh
) -> None:
    first, second, connections = mesh
    assert first.calls == 1
    await second.stop()
    await until(lambda: refused(connections, second) >= 3 * PATIENCE)
    assert 2 <= first.calls - 1 <= 3
    back = await serve("s2", port=second.port)
    await until(lambda: ids(connections) == ["s1", "s2"])
    assert back.calls == 1
    await back.stop()


async def test_a_server_that_comes_back_elsewhere_is_found_by_what_the_others_say(
    serve: StartServer, mesh: Mesh
) -> None:
    first, second, connections = mesh
    moved = await serve("s2")
    text = f"s1=&s2=127.0.0.1:{moved.port}"
    first._answer = (*first._answer[:2], ("konnectivity-servers", text))
    await second.stop()
    await until(lambda: moved.calls and ids(connections) == ["s1", "s2"])
    assert refused(connections, second) == PATIENCE
    assert first.calls == 2
    await moved.stop()


async def test_an_address_that_another_server_has_taken_over_is_set_aside(
    serve: StartServer, mesh: Mesh
) -> None:
    first, second, _ = mesh
    await second.stop()
    other = await serve("s1", port=second.port)
    await until(lambda: other.calls)
    met = first.calls
    await until(lambda: first.calls >= met + PATIENCE)
    assert other.calls == 1
    await other.stop()


async def test_of_several_servers_that_are_away_each_is_found_as_soon_as_it_is_back(
    serve: StartServer, authority: Authority, identity: Identity
) -> None:
    second, third = await serve("s2"), await serve("s3")
    text = f"s1=&s2=127.0.0.1:{second.port}&s3=127.0.0.1:{third.port}"
    first = await serve("s1", announced=text)
    async with connecting(first, authority, identity) as connections:
        await until(lambda: ids(connections) == ["s1", "s2", "s3"])
        await second.stop()
        await third.stop()
        await until(lambda: refused(connections, second) and refused(connections, third))
        back = await serve("s3", port=third.port)
        await until(lambda: ids(connections) == ["s1", "s3"])
        again = await serve("s2", port=second.port)
        await until(lambda: ids(connections) == ["s1", "s2", "s3"])
        for server in (first, again, back):
            await server.stop()


async def test_a_server_without_an_address_is_looked_for_while_another_one_is_away(
    serve: StartServer, authority: Authority, identity: Identity
) -> None:
    second = await serve("s2")
    first = await serve("s1", count=3, announced=f"s1=&s2=127.0.0.1:{second.port}&s3=")
    async with connecting(first, authority, identity) as connections:
        await until(lambda: ids(connections) == ["s1", "s2"])
        await second.stop()
        met, away = first.calls, refused(connections, second)
        await until(lambda: refused(connections, second) >= away + 2 * PATIENCE)
        assert first.calls - met >= 2 * PATIENCE - 2
        await first.stop()


async def test_an_agent_without_any_server_tries_the_common_name_each_time(
    serve: StartServer, authority: Authority, identity: Identity
) -> None:
    first, second = await serve("s1"), await serve("s2")
    leases = Counted(2, {"s1": "", "s2": f"127.0.0.1:{second.port}"})
    async with connecting(first, authority, identity, leases=leases) as connections:
        await until(lambda: ids(connections) == ["s1", "s2"])
        await first.stop()
        await second.stop()
        await until(lambda: refused(connections, second) >= 2 * PATIENCE)
        assert refused(connections, first) >= 2 * PATIENCE - 2
        back = await serve("s1", port=first.port)
        await until(lambda: ids(connections) == ["s1"])
        await back.stop()


async def test_addresses_that_lead_to_servers_speak_for_one_that_was_never_needed(
    serve: StartServer, authority: Authority, identity: Identity
) -> None:
    first, second = await serve("s1"), await serve("s2")
    both = f"s1=127.0.0.1:{first.port}&s2=127.0.0.1:{second.port}"
    first._answer = second._answer = (("servercount", "2"), ("konnectivity-servers", both))
    first._answer, second._answer = ((("serverid", name), *first._answer) for name in ("s1", "s2"))
    behind = [first]
    async with (
        ChaosProxy(lambda: ("127.0.0.1", behind[0].port)) as balancer,
        connecting(balancer, authority, identity) as connections,
    ):
        await until(lambda: ids(connections) == ["s1", "s2"])
        behind[0] = second
        await first.stop()
        await until(lambda: second.calls > 1)  # met again, through the balancer
        assert refused(connections, first) >= PATIENCE
        back = await serve("s1", port=first.port)
        await until(lambda: ids(connections) == ["s1", "s2"])
        await back.stop()
        await second.stop()


@pytest.mark.parametrize(("seconds", "attempts"), [(0.0, 5), (DIRECT_TIMEOUT, 2)])
async def test_a_host_that_does_not_answer_is_not_waited_for_like_one_that_refuses(
    seconds: float, attempts: int
) -> None:
    targets = Targets("servers.test", 8091)
    (own,) = targets.direct({"s1": "127.0.0.1:1"})
    targets.led(own)
    doubts = [targets.failed(own, seconds) for _ in range(3 * attempts)]
    assert doubts == 3 * [*(attempts - 1) * [False], True]


async def test_of_a_names_addresses_those_without_a_connection_come_first() -> None:
    asked = []

    async def resolve(host: str, port: int) -> list[Address]:
        asked.append(host)
        found = [parse_ip(f"127.0.0.{number}", port) for number in (1, 2, 3)]
        return [each for each in found if each is not None]

    listeners = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.3", 0)
    port = listeners.sockets[0].getsockname()[1]
    async with listeners:
        others = [
            await asyncio.start_server(lambda _, writer: writer.close(), f"127.0.0.{one}", port)
            for one in (1, 2)
        ]
        reached = []
        for taken in ((), ("127.0.0.1",), ("127.0.0.1", "127.0.0.2")):
            target = Targets("servers.test", port, resolve=resolve).balanced(avoid=taken)
            with await connect_server(target.host, target.port, resolve=target.resolve) as sock:
                reached.append(sock.getpeername()[0])
        for other in others:
            other.close()
            await other.wait_closed()
    assert reached == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    assert set(asked) == {"servers.test"}


# Surplus


async def test_a_server_without_lease_is_left_when_no_tunnel_is_at_it(
    serve: StartServer, authority: Authority, identity: Identity, log: Log
) -> None:
    first, second, third = [await serve(f"s{number}") for number in (1, 2, 3)]
    addresses = {f"s{i}": f"127.0.0.1:{s.port}" for i, s in ((1, first), (2, second), (3, third))}
    leases = Counted(3, addresses)
    async with (
        Endpoint(echo) as endpoint,
        connecting(first, authority, identity, leases=leases, gone_after=0.2) as connections,
    ):
        await until(lambda: len(connections.links) == 3)
        session = await second.session()
        tunnel = await session.dial(endpoint.address)
        leases.count, leases.servers = 1, {"s1": ""}
        await until(lambda: ids(connections) == ["s1", "s2"])
        assert log.has("Leaving a server that has no lease", "s3")
        await asyncio.sleep(0.4)
        assert ids(connections) == ["s1", "s2"]  # a tunnel is open
        await session.send(schema.close_request(tunnel))
        await until(lambda: ids(connections) == ["s1"])
        for server in (first, second, third):
            await server.stop()


@pytest.mark.parametrize(
    ("count", "servers"),
    [(1, None), (2, {"s1": "", "s9": ""})],
    ids=["no valid lease", "as many as servers"],
)
async def test_links_are_kept_when_leases_do_not_say_enough_and_never_become_too_few(
    count: int,
    servers: dict[str, str] | None,
    serve: StartServer,
    authority: Authority,
    identity: Identity,
) -> None:
    first, second = await serve("s1"), await serve("s2")
    leases = Counted(2, {"s1": "", "s2": f"127.0.0.1:{second.port}"})
    async with connecting(first, authority, identity, leases=leases, gone_after=0.1) as connections:
        await until(lambda: ids(connections) == ["s1", "s2"])
        leases.count, leases.servers = count, servers
        await asyncio.sleep(0.5)
        assert ids(connections) == ["s1", "s2"]
        await first.stop()
        await second.stop()


async def test_a_server_whose_lease_comes_back_in_time_is_kept(
    serve: StartServer, authority: Authority, identity: Identity
) -> None:
    first, second = await serve("s1"), await serve("s2")
    both = {"s1": "", "s2": f"127.0.0.1:{second.port}"}
    leases = Counted(2, both)
    async with connecting(first, authority, identity, leases=leases, gone_after=1.0) as connections:
        await until(lambda: ids(connections) == ["s1", "s2"])
        for _ in range(3):
            leases.count, leases.servers = 1, {"s1": ""}
            await asyncio.sleep(0.4)
            leases.count, leases.servers = 2, both
            await until(lambda: not connections._gone)
        assert ids(connections) == ["s1", "s2"]
        await first.stop()
        await second.stop()


# Draining


async def test_w40_a_draining_agent_that_loses_its_server_connects_again_and_says_so(
    serve: StartServer, authority: Authority, identity: Identity
) -> None:
    server = await serve()
    async with Endpoint(echo) as endpoint, connecting(server, authority, identity) as connections:
        session = await server.session()
        connections.drain()
        await session.expect(schema.DRAIN)
        session.over.set()
        session = await server.session()
        await session.expect(schema.DRAIN)
        tunnel = await session.dial(endpoint.address)
        await session.send(schema.data(tunnel, b"still of use"))
        assert await session.collect(12) == b"still of use"
        await server.stop()
