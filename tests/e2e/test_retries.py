"""Agents that die without a word, and dials that go on at another agent."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from tests.chaos.proxy import ChaosProxy
from tests.e2e.conftest import (
    MODES,
    ConnectAgent,
    OpenProxy,
    OpenTunnel,
    StartServer,
    until,
)
from tests.net.authority import Authority, Identity
from tests.peers import schema
from tests.peers.agent import FakeAgent
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import Refused, ping
from tests.peers.ports import free_port
from tests.peers.program import flags, running

from konnectivity.agent.endpoint import TOO_MANY
from konnectivity.server import liveness
from konnectivity.server.app import Server
from konnectivity.tunnel.budget import TunnelLimits

FIRST_CHOICE = [("agentid", "first"), ("agentidentifiers", "host=endpoint")]
"""What makes an agent the one that a dial to `endpoint` goes to, with STRATEGIES."""
STRATEGIES = "destHost,default"
TICK, GIVE_UP = liveness.TICK / 2, liveness.GIVE_UP / 2
NOTICED = 3 * TICK + GIVE_UP + 1.0
"""Seconds in which a dead agent's dial is elsewhere, with one for a busy machine."""


@pytest.fixture(autouse=True)
def twice_as_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "TICK", TICK)
    monkeypatch.setattr(liveness, "GIVE_UP", GIVE_UP)


ConnectVia = Callable[[Server], Awaitable[tuple[FakeAgent, ChaosProxy]]]


@pytest.fixture
async def connect_via(authority: Authority, identity: Identity) -> AsyncIterator[ConnectVia]:
    """The agent of first choice, behind a way that can fail."""
    async with AsyncExitStack() as stack:

        async def connect(server: Server) -> tuple[FakeAgent, ChaosProxy]:
            target = ("127.0.0.1", server.options.agent_port)
            way = await stack.enter_async_context(ChaosProxy(target))
            agent = await stack.enter_async_context(
                await FakeAgent.connect(way.port, authority, identity, metadata=FIRST_CHOICE)
            )
            await agent.answer()
            return agent, way

        yield connect


def fall_silent(way: ChaosProxy) -> None:
    way.up.black_hole = way.down.black_hole = True


async def test_w53_a_dial_to_an_agent_that_died_silently_goes_on_at_another_within_seconds(
    start_server: StartServer,
    connect_via: ConnectVia,
    connect_agent: ConnectAgent,
    open_tunnel: OpenTunnel,
) -> None:
    server = await start_server(proxy_strategies=STRATEGIES, keepalive_time=3600.0)
    _, way = await connect_via(server)
    other = await connect_agent("other")
    fall_silent(way)
    started = time.monotonic()
    dialing = asyncio.create_task(open_tunnel("http-connect", "endpoint:1"))
    await other.accept()
    await dialing
    assert time.monotonic() - started < NOTICED
    counters = server.exchange.counters
    assert (counters.dial_retries, counters.dial_failures) == (1, {})
    # Nothing was open on the dead connection: it is closed, and gets no further dials.
    await until(lambda: len(server.exchange.backends) == 1)


async def test_w53_a_dial_to_the_only_agent_fails_within_seconds_when_that_is_dead(
    start_server: StartServer, connect_via: ConnectVia, open_proxy: OpenProxy
) -> None:
    server = await start_server(keepalive_time=3600.0)
    _, way = await connect_via(server)
    fall_silent(way)
    stream = await open_proxy()
    async with asyncio.timeout(NOTICED):
        with pytest.raises(Refused, match="context canceled"):
            await stream.dial("endpoint:1")
    assert not server.exchange.backends.ready
    assert server.exchange.counters.dial_failures == {"backend_close": 1}


async def test_w53_a_pause_of_the_network_costs_dials_a_detour_and_tunnels_nothing(
    start_server: StartServer,
    connect_via: ConnectVia,
    connect_agent: ConnectAgent,
    open_proxy: OpenProxy,
) -> None:
    server = await start_server(proxy_strategies=STRATEGIES, keepalive_time=3600.0)
    agent, way = await connect_via(server)
    other = await connect_agent("other")
    session = await open_proxy()
    await session.begin_dial("endpoint:1")
    await agent.accept()
    await session.end_dial()
    way.up.stall()
    way.down.stall()
    stream = await open_proxy()
    await stream.begin_dial("endpoint:2")
    await other.accept()
    await stream.end_dial()
    # While it is silent, new dials go to the other one at once.
    third = await open_proxy()
    started = time.monotonic()
    await third.begin_dial("endpoint:3")
    await other.accept()
    await third.end_dial()
    assert time.monotonic() - started < 2 * TICK
    way.up.go_on()
    way.down.go_on()
    moved = await agent.expect(schema.DIAL_REQ)
    assert moved.dialRequest.address == "endpoint:2"
    assert (await agent.expect(schema.DIAL_CLS)).closeDial.random == moved.dialRequest.random
    # A late success opens nothing.
    await agent.send(schema.dial_response(moved.dialRequest.random, 9), schema.data(1, b"on"))
    assert (await agent.expect(schema.CLOSE_REQ)).closeRequest.connectID == 9
    assert await session.collect(2) == b"on"
    assert server.exchange.counters.dial_retries == 1


