"""What the programs log: W73. Nothing for each tunnel unless asked for, as JSON if asked for."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import (
    MODES,
    Log,
    OpenTunnel,
    Pair,
    StartAgent,
    StartPair,
    StartServer,
    until,
)
from tests.net.authority import Authority
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ConnectClient, ping
from tests.peers.program import Program, flags, running

CONFIDENTIAL = "a-token-that-nobody-may-read"


async def carry(program: Program, start_agent: StartAgent, tunnel: OpenTunnel, to: str) -> None:
    """Let a tunnel live and end through the server `program`, then end the program."""
    await program.line("Server is up")
    await start_agent()
    await program.line("Agent connected")
    for mode in MODES:
        opened = await tunnel(mode, to)
        await ping(opened)
        await opened.close()
    await asyncio.sleep(0.1)
    program.signal(signal.SIGTERM)
    assert await program.status() == 0


async def test_w73_by_default_no_line_is_about_a_tunnel(
    server_options: dict[str, Any],
    start_agent: StartAgent,
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
) -> None:
    async with running("server", *flags(**server_options)) as program:
        await carry(program, start_agent, open_tunnel, echoing.address)
    assert not [line for line in program.lines if echoing.address in line]


async def test_w73_from_verbosity_5_tunnels_are_logged_with_their_destination_in_both_modes(
    server_options: dict[str, Any],
    start_agent: StartAgent,
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
) -> None:
    async with running("server", "-v=5", *flags(**server_options)) as program:
        await carry(program, start_agent, open_tunnel, echoing.address)
    opened = [line for line in program.lines if '"Tunnel opened"' in line]
    assert len(opened) == len(MODES)
    assert all(f'address="{echoing.address}"' in line for line in opened)


async def test_w73_with_json_every_line_is_an_object(
    server_options: dict[str, Any],
    start_agent: StartAgent,
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
) -> None:
    json_ = ["--log-format=json", "--access-log", "-v=5"]
    async with running("server", *json_, *flags(**server_options)) as program:
        await carry(program, start_agent, open_tunnel, echoing.address)
    records = [json.loads(line) for line in program.lines]
    assert all(list(each)[:5] == ["ts", "level", "v", "caller", "msg"] for each in records)
    by_message = {each["msg"]: each for each in records}
    assert by_message["Agent connected"]["agentID"] == "agent-1"
    assert by_message["Tunnel opened"]["address"] == echoing.address
    assert by_message["Tunnel opened"]["v"] == 5
    assert by_message["Access"]["bytesToEndpoint"] == by_message["Access"]["bytesFromEndpoint"]
    assert by_message["Access"]["bytesToEndpoint"] > 0


@pytest.mark.parametrize("mode", MODES)
async def test_w73_the_access_log_has_a_line_for_each_tunnel_at_both_ends(
    mode: str, start_pair: StartPair, open_tunnel: OpenTunnel, echoing: Endpoint, log: Log
) -> None:
    pair = await start_pair(server={"access_log": True}, agent={"access_log": True})
    for _ in range(2):
        tunnel = await open_tunnel(mode, echoing.address)
        await ping(tunnel, b"x" * 1000)
        await tunnel.close()
    await until(lambda: not pair.agent.connections.tunnels)
    lines = [line for line in log.lines if line.startswith('"Access"')]
    assert len(lines) == 4
    for line in lines:
        assert f'address="{echoing.address}" reason="frontend_close"' in line
        assert "bytesToEndpoint=1000 bytesFromEndpoint=1000 seconds=0." in line
    server_lines = [line for line in lines if 'agentID="agent-1"' in line]
    assert len(server_lines) == 2
    for line in server_lines:
        assert 'frontend="unix socket"' in line
        assert " dialSeconds=0.0" in line
        assert line.endswith(' error=""')


async def test_w73_the_access_log_has_failed_dials_too(
    start_pair: StartPair, open_tunnel: OpenTunnel, log: Log
) -> None:
    await start_pair(server={"access_log": True})
    with pytest.raises(Exception, match="refused"):
        await open_tunnel("grpc", "127.0.0.1:1")
    line = await log.wait_for('"Access"')
    assert 'address="127.0.0.1:1" reason="error_response" bytesToEndpoint=0' in line
    assert "connect: connection refused" in line


async def test_w73_the_access_log_is_off_unless_asked_for(
    pair: Pair, open_tunnel: OpenTunnel, echoing: Endpoint, log: Log
) -> None:
    tunnel = await open_tunnel("grpc", echoing.address)
    await ping(tunnel)
    await tunnel.close()
    await log.wait_for('"Tunnel ended"')
    await until(lambda: not pair.agent.connections.tunnels)
    assert not log.has('"Access"')


async def test_tunnels_that_end_as_they_should_are_neither_warnings_nor_errors(
    pair: Pair, open_tunnel: OpenTunnel, echoing: Endpoint, log: Log
) -> None:
    for mode in MODES:
        tunnel = await open_tunnel(mode, echoing.address)
        await ping(tunnel)
        await tunnel.close()
    await until(lambda: not pair.agent.connections.tunnels)
    await pair.agent.stop()
    await pair.server.stop()
    assert [record.getMessage() for record in log.records if record.levelname == "ERROR"] == []
    warnings = [record.getMessage() for record in log.records if record.levelname == "WARNING"]
    assert not [text for text in warnings if "unnel" in text], warnings


async def test_dials_that_find_no_agent_are_told_of_twice_not_each_time(
    server_options: dict[str, Any], http_connect: ConnectClient
) -> None:
    async with running("server", "-v=0", *flags(**server_options)) as program:
        await program.line("Server is up")
        for _ in range(20):
            assert b"No agent available" in await http_connect.answer_to("10.0.0.7:10250")
        program.signal(signal.SIGTERM)
        assert await program.status() == 0
    first, repeats = [line for line in program.lines if "No agent for a dial" in line]
    assert first.startswith("W")
    assert first.endswith('] "No agent for a dial" address="10.0.0.7:10250"')
    assert re.search(r'\] "No agent for a dial" repeated=19 seconds=\d$', repeats)


async def test_a_token_is_in_no_log_whatever_the_verbosity(
    start_server: StartServer,
    agent_options: dict[str, Any],
    authority: Authority,
    tmp_path: Path,
    log: Log,
) -> None:
    token = tmp_path / "token"
    token.write_text(CONFIDENTIAL)
    server = await start_server()
    own = {"sync_interval": "100ms", "sync_interval_cap": "1s", "service_account_token_path": token}
    argv = flags(**agent_options | own)
    async with running("agent", "-v=10", *argv) as program:
        await program.line("Connected to a server")
        await until(lambda: len(server.exchange.backends))
        program.signal(signal.SIGTERM)
        await program.line("Draining")
    assert not [line for line in program.lines if CONFIDENTIAL in line]
    assert not [line for line in log.lines if CONFIDENTIAL in line]
