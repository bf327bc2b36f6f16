"""A server of several processes, as agents, frontends and operators see it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import MODES, StartAgent, unharmed, until
from tests.e2e.test_starting import complaint, exists
from tests.peers.admin import following, get, status_of
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ConnectClient, GrpcClient, GrpcTunnel, Tunnel, ping
from tests.peers.metrics import Page
from tests.peers.program import Program, flags, running

from konnectivity.agent.app import Agent
from konnectivity.observe.status import ServerStatus

WORKERS = 3
PREFIX = "konnectivity_network_proxy_server_"


@pytest.fixture
def options(server_options: dict[str, Any]) -> dict[str, Any]:
    return server_options | {"mode": "grpc,http-connect", "workers": WORKERS}


@pytest.fixture
async def server(options: dict[str, Any]) -> AsyncIterator[Program]:
    async with running("server", *flags(**options)) as program:
        for number in range(WORKERS):
            await program.line(f'"Worker is up" worker={number}')
        yield program


@pytest.fixture
async def agent(server: Program, start_agent: StartAgent) -> Agent:
    """An agent on all workers."""
    agent = await start_agent(sync_interval=0.05)
    await until(lambda: len(agent.connections.links) == WORKERS)
    return agent


async def status(options: dict[str, Any], query: str = "") -> ServerStatus:
    found = await status_of(options["admin_port"], query)
    assert isinstance(found, ServerStatus)
    return found


async def metrics(options: dict[str, Any]) -> Page:
    return await Page.scrape(options["health_port"], PREFIX)


async def dial(stack: AsyncExitStack, options: dict[str, Any], mode: str, to: str) -> Tunnel:
    """A tunnel on a connection of its own, as kube-apiserver does it."""
    path = options["uds_name"]
    if mode == "grpc":
        client = await stack.enter_async_context(GrpcClient(f"unix:{path}"))
        stream = client.proxy()
        return GrpcTunnel(stream, await stream.dial(to))
    return await (await stack.enter_async_context(ConnectClient(path))).dial(to)


async def test_an_agent_finds_all_workers_without_a_lottery(
    agent: Agent, options: dict[str, Any]
) -> None:
    found = await status(options)
    assert found.server.workers == WORKERS
    assert [each.connections for each in found.agents] == [WORKERS]
    ids = {link.server_id for link in agent.connections.links}
    base = found.server.id
    assert ids == {f"{base}-{number}" for number in range(WORKERS)}
    assert all(each.dials == 0 for each in found.agents)
    page = await metrics(options)
    assert page.value("workers") == WORKERS
    assert page.value("ready_backend_connections") == WORKERS


@pytest.mark.parametrize("mode", MODES)
async def test_tunnels_of_all_workers_are_shown_as_those_of_one_server(
    mode: str, agent: Agent, options: dict[str, Any], echoing: Endpoint
) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(8):
            await ping(await dial(stack, options, mode, echoing.address))
        found = await status(options)
        assert found.tunnel_counts.open == 8
        assert len({each.id for each in found.tunnels}) == 8
        assert [each.tunnels.open for each in found.agents] == [8]
        parts = [await status(options, f"?worker={number}") for number in range(WORKERS)]
        assert sum(each.tunnel_counts.open for each in parts) == 8
        page = await metrics(options)
        assert page.value("established_connections") == 8


async def test_a_worker_that_dies_takes_its_own_tunnels_only_and_comes_back(
    server: Program, agent: Agent, options: dict[str, Any], echoing: Endpoint
) -> None:
    async with AsyncExitStack() as stack:
        tunnels = [await dial(stack, options, "http-connect", echoing.address) for _ in range(9)]
        for tunnel in tunnels:
            await ping(tunnel)
        victim = 1
        process = await pid_of(server, victim)
        dies_with_it = (await status(options, f"?worker={victim}")).tunnel_counts.open
        os.kill(process, signal.SIGKILL)
        await server.line(f'"Worker is gone" worker={victim}')
        alive = [tunnel for tunnel in tunnels if await answers(tunnel)]
        assert len(alive) == len(tunnels) - dies_with_it
        async with AsyncExitStack() as watched:
            for tunnel in alive:
                await watched.enter_async_context(unharmed(tunnel))
            await until(lambda: len(agent.connections.links) == WORKERS)
        for _ in range(6):
            await ping(await dial(stack, options, "http-connect", echoing.address))
    assert await pid_of(server, victim) != process
    page = await metrics(options)
    assert page.value("worker_restarts_total") == 1


async def test_events_of_all_workers_are_told_with_their_number(
    agent: Agent, options: dict[str, Any]
) -> None:
    async with following(options["admin_port"], "?after=x") as follower:
        numbers = {
            (await follower.event("agent_connected")).facts["worker"] for _ in range(WORKERS)
        }
    assert numbers == set(range(WORKERS))


async def test_while_agents_are_missing_the_server_says_so(
    server: Program, options: dict[str, Any]
) -> None:
    code, _, text = await get(options["health_port"], "/readyz")
    assert (code, text) == (500, "no connection to any proxy agent")
    code, _, text = await get(options["admin_port"], "/api/v1/status?worker=3")
    assert (code, text) == (400, "worker must be 0 to 2\n")


async def test_a_signal_ends_all_processes_in_order(
    server: Program, agent: Agent, options: dict[str, Any]
) -> None:
    processes = [await pid_of(server, number) for number in range(WORKERS)]
    server.signal(signal.SIGTERM)
    assert await server.status() == 0
    assert not any(map(_runs, processes))
    assert not exists(options["uds_name"])
    assert sum('"Server stopped"' in line for line in server.lines) == WORKERS


async def test_no_process_outlives_the_supervisor(server: Program, options: dict[str, Any]) -> None:
    processes = [await pid_of(server, number) for number in range(WORKERS)]
    server.signal(signal.SIGKILL)
    await until(lambda: not any(map(_runs, processes)))


@pytest.mark.parametrize("flag", ["health_port", "admin_port", "agent_port"])
async def test_a_taken_port_is_named_once(flag: str, options: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", options[flag])):
        async with running("server", *flags(**options)) as program:
            assert f"--{flag.replace('_', '-')}" in await complaint(program)


async def test_a_broken_certificate_is_named_once(options: dict[str, Any], folder: Path) -> None:
    broken = folder / "broken.crt"
    broken.write_text("no certificate")
    async with running("server", *flags(**options | {"cluster_cert": broken})) as program:
        assert str(broken) in await complaint(program)


async def test_a_number_of_workers_that_makes_no_sense_is_refused(
    options: dict[str, Any],
) -> None:
    async with running("server", *flags(**options | {"workers": 0})) as program:
        assert "workers must be 1 to 64, got 0" in await complaint(program)


async def pid_of(server: Program, number: int) -> int:
    """The process of a worker, from the last of its log lines."""
    await server.line(f'"Server is up" serverID="{server_id(server)}-{number}"')
    line = [each for each in server.lines if f'-{number}" mode=' in each][-1]
    return int(line.split()[2])


def server_id(server: Program) -> str:
    line = next(each for each in server.lines if '"Server is up"' in each)
    return line.split('serverID="')[1].split('"')[0].rpartition("-")[0]


async def answers(tunnel: Tunnel) -> bool:
    try:
        await ping(tunnel)
    except (AssertionError, OSError, EOFError, asyncio.IncompleteReadError):
        return False
    return True


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie, which somebody else has to bury."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
