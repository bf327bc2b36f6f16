"""Experiments that users' troubles suggest, each short here and long under `make soak`.

A stalled reader among many tunnels, and tunnels that come and go for hours. The others stand
with their subjects: black holes and silent cuts in `test_limits.py`, lost servers and storms of
agents in `test_convergence.py`, drains in `test_draining.py`, rotation in `test_rotation.py`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import MODES, OpenTunnel, Pair, StartEndpoint, unharmed, until
from tests.e2e.soak import SECONDS, soaking
from tests.peers.endpoint import Endpoint, pour
from tests.peers.frontend import ConnectClient, GrpcClient, GrpcTunnel, Tunnel, ping
from tests.peers.leaks import descriptors

PAGE = os.sysconf("SC_PAGE_SIZE")


@soaking(short=20, long=199)
@pytest.mark.parametrize("mode", MODES)
async def test_one_stalled_reader_leaves_all_others_their_round_trips(
    mode: str,
    much: int,
    pair: Pair,
    open_tunnel: OpenTunnel,
    start_endpoint: StartEndpoint,
    echoing: Endpoint,
) -> None:
    """Experiment 1."""
    others = [await open_tunnel(mode, echoing.address) for _ in range(much)]
    stalled = await open_tunnel(mode, (await start_endpoint(pour)).address)
    stalled.pause()
    async with AsyncExitStack() as all_of_them:
        for tunnel in others:
            await all_of_them.enter_async_context(unharmed(tunnel, within=2))
        await asyncio.sleep(1.0 if much < 100 else 30.0)
    assert pair.server.exchange.counters.established == much + 1
    assert pair.server.exchange.budget.overflows == 0


@soaking(short=1.5, long=SECONDS)
async def test_tunnels_that_come_and_go_leave_nothing_behind(
    much: float,
    pair: Pair,
    server_options: dict[str, Any],
    echoing: Endpoint,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Experiment 10: memory, descriptors, tasks and objects stay where they are."""

    socket = server_options["uds_name"]
    caplog.set_level(logging.ERROR, "konnectivity")  # pytest keeps every record

    async def churn(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            async with (
                asyncio.timeout(10),
                GrpcClient(f"unix:{socket}") as client,
                ConnectClient(socket) as http_connect,
            ):
                await asyncio.gather(
                    *(_grpc_tunnel(client, echoing.address) for _ in range(4)),
                    *(_use(http_connect.dial(echoing.address)) for _ in range(4)),
                )
        counters = pair.server.exchange.counters
        await until(lambda: not (counters.established or pair.agent.connections.tunnels))
        await until(lambda: not (echoing.open or counters.http_connections))
        await until(lambda: not counters.open_calls["Proxy"])

    await churn(1.0)
    before = _inventory()
    await churn(much)
    await until(lambda: len(descriptors()) <= before["descriptors"])
    await until(lambda: len(asyncio.all_tasks()) <= before["tasks"])
    after = _inventory()
    assert after["objects"] <= before["objects"] * 1.01
    if much > 60:
        assert after["resident"] <= before["resident"] * 1.1
    assert pair.server.exchange.budget.held == pair.agent.connections.budget.held == 0


async def _use(dialing: Awaitable[Tunnel]) -> None:
    tunnel = await dialing
    await ping(tunnel)
    await tunnel.close()


async def _grpc_tunnel(client: GrpcClient, address: str) -> None:
    stream = client.proxy()
    tunnel = GrpcTunnel(stream, await stream.dial(address))
    await ping(tunnel)
    await tunnel.close()


def _inventory() -> dict[str, int]:
    gc.collect()
    return {
        "descriptors": len(descriptors()),
        "tasks": len(asyncio.all_tasks()),
        "objects": len(gc.get_objects()),
        "resident": int(Path("/proc/self/statm").read_text().split()[1]) * PAGE,
    }
