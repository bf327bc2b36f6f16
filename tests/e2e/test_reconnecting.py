"""The agent keeps trying, whatever stands in its way: W27, W29, scenarios of lost servers."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.chaos.proxy import ChaosProxy
from tests.e2e.conftest import (
    MODES,
    Log,
    OpenTunnel,
    StartAgent,
    StartFakeServer,
    StartServer,
    until,
)
from tests.net.authority import Authority, Identity
from tests.peers import schema
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ConnectClient, ping, read_all
from tests.peers.ports import free_port

from konnectivity.agent.connections import Connections, SyncOptions
from konnectivity.agent.counters import AgentCounters
from konnectivity.agent.link import LinkOptions
from konnectivity.net import tls
from konnectivity.net.h2 import H2Settings
from konnectivity.server.app import Server
from konnectivity.server.options import ServerOptions
from konnectivity.tunnel.budget import TunnelLimits

StartProxy = Callable[..., Any]


@pytest.fixture
def start_proxy(exits: AsyncExitStack) -> StartProxy:
    async def start(target: Any, **options: Any) -> ChaosProxy:
        return await exits.enter_async_context(ChaosProxy(target, **options))

    return start


# Tokens


async def test_w27_a_token_file_that_is_gone_costs_attempts_not_the_agent(
    start_fake_server: StartFakeServer, start_agent: StartAgent, folder: Path, log: Log
) -> None:
    token = folder / "token"
    token.write_text("first\n")
    server = await start_fake_server()
    await start_agent(service_account_token_path=str(token))
    session = await server.session()
    assert ("authorization", "Bearer first") in session.metadata
    token.unlink()
    session.over.set()
    await log.wait_for("Cannot connect to a server", f"cannot read token file {token}")
    token.write_text("second")
    session = await server.session()
    assert ("authorization", "Bearer second") in session.metadata


@pytest.mark.parametrize(
    "content", [b"", b"two\nlines", b"\xff\xfe"], ids=["empty", "two", "binary"]
)
async def test_w27_a_token_file_without_a_token_is_named_and_its_content_is_not_logged(
    content: bytes,
    start_fake_server: StartFakeServer,
    start_agent: StartAgent,
    folder: Path,
    log: Log,
) -> None:
    token = folder / "token"
    token.write_bytes(content)
    await start_fake_server()
    await start_agent(service_account_token_path=str(token))
    line = await log.wait_for("Cannot connect to a server", str(token))
    assert "lines" not in line


# Servers that do not answer


@asynccontextmanager
async def connecting(
    port: int, authority: Authority, identity: Identity, *, answer_limit: float
) -> AsyncIterator[Connections]:
    """An agent's connections alone, with a time limit of the test's choice."""
    context = tls.client_context(
        authority.bundle, cert=identity.cert, key=identity.key, alpn=["h2"], insist_on_alpn=True
    )
    connections = Connections(
        LinkOptions(
            host="127.0.0.1",
            port=port,
            agent_id="impatient",
            identifiers="",
            token_path="",
            h2=H2Settings(),
            limits=TunnelLimits(),
            answer_limit=answer_limit,
        ),
        SyncOptions(interval=0.05, interval_cap=0.1, forever=False),
        context=lambda: context,
        counters=AgentCounters(),
    )
    task = asyncio.create_task(connections.run())
    try:
        yield connections
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_w29_a_server_that_stays_silent_costs_one_attempt_and_the_next_is_tried(
    start_fake_server: StartFakeServer,
    start_proxy: StartProxy,
    authority: Authority,
    identity: Identity,
    log: Log,
) -> None:
    silent = await start_fake_server(port=0, silent=True)
    good = await start_fake_server(port=0)
    targets = iter([silent.port, *[good.port] * 10])
    balancer = await start_proxy(lambda: ("127.0.0.1", next(targets)))
    async with connecting(balancer.port, authority, identity, answer_limit=0.3) as connections:
        await good.session()
        assert silent.calls == 1
        assert log.has("Cannot connect", f"127.0.0.1:{balancer.port}: no answer to Connect")
        await until(lambda: len(connections.links) == 1)
        await good.stop()  # grpcio leaves a TLS goodbye unanswered: let it say its own first


# Servers that come and go


async def test_a_server_that_restarts_on_its_port_is_found_again(
    start_server: StartServer, start_agent: StartAgent, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    """Scenario 23."""
    server = await start_server()
    agent = await start_agent()
    await until(lambda: len(server.exchange.backends))
    await server.stop()
    await until(lambda: not agent.connections.links)
    again = await start_server()
    await until(lambda: len(again.exchange.backends))
    await until(lambda: len(agent.connections.links) == 1)
    await ping(await open_tunnel("grpc", echoing.address))


async def test_an_agent_that_leaves_makes_room_for_the_next(
    start_server: StartServer, start_agent: StartAgent, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    """Scenario 15."""
    server = await start_server()
    for _ in range(2):
        agent = await start_agent()
        await until(lambda: len(server.exchange.backends) == 1)
        for mode in MODES:
            await ping(await open_tunnel(mode, echoing.address))
        await agent.stop()
        await until(lambda: len(server.exchange.backends) == 0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", ["cut", "reset"])
async def test_a_broken_link_ends_its_tunnels_quickly_and_is_replaced(
    how: str,
    mode: str,
    start_server: StartServer,
    start_agent: StartAgent,
    start_proxy: StartProxy,
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
) -> None:
    server = await start_server()
    proxy = await start_proxy(("127.0.0.1", server.options.agent_port))
    await start_agent(proxy_server_port=proxy.port)
    await until(lambda: len(server.exchange.backends))
    tunnel = await open_tunnel(mode, echoing.address)
    await ping(tunnel)
    getattr(proxy, how)()
    async with asyncio.timeout(2):
        assert await read_all(tunnel) == b""
    assert server.exchange.counters.tunnels_ended == {"agent_lost": 1}
    await echoing.wait_until_open(0)
    await until(lambda: len(server.exchange.backends))
    await ping(await open_tunnel(mode, echoing.address))


async def test_a_link_that_stalls_and_goes_on_loses_nothing(
    start_server: StartServer,
    start_agent: StartAgent,
    start_proxy: StartProxy,
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
) -> None:
    server = await start_server()
    proxy = await start_proxy(("127.0.0.1", server.options.agent_port))
    await start_agent(proxy_server_port=proxy.port)
    await until(lambda: len(server.exchange.backends))
    tunnel = await open_tunnel("http-connect", echoing.address)
    for way in (proxy.up, proxy.down):
        way.stall()
        asking = asyncio.create_task(ping(tunnel, bytes(range(256)) * 4096))
        await asyncio.sleep(0.2)
        assert not asking.done()
        way.go_on()
        await asking


async def test_a_distant_link_carries_tunnels_side_by_side(
    start_server: StartServer,
    start_agent: StartAgent,
    start_proxy: StartProxy,
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
) -> None:
    server = await start_server()
    proxy = await start_proxy(("127.0.0.1", server.options.agent_port))
    proxy.up.delay = proxy.down.delay = 0.05
    await start_agent(proxy_server_port=proxy.port)
    await until(lambda: len(server.exchange.backends))
    tunnels = [await open_tunnel(mode, echoing.address) for mode in MODES for _ in range(4)]
    async with asyncio.timeout(3):
        await asyncio.gather(*(ping(tunnel, bytes(200_000)) for tunnel in tunnels))


# Several servers


@asynccontextmanager
async def server_at(options: dict[str, Any], folder: Path, name: str) -> AsyncIterator[Server]:
    own = {
        "server_id": name,
        "server_count": 3,
        "uds_name": str(folder / f"{name}.sock"),
        **{f"{which}_port": free_port() for which in ("agent", "health", "admin")},
    }
    async with Server(ServerOptions(**options | own)) as server:
        yield server


async def serves(server: Server, endpoint: Endpoint) -> bool:
    async with ConnectClient(server.options.uds_name) as client:
        await ping(await client.dial(endpoint.address))
        return True


async def test_behind_a_random_balancer_the_agent_finds_all_three_servers_and_their_successor(
    start_agent: StartAgent,
    start_proxy: StartProxy,
    server_options: dict[str, Any],
    folder: Path,
    echoing: Endpoint,
) -> None:
    """Scenario 21."""
    async with AsyncExitStack() as stack:
        servers = {
            name: await stack.enter_async_context(server_at(server_options, folder, name))
            for name in ("s1", "s2", "s3")
        }

        def choose() -> tuple[str, int]:
            chosen = random.choice(list(servers.values()))  # noqa: S311 - any of them
            return "127.0.0.1", chosen.options.agent_port

        balancer = await start_proxy(choose)
        agent = await start_agent(
            proxy_server_port=balancer.port, sync_interval=0.02, sync_interval_cap=0.05
        )
        await until(lambda: len(agent.connections.links) == 3)
        for server in servers.values():
            assert await serves(server, echoing)
        await servers.pop("s2").stop()
        await until(lambda: len(agent.connections.links) == 2)
        newcomer = await stack.enter_async_context(server_at(server_options, folder, "s4"))
        servers["s4"] = newcomer
        await until(lambda: len(agent.connections.links) == 3)
        assert {link.server_id for link in agent.connections.links} == {"s1", "s3", "s4"}
        for server in servers.values():
            assert await serves(server, echoing)


async def test_the_loss_of_one_server_leaves_the_tunnels_of_another_alone(
    start_fake_server: StartFakeServer,
    start_agent: StartAgent,
    start_proxy: StartProxy,
    echoing: Endpoint,
) -> None:
    names = (("serverid", "a"), ("servercount", "2")), (("serverid", "b"), ("servercount", "2"))
    first, second = [await start_fake_server(port=0, answer=answer) for answer in names]
    ports = iter([first.port, *[second.port] * 50])
    balancer = await start_proxy(lambda: ("127.0.0.1", next(ports)))
    agent = await start_agent(proxy_server_port=balancer.port)
    one, two = await first.session(), await second.session()
    ids = [await session.dial(echoing.address) for session in (one, two)]
    assert ids == [1, 1]
    one.over.set()
    await until(lambda: len(agent.connections.links) == 1)
    await echoing.wait_until_open(1)
    await two.send(schema.data(1, b"unharmed"))
    assert await two.collect(8) == b"unharmed"
