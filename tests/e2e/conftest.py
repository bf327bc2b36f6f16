"""Servers, agents, endpoints and their fake counterparts, started by factories.

Each factory is an async callable; what it starts ends with the test.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.e2e.fleet import Fleet
from tests.net.authority import Authority, Identity
from tests.peers.agent import FakeAgent, Metadata
from tests.peers.endpoint import Endpoint, Talk, echo
from tests.peers.frontend import (
    ConnectClient,
    GrpcClient,
    GrpcTunnel,
    ProxyStream,
    Tunnel,
    ping,
)
from tests.peers.ports import free_port
from tests.peers.server import FakeServer
from tests.peers.streams import PATIENCE

from konnectivity.agent.app import Agent
from konnectivity.agent.options import AgentOptions
from konnectivity.net.proxy import Proxy
from konnectivity.observe.klog import KlogFormatter
from konnectivity.server.app import Server
from konnectivity.server.options import ServerOptions
from konnectivity.tunnel.budget import TunnelLimits

MODES = ("grpc", "http-connect")
CARRIERS = ("streams", "packets")
"""How tunnels of our own pair travel between its two."""
ON_BOTH = ("test_bytes", "test_cuts", "test_dials", "test_endings", "test_limits", "test_pauses")
"""Modules whose tests of our own pair run on either carrier; the others on streams alone."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    module = metafunc.module.__name__.rpartition(".")[2]
    marked = any(
        "carrier" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")
    )
    if "carrier" in metafunc.fixturenames and module in ON_BOTH and not marked:
        metafunc.parametrize("carrier", CARRIERS, indirect=True)


async def until(true: Callable[[], object]) -> None:
    """Wait until `true()` is."""
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)


@dataclass
class Log:
    """What the package logged, as the programs would write it, without line heads."""

    records: list[logging.LogRecord]

    @property
    def lines(self) -> list[str]:
        formatter = KlogFormatter(skip_headers=True)
        return [formatter.format(record) for record in self.records]

    def has(self, *texts: str) -> bool:
        """Whether one line contains all of these."""
        return any(all(text in line for text in texts) for line in self.lines)

    async def wait_for(self, *texts: str) -> str:
        """That line."""
        await until(lambda: self.has(*texts))
        return next(line for line in self.lines if all(text in line for text in texts))


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(level=1)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def log() -> Iterator[Log]:
    """The log; a traceback in it, or a complaint of asyncio, fails the test."""
    collector = _Collector()
    package, loop = logging.getLogger("konnectivity"), logging.getLogger("asyncio")
    level = package.level
    package.setLevel(logging.INFO - 5)
    for logger in (package, loop):
        logger.addHandler(collector)
    yield Log(collector.records)
    for logger in (package, loop):
        logger.removeHandler(collector)
    package.setLevel(level)
    bad = [
        record.getMessage()
        for record in collector.records
        if record.exc_info or (record.name == "asyncio" and record.levelno >= logging.ERROR)
    ]
    assert not bad, f"logged as a fault of our own: {bad}"


@pytest.fixture(scope="session", autouse=True)
def grpcio_stays() -> Iterator[None]:
    """Keep grpcio's machinery up from test to test, for the watch over descriptors."""

    async def start() -> None:
        grpc.aio.init_grpc_aio()

    asyncio.run(start())
    yield
    grpc.aio.shutdown_grpc_aio()


# Our own programs

StartServer = Callable[..., Awaitable[Server]]
OpenFleet = Callable[..., Awaitable[Fleet]]
StartAgent = Callable[..., Awaitable[Agent]]


@pytest.fixture
def server_options(folder: Path, authority: Authority, identity: Identity) -> dict[str, Any]:
    """A server with both modes on a Unix socket."""
    return {
        "mode": "grpc,http-connect",
        "uds_name": str(folder / "frontend.sock"),
        "server_port": 0,
        "cluster_cert": identity.cert,
        "cluster_key": identity.key,
        "cluster_ca_cert": authority.bundle,
        "agent_bind_address": "127.0.0.1",
        "agent_port": free_port(),
        "health_bind_address": "127.0.0.1",
        "health_port": free_port(),
        "admin_port": free_port(),
        "server_id": "server-1",
    }


@pytest.fixture
def agent_options(
    server_options: dict[str, Any], authority: Authority, identity: Identity
) -> dict[str, Any]:
    """An agent for that server; it looks for servers ten times a second."""
    return {
        "ca_cert": authority.bundle,
        "agent_cert": identity.cert,
        "agent_key": identity.key,
        "proxy_server_port": server_options["agent_port"],
        "health_server_host": "127.0.0.1",
        "health_server_port": free_port(),
        "admin_server_port": free_port(),
        "agent_id": "agent-1",
        "sync_interval": 0.1,
        "sync_interval_cap": 0.3,
    }


@pytest.fixture
def open_fleet(
    exits: AsyncExitStack,
    folder: Path,
    server_options: dict[str, Any],
    agent_options: dict[str, Any],
) -> OpenFleet:
    """Opens a fleet without servers and agents yet; options are its agents'."""

    async def open_(**options: Any) -> Fleet:
        fleet = Fleet(exits, folder, server_options, agent_options | options)
        await fleet.open()
        return fleet

    return open_


@pytest.fixture
def start_server(exits: AsyncExitStack, server_options: dict[str, Any]) -> StartServer:
    async def start(*, limits: TunnelLimits | None = None, **overrides: Any) -> Server:
        options = ServerOptions(**server_options | overrides)
        return await exits.enter_async_context(Server(options, limits=limits))

    return start


