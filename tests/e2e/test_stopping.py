"""Stopping is bounded, orderly and clean: W35."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import grpc
import pytest
from tests.e2e.conftest import (
    MODES,
    ConnectAgent,
    OpenProxy,
    OpenTunnel,
    Pair,
    StartPair,
    StartServer,
    until,
)
from tests.net.authority import Authority, Identity
from tests.peers import schema
from tests.peers.agent import FakeAgent
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ConnectClient, ping, read_all
from tests.peers.program import flags, running


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
async def test_a_graceful_stop_waits_for_tunnels_and_no_longer_than_asked(
    mode: str, start_pair: StartPair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    pair = await start_pair(server={"graceful_shutdown_timeout": 0.5})
    tunnel = await open_tunnel(mode, echoing.address)
    started = time.monotonic()
    stopping = asyncio.create_task(pair.server.stop())
    await asyncio.sleep(0.2)
    await ping(tunnel)
    assert await read_all(tunnel) == b""
    await stopping
    assert 0.4 < time.monotonic() - started < 3


async def test_a_graceful_stop_ends_with_the_last_tunnel(
    start_pair: StartPair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    pair = await start_pair(server={"graceful_shutdown_timeout": 30.0})
    tunnel = await open_tunnel("http-connect", echoing.address)
    stopping = asyncio.create_task(pair.server.stop())
    await asyncio.sleep(0.1)
    await ping(tunnel)
    await tunnel.close()
    async with asyncio.timeout(3):
        await stopping


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


async def test_a_draining_agent_that_is_the_only_one_still_serves(
    pair: Pair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    old = await open_tunnel("grpc", echoing.address)
    pair.agent.drain()
    chosen = pair.server.exchange.backends.choose()
    assert chosen is not None
    await until(lambda: chosen.draining)
    await ping(old)
    for mode in MODES:
        await ping(await open_tunnel(mode, echoing.address))


async def test_a_draining_agent_gets_no_dials_while_there_is_another(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
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
