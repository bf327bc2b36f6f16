"""Stopping is bounded, orderly and clean: W35, W36, W37, W38."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.chaos.proxy import ChaosProxy
from tests.e2e.conftest import (
    MODES,
    ConnectAgent,
    Log,
    OpenProxy,
    OpenTunnel,
    StartAgent,
    StartEndpoint,
    StartPair,
    StartServer,
    unharmed,
    until,
)
from tests.e2e.test_scenarios import get
from tests.net.authority import Authority, Identity
from tests.peers import schema
from tests.peers.agent import FakeAgent
from tests.peers.endpoint import Endpoint, full_backlog
from tests.peers.frontend import (
    ConnectClient,
    ConnectTunnel,
    GrpcTunnel,
    Refused,
    Tunnel,
    ping,
)
from tests.peers.ports import free_port
from tests.peers.program import flags, running

from konnectivity.errors import ConfigError
from konnectivity.server import stopping

SLOW = 600 << 10
"""Bytes that are more than the kernel takes for a client that does not read."""


async def test_w35_open_frontend_streams_do_not_keep_a_stopping_server(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    server = await start_server()
    agent = await connect_agent()
    idle, dialling, open_ = [await open_proxy() for _ in range(3)]
    await idle.send(schema.dial_close(1))
    await dialling.begin_dial("endpoint:1")
    await agent.expect(schema.DIAL_REQ)
    await open_.begin_dial("endpoint:1")
    await agent.accept()
    await open_.end_dial()
    async with asyncio.timeout(3):
        await server.stop()
    for stream in (idle, dialling, open_):
        assert (await stream.status())[0] is grpc.StatusCode.UNAVAILABLE


async def test_w35_the_program_ends_with_open_frontend_streams(
    server_options: dict[str, Any],
    authority: Authority,
    identity: Identity,
    open_proxy: OpenProxy,
    http_connect: ConnectClient,
) -> None:
    async with running("server", *flags(**server_options)) as program:
        await program.line("Server is up")
        port = server_options["agent_port"]
        async with await FakeAgent.connect(port, authority, identity) as agent:
            await agent.answer()
            stream = await open_proxy()
            await stream.begin_dial("endpoint:1")
            await agent.expect(schema.DIAL_REQ)
            await http_connect.ask("endpoint:1")
            await agent.expect(schema.DIAL_REQ)
            started = time.monotonic()
            program.signal(signal.SIGTERM)
            assert await program.status() == 0
            assert time.monotonic() - started < 4
    assert "Traceback" not in "".join(program.lines)


@pytest.mark.parametrize("mode", MODES)
async def test_w36_a_graceful_stop_waits_for_tunnels_and_no_longer_than_asked(
    mode: str, start_pair: StartPair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    pair = await start_pair(server={"graceful_shutdown_timeout": 0.5})
    tunnel = await open_tunnel(mode, echoing.address)
    started = time.monotonic()
    leaving = asyncio.create_task(pair.server.stop())
    await asyncio.sleep(0.2)
    await ping(tunnel)
    assert await end_of(tunnel) == b""
    await leaving
    assert 0.4 < time.monotonic() - started < 3


async def end_of(tunnel: Tunnel) -> bytes:
    """What a tunnel still says, whose end must be a clean one."""
    content = b""
    if isinstance(tunnel, GrpcTunnel):
        while (packet := await tunnel.stream.receive()).type == schema.DATA:
            content += packet.data.data
        assert packet.type == schema.CLOSE_RSP
        assert packet.closeResponse.error == ""
    else:
        assert isinstance(tunnel, ConnectTunnel)
        while piece := await tunnel.reader.read(1 << 16):  # a reset raises
            content += piece
    return content


async def test_w35_without_a_grace_period_everybody_gets_a_clean_end_within_a_second(
    start_pair: StartPair,
    open_tunnel: OpenTunnel,
    open_proxy: OpenProxy,
    http_connect: ConnectClient,
    start_endpoint: StartEndpoint,
) -> None:
    pair = await start_pair()
    endpoint = await start_endpoint()
    tunnels = [await open_tunnel(mode, endpoint.address) for mode in MODES]
    connections = [await endpoint.accepted() for _ in MODES]
    for tunnel, connection in zip(tunnels, connections, strict=True):
        await tunnel.write(b"up")
        assert await connection.read_exactly(2) == b"up"
        connection.writer.write(b"down")
    await asyncio.sleep(0.1)
    async with full_backlog() as nowhere:
        dialling = await open_proxy()
        await dialling.begin_dial(nowhere)
        asking = asyncio.create_task(http_connect.answer_to(nowhere))
        await until(lambda: pair.server.exchange.counters.pending_dials == 2)
        started = time.monotonic()
        await pair.server.stop()
        assert time.monotonic() - started < 1
    with pytest.raises(Refused, match="the server is stopping"):
        await dialling.end_dial()
    answer = await asking
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert answer.endswith(b"the server is stopping")
    for tunnel in tunnels:
        assert await end_of(tunnel) == b"down"
    for connection in connections:
        assert await connection.read_all() == b""
    counters = pair.server.exchange.counters
    assert counters.tunnels_ended == {"shutdown": 2}
    assert counters.dial_failures == {"shutdown": 2}


@pytest.mark.parametrize(
    ("mode", "size"), [("grpc", 5), ("http-connect", 5), ("http-connect", SLOW)]
)
async def test_w35_what_an_endpoint_said_before_the_stop_still_arrives(
    mode: str,
    size: int,
    start_server: StartServer,
    connect_agent: ConnectAgent,
    open_tunnel: OpenTunnel,
) -> None:
    """Also what is held a moment behind the news that the tunnel is open, or read slowly."""
    server = await start_server()
    agent = await connect_agent()
    opening = asyncio.create_task(open_tunnel(mode, "endpoint:1"))
    _, connect_id = await agent.accept()
    for at in range(0, size, 1 << 16):
        await agent.send(schema.data(connect_id, bytes(min(size - at, 1 << 16))))
    tunnel = await opening
    (stream,) = server.exchange.backends.streams()
    intake = stream.tunnels[connect_id].intake
    while intake.bytes < size:  # noqa: ASYNC110 - what is tested is over in milliseconds
        await asyncio.sleep(0)
    leaving = asyncio.create_task(server.stop())
    await asyncio.sleep(0.05)
    assert len(await end_of(tunnel)) == size
    await leaving


@pytest.mark.parametrize("mode", MODES)
async def test_w36_a_stock_agent_keeps_its_tunnels_through_a_graceful_stop(
    mode: str, start_server: StartServer, connect_agent: ConnectAgent, open_tunnel: OpenTunnel
) -> None:
    """It would drop them at once if it were told to go."""
    server = await start_server(graceful_shutdown_timeout=30.0)
    agent = await connect_agent()
    opening = asyncio.create_task(open_tunnel(mode, "endpoint:1"))
    _, connect_id = await agent.accept()
    tunnel = await opening
    leaving = asyncio.create_task(server.stop())
    await asyncio.sleep(0.3)
    # A GOAWAY would have made it idle.
    assert agent._channel.get_state() is grpc.ChannelConnectivity.READY
    await agent.send(schema.data(connect_id, b"still here"))
    assert await tunnel.read() == b"still here"
    await agent.send(schema.close_response(connect_id))
    async with asyncio.timeout(3):
        await leaving


async def test_w36_an_agent_of_ours_looks_for_another_server_and_keeps_its_tunnels(
    start_server: StartServer,
    start_agent: StartAgent,
    exits: AsyncExitStack,
    folder: Path,
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
) -> None:
    old = await start_server(graceful_shutdown_timeout=30.0)
    new = await start_server(
        server_id="server-2",
        uds_name=str(folder / "second.sock"),
        **{name: free_port() for name in ("agent_port", "health_port", "admin_port")},
    )
    chosen = old
    balancer = ChaosProxy(lambda: ("127.0.0.1", chosen.options.agent_port))
    await exits.enter_async_context(balancer)
    agent = await start_agent(proxy_server_port=balancer.port)
    await until(lambda: len(old.exchange.backends))
    tunnel = await open_tunnel("grpc", echoing.address)
    async with unharmed(tunnel):
        leaving = asyncio.create_task(old.stop())
        chosen = new
        await until(lambda: len(new.exchange.backends))
        await asyncio.sleep(0.5)
        assert len(agent.connections.links) == 2
    await tunnel.close()
    async with asyncio.timeout(3):
        await leaving
    await until(lambda: len(agent.connections.links) == 1)


async def test_w38_readiness_ends_first_and_health_answers_to_the_end(
    start_pair: StartPair,
    open_tunnel: OpenTunnel,
    server_options: dict[str, Any],
    echoing: Endpoint,
) -> None:
    pair = await start_pair(server={"graceful_shutdown_timeout": 30.0})
    tunnel = await open_tunnel("http-connect", echoing.address)
    port = server_options["health_port"]
    assert (await get(port, "/readyz"))[0] == 200
    leaving = asyncio.create_task(pair.server.stop())
    await asyncio.sleep(0.2)
    assert (await get(port, "/readyz"))[0] == 500
    assert (await get(port, "/healthz"))[0] == 200
    with pytest.raises(OSError, match=r".*"):
        await asyncio.open_connection("127.0.0.1", server_options["agent_port"])
    assert not await asyncio.to_thread(Path(server_options["uds_name"]).exists)
    await ping(tunnel)
    await tunnel.close()
    await leaving
    with pytest.raises(OSError, match=r".*"):
        await asyncio.open_connection("127.0.0.1", port)


async def test_w38_others_hear_first_that_a_server_leaves_and_cannot_hold_it_up(
    start_pair: StartPair,
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stopping, "FAREWELL_LIMIT", 0.3)
    pair = await start_pair(server={"graceful_shutdown_timeout": 30.0})
    tunnel = await open_tunnel("http-connect", echoing.address)
    said = asyncio.Event()

    async def say() -> None:
        said.set()

    async def fail() -> None:
        raise ConfigError("no such lease")

    pair.server.farewells += [say, fail, asyncio.Event().wait]
    leaving = asyncio.create_task(pair.server.stop())
    async with asyncio.timeout(1):
        await said.wait()
    await ping(tunnel)
    await log.wait_for("A farewell failed", "no such lease")
    await log.wait_for("No answer to a farewell in time")
    await tunnel.close()
    async with asyncio.timeout(3):
        await leaving


async def test_w37_a_graceful_stop_waits_for_http_connect_tunnels_and_ends_with_the_last(
    start_pair: StartPair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    pair = await start_pair(server={"graceful_shutdown_timeout": 30.0})
    tunnel = await open_tunnel("http-connect", echoing.address)
    leaving = asyncio.create_task(pair.server.stop())
    await asyncio.sleep(0.1)
    await ping(tunnel)
    await tunnel.close()
    async with asyncio.timeout(3):
        await leaving


async def test_a_second_signal_ends_the_server_at_once_with_status_1(
    server_options: dict[str, Any], authority: Authority, identity: Identity, open_proxy: OpenProxy
) -> None:
    options = server_options | {"graceful_shutdown_timeout": "30s"}
    async with running("server", *flags(**options)) as program:
        await program.line("Server is up")
        port = server_options["agent_port"]
        async with await FakeAgent.connect(port, authority, identity) as agent:
            await agent.answer()
            stream = await open_proxy()
            await stream.begin_dial("endpoint:1")
            await agent.accept()
            await stream.end_dial()
            program.signal(signal.SIGTERM)
            await program.line("Stopping")
            started = time.monotonic()
            program.signal(signal.SIGTERM)
            assert await program.status() == 1
            assert time.monotonic() - started < 2


async def test_a_draining_agent_gets_no_dials_while_there_is_another(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    """Scenarios 51 and 67."""
    server = await start_server()
    draining, other = await connect_agent("draining"), await connect_agent("other")
    await draining.send(schema.drain())
    backends = server.exchange.backends
    await until(lambda: all(backends.choose().agent_id == "other" for _ in range(20)))
    for _ in range(8):
        stream = await open_proxy()
        await stream.begin_dial("endpoint:1")
        await other.accept()
        await stream.end_dial()
    await draining.expect_silence()
