"""A way between agent and server that drops everything, and says nothing of it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from tests.chaos.proxy import ChaosProxy
from tests.e2e.conftest import MODES, OpenTunnel, StartAgent, StartServer, until
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ping, read_all

from konnectivity.agent import app as agent_app
from konnectivity.wire.keepalive import Keepalive

SILENCE = 1.0
"""Seconds until either side pings the other."""
PATIENCE = 0.5
"""Seconds it waits for the answer."""


@pytest.mark.parametrize("mode", MODES)
async def test_a_silent_cut_ends_its_tunnels_on_both_sides_and_the_agent_comes_back(
    mode: str,
    start_server: StartServer,
    start_agent: StartAgent,
    exits: AsyncExitStack,
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Experiment 3, with shorter times than an operator may choose."""
    monkeypatch.setattr(agent_app, "SHORTEST_KEEPALIVE", SILENCE)
    defaults = Keepalive.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "ack_limit", PATIENCE)
    server = await start_server(keepalive_time=SILENCE)
    here = ("127.0.0.1", server.options.agent_port)
    cut, whole = [await exits.enter_async_context(ChaosProxy(here)) for _ in range(2)]
    way = cut
    balancer = await exits.enter_async_context(ChaosProxy(lambda: ("127.0.0.1", way.port)))
    await start_agent(proxy_server_port=balancer.port, keepalive_time=SILENCE)
    await until(lambda: len(server.exchange.backends))
    tunnel = await open_tunnel(mode, echoing.address)
    await ping(tunnel)

    cut.up.black_hole = cut.down.black_hole = True
    way = whole
    async with asyncio.timeout(2 * (SILENCE + PATIENCE) + 1):
        assert await read_all(tunnel) == b""
        await echoing.wait_until_open(0)
    assert server.exchange.counters.tunnels_ended == {"agent_lost": 1}
    async with asyncio.timeout(3):
        await until(lambda: len(server.exchange.backends))
        await ping(await open_tunnel(mode, echoing.address))