@pytest.fixture
def start_agent(exits: AsyncExitStack, agent_options: dict[str, Any]) -> StartAgent:
    async def start(
        *, limits: TunnelLimits | None = None, proxy: Proxy | None = None, **overrides: Any
    ) -> Agent:
        options = AgentOptions(**agent_options | overrides)
        return await exits.enter_async_context(Agent(options, limits=limits, proxy=proxy))

    return start


@dataclass
class Pair:
    server: Server
    agent: Agent


StartPair = Callable[..., Awaitable[Pair]]


@pytest.fixture
def carrier(request: pytest.FixtureRequest) -> str:
    """One of `CARRIERS`."""
    return str(getattr(request, "param", CARRIERS[0]))


@pytest.fixture
def start_pair(start_server: StartServer, start_agent: StartAgent, carrier: str) -> StartPair:
    """A server and an agent that is connected to it; `server` and `agent` override options."""
    streams = {"tunnel_streams": carrier == "streams"}

    async def start(
        *, server: dict[str, Any] | None = None, agent: dict[str, Any] | None = None
    ) -> Pair:
        made = Pair(
            await start_server(**server or {}), await start_agent(**streams | (agent or {}))
        )
        await until(lambda: len(made.server.exchange.backends))
        return made

    return start


@pytest.fixture
async def pair(start_pair: StartPair) -> Pair:
    return await start_pair()


# Their counterparts

StartEndpoint = Callable[..., Awaitable[Endpoint]]
ConnectAgent = Callable[..., Awaitable[FakeAgent]]
StartFakeServer = Callable[..., Awaitable[FakeServer]]


@pytest.fixture
async def fakes(exits: AsyncExitStack) -> AsyncIterator[AsyncExitStack]:
    """Fake servers end before our agents do: grpcio leaves a TLS goodbye unanswered."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def start_endpoint(exits: AsyncExitStack) -> StartEndpoint:
    async def start(talk: Talk | None = None, **options: Any) -> Endpoint:
        return await exits.enter_async_context(Endpoint(talk, **options))

    return start


@pytest.fixture
async def echoing(start_endpoint: StartEndpoint) -> Endpoint:
    return await start_endpoint(echo)


@pytest.fixture
def connect_agent(
    exits: AsyncExitStack,
    server_options: dict[str, Any],
    authority: Authority,
    identity: Identity,
) -> ConnectAgent:
    """Fake agents of the server; it has accepted them when this returns."""

    async def connect(agent_id: str = "fake", *, metadata: Metadata | None = None) -> FakeAgent:
        port = server_options["agent_port"]
        agent = await FakeAgent.connect(
            port, authority, identity, agent_id=agent_id, metadata=metadata
        )
        await exits.enter_async_context(agent)
        await agent.answer()
        return agent

    return connect


@pytest.fixture
def start_fake_server(
    fakes: AsyncExitStack,
    server_options: dict[str, Any],
    authority: Authority,
    identity: Identity,
) -> StartFakeServer:
    """A fake server on the port where the agent looks for one."""

    async def start(**options: Any) -> FakeServer:
        options.setdefault("port", server_options["agent_port"])
        return await fakes.enter_async_context(FakeServer(authority, identity, **options))

    return start


# Frontends


ConnectGrpc = Callable[[], Awaitable[GrpcClient]]
OpenProxy = Callable[[], Awaitable[ProxyStream]]
OpenTunnel = Callable[[str, str], Awaitable[Tunnel]]


@pytest.fixture
def connect_grpc(exits: AsyncExitStack, server_options: dict[str, Any]) -> ConnectGrpc:
    """Connections of grpcio to the server's Unix socket."""

    async def connect() -> GrpcClient:
        return await exits.enter_async_context(GrpcClient(f"unix:{server_options['uds_name']}"))

    return connect


@pytest.fixture
def open_proxy(connect_grpc: ConnectGrpc) -> OpenProxy:
    """A `Proxy` call on a connection of its own, as kube-apiserver's."""

    async def open_() -> ProxyStream:
        return (await connect_grpc()).proxy()

    return open_


@pytest.fixture
async def http_connect(exits: AsyncExitStack, server_options: dict[str, Any]) -> ConnectClient:
    return await exits.enter_async_context(ConnectClient(server_options["uds_name"]))


@pytest.fixture
def open_tunnel(open_proxy: OpenProxy, http_connect: ConnectClient) -> OpenTunnel:
    """`open_tunnel(mode, address)`: a tunnel on a connection of its own, as kube-apiserver does."""

    async def dial(mode: str, address: str) -> Tunnel:
        if mode == "grpc":
            stream = await open_proxy()
            return GrpcTunnel(stream, await stream.dial(address))
        return await http_connect.dial(address)

    return dial


@asynccontextmanager
async def unharmed(tunnel: Tunnel, *, within: float = 2.0) -> AsyncIterator[None]:
    """Keep a tunnel to an echoing endpoint busy; each round trip must take less than `within`."""
    stop = asyncio.Event()

    async def keep_asking() -> None:
        while not stop.is_set():
            async with asyncio.timeout(within):
                await ping(tunnel)
            await asyncio.sleep(0.005)

    asking = asyncio.create_task(keep_asking())
    try:
        yield
    finally:
        stop.set()
        await asking