async def test_w53_an_agent_that_answers_pings_may_take_its_time_for_a_dial(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    server = await start_server(proxy_strategies=STRATEGIES)
    slow = await connect_agent(metadata=FIRST_CHOICE)
    other = await connect_agent("other")
    stream = await open_proxy()
    await stream.begin_dial("endpoint:1")
    dial = await slow.expect(schema.DIAL_REQ)
    await asyncio.sleep(NOTICED)
    await slow.send(schema.dial_response(dial.dialRequest.random, 1))
    assert await stream.end_dial() == 1
    await other.expect_silence()
    assert server.exchange.counters.dial_retries == 0


async def test_w53_an_agent_that_hangs_is_found_like_one_that_is_gone(
    start_server: StartServer,
    agent_options: dict[str, Any],
    connect_agent: ConnectAgent,
    open_tunnel: OpenTunnel,
) -> None:
    """Its kernel still acknowledges what is sent: only the process can tell that it lives."""
    server = await start_server(proxy_strategies=STRATEGIES, keepalive_time=3600.0)
    options = agent_options | {
        "agent_identifiers": "host=endpoint",
        "sync_interval": "100ms",
        "sync_interval_cap": "300ms",
        "health_server_port": free_port(),
        "admin_server_port": free_port(),
    }
    async with running("agent", *flags(**options)) as program:
        await until(lambda: len(server.exchange.backends) == 1)
        other = await connect_agent("other")
        program.signal(signal.SIGSTOP)
        dialing = asyncio.create_task(open_tunnel("grpc", "endpoint:1"))
        await other.accept()
        await dialing
        await until(lambda: len(server.exchange.backends) == 1)
        program.signal(signal.SIGCONT)
        await until(lambda: len(server.exchange.backends) == 2)  # and is back when it runs again


@pytest.mark.parametrize("mode", MODES)
async def test_w53_a_dial_goes_on_at_another_agent_when_its_own_is_lost(
    mode: str, start_server: StartServer, connect_agent: ConnectAgent, open_tunnel: OpenTunnel
) -> None:
    server = await start_server(proxy_strategies=STRATEGIES)
    first = await connect_agent(metadata=FIRST_CHOICE)
    other = await connect_agent("other")
    dialing = asyncio.create_task(open_tunnel(mode, "endpoint:1"))
    asked = await first.expect(schema.DIAL_REQ)
    await first.leave()
    again, _ = await other.accept()
    await dialing
    assert again.dialRequest.address == "endpoint:1"
    assert again.dialRequest.random == asked.dialRequest.random
    counters = server.exchange.counters
    assert (counters.dial_retries, counters.dial_failures) == (1, {})
    assert (counters.pending_dials, counters.established) == (0, 1)


BUSY = [
    TOO_MANY,
    "too many dials pending",
    "dial tcp 10.0.0.1:443: socket: too many open files",
]
NOT_BUSY = [
    "dial tcp 10.0.0.1:443: connect: connection refused",
    "dial tcp 10.0.0.1:443: i/o timeout",
    "dial tcp 169.254.169.254:80: not allowed by --allow-destinations",
]


@pytest.mark.parametrize("text", ["DIAL_CLS", *BUSY])
async def test_w53_a_dial_that_an_agent_has_no_room_for_goes_to_another(
    text: str, start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    await start_server(proxy_strategies=STRATEGIES)
    first = await connect_agent(metadata=FIRST_CHOICE)
    other = await connect_agent("other")
    stream = await open_proxy()
    await stream.begin_dial("endpoint:1")
    random = (await first.expect(schema.DIAL_REQ)).dialRequest.random
    await first.send(refusal(random, text))
    await other.accept()
    await stream.end_dial()


def refusal(random: int, text: str) -> Any:
    """How an agent refuses a dial."""
    if text == "DIAL_CLS":
        return schema.dial_close(random)
    return schema.dial_response(random, 0, error=text)


@pytest.mark.parametrize("text", NOT_BUSY)
async def test_a_dial_that_the_endpoint_or_the_policy_refused_is_not_tried_again(
    text: str, start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    server = await start_server(proxy_strategies=STRATEGIES)
    first = await connect_agent(metadata=FIRST_CHOICE)
    other = await connect_agent("other")
    stream = await open_proxy()
    await stream.begin_dial("endpoint:1")
    random = (await first.expect(schema.DIAL_REQ)).dialRequest.random
    await first.send(refusal(random, text))
    with pytest.raises(Refused) as refused:
        await stream.end_dial()
    assert str(refused.value) == text
    await other.expect_silence()
    assert server.exchange.counters.dial_retries == 0


async def test_a_dial_beyond_an_agents_limit_goes_to_another(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    limits = TunnelLimits(pending_dials=1)
    server = await start_server(proxy_strategies=STRATEGIES, limits=limits)
    full = await connect_agent(metadata=FIRST_CHOICE)
    other = await connect_agent("other")
    waiting, stream = await open_proxy(), await open_proxy()
    await waiting.begin_dial("endpoint:1")
    await full.expect(schema.DIAL_REQ)
    await stream.begin_dial("endpoint:2")
    await other.expect(schema.DIAL_REQ)
    last = await open_proxy()
    with pytest.raises(Refused, match="too many dials pending at agent other"):
        await last.dial("endpoint:3")
    assert server.exchange.counters.dial_failures == {"limit": 1}
    await full.expect_silence()


async def test_a_dial_is_never_tried_a_third_time(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    server = await start_server()
    agents = {name: await connect_agent(name) for name in ("one", "two", "three")}
    stream = await open_proxy()
    await stream.begin_dial("endpoint:1")
    for _ in range(2):
        await until(lambda: any(agent.waiting for agent in agents.values()))
        name = next(name for name, agent in agents.items() if agent.waiting)
        asked = agents.pop(name)
        random = (await asked.expect(schema.DIAL_REQ)).dialRequest.random
        await asked.send(schema.dial_close(random))
    with pytest.raises(Refused, match="dial closed"):
        await stream.end_dial()
    (third,) = agents.values()
    await third.expect_silence()
    counters = server.exchange.counters
    assert counters.dial_retries == 1
    assert counters.dial_failures == {"backend_close": 1}


async def test_a_second_try_has_the_rest_of_the_dials_time(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    await start_server(proxy_strategies=STRATEGIES, backend_dial_timeout=1.0)
    first = await connect_agent(metadata=FIRST_CHOICE)
    other = await connect_agent("other")
    stream = await open_proxy()
    started = time.monotonic()
    await stream.begin_dial("endpoint:1")
    random = (await first.expect(schema.DIAL_REQ)).dialRequest.random
    await asyncio.sleep(0.6)
    await first.send(schema.dial_close(random))
    await other.expect(schema.DIAL_REQ)
    with pytest.raises(Refused, match="timed out waiting for backend dial"):
        await stream.end_dial()
    assert 0.9 < time.monotonic() - started < 1.5
    assert (await other.expect(schema.DIAL_CLS)).closeDial.random == random
    await first.expect_silence()


async def test_a_frontend_that_leaves_cancels_its_dial_where_it_went(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    server = await start_server(proxy_strategies=STRATEGIES)
    first = await connect_agent(metadata=FIRST_CHOICE)
    other = await connect_agent("other")
    stream = await open_proxy()
    await stream.begin_dial("endpoint:1")
    random = (await first.expect(schema.DIAL_REQ)).dialRequest.random
    await first.send(schema.dial_close(random))
    await other.expect(schema.DIAL_REQ)
    await stream.leave()
    assert (await other.expect(schema.DIAL_CLS)).closeDial.random == random
    await first.expect_silence()
    assert server.exchange.counters.pending_dials == 0


@pytest.mark.parametrize("mode", MODES)
async def test_a_tunnel_that_was_open_is_never_moved(
    mode: str,
    start_server: StartServer,
    connect_agent: ConnectAgent,
    open_tunnel: OpenTunnel,
) -> None:
    server = await start_server(proxy_strategies=STRATEGIES)
    first = await connect_agent(metadata=FIRST_CHOICE)
    other = await connect_agent("other")
    dialing = asyncio.create_task(open_tunnel(mode, "endpoint:1"))
    await first.accept()
    tunnel = await dialing
    await first.leave()
    assert await tunnel.read() == b""
    await other.expect_silence()
    assert server.exchange.counters.tunnels_ended == {"agent_lost": 1}


async def test_without_retries_a_failed_dial_is_the_frontends_affair(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    server = await start_server(proxy_strategies=STRATEGIES, retry_dials=False)
    first = await connect_agent(metadata=FIRST_CHOICE)
    other = await connect_agent("other")
    stream = await open_proxy()
    await stream.begin_dial("endpoint:1")
    await first.expect(schema.DIAL_REQ)
    await first.leave()
    with pytest.raises(Refused, match="context canceled"):
        await stream.end_dial()
    await other.expect_silence()
    assert server.exchange.counters.dial_retries == 0


async def test_w53_pings_towards_agents_are_ten_seconds_apart_and_stock_agents_answer_them(
    start_server: StartServer, connect_agent: ConnectAgent
) -> None:
    server = await start_server()
    assert server.options.keepalive_time == 10.0
    await connect_agent()
    (stream,) = server.exchange.backends.streams()
    stream.probe()
    assert stream.silence is not None
    await until(lambda: stream.silence is None)


async def test_a_second_try_serves_a_real_endpoint(
    start_server: StartServer,
    start_agent: Any,
    connect_agent: ConnectAgent,
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
) -> None:
    server = await start_server(proxy_strategies=STRATEGIES)
    host = echoing.address.rpartition(":")[0]
    metadata = [("agentid", "first"), ("agentidentifiers", f"host={host}")]
    first = await connect_agent(metadata=metadata)
    await start_agent()
    await until(lambda: len(server.exchange.backends) == 2)
    dialing = asyncio.create_task(open_tunnel("http-connect", echoing.address))
    await first.expect(schema.DIAL_REQ)
    await first.leave()
    await ping(await dialing)
