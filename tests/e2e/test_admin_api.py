"""The status that running programs give is so; W79."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from tests.e2e.conftest import (
    MODES,
    ConnectAgent,
    Log,
    OpenProxy,
    OpenTunnel,
    Pair,
    StartAgent,
    StartFakeServer,
    StartPair,
    StartServer,
    until,
)
from tests.peers import schema
from tests.peers.admin import agent_status, get, server_status
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ConnectClient, Refused, ping
from tests.peers.ports import free_port

from konnectivity import __version__
from konnectivity.observe.status import Tunnel

# The server's status


async def test_w79_the_status_lists_agents_and_tunnels(
    start_pair: StartPair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    identifiers = "host=node-1&host=Node-2&ipv4=10.0.0.7&default-route=true"
    pair = await start_pair(agent={"agent_identifiers": identifiers})
    grpc_tunnel = await open_tunnel("grpc", echoing.address)
    connect_tunnel = await open_tunnel("http-connect", echoing.address)
    await ping(grpc_tunnel, b"12345")
    await ping(connect_tunnel, b"1234567")
    status = await server_status(pair.server)
    assert abs(status.generated_at - time.time()) < 5
    (agent,) = status.agents
    assert (agent.id, agent.version, agent.credit) == ("agent-1", __version__, True)
    assert agent.identifiers == {
        "default-route": ("true",),
        "host": ("Node-2", "node-1"),
        "ipv4": ("10.0.0.7",),
    }
    assert agent.address.startswith("127.0.0.1:")
    assert 0 <= status.generated_at - agent.connected_since < 60
    assert agent.certificate is not None
    assert agent.certificate.not_after > time.time()
    assert (agent.tunnels.dialing, agent.tunnels.open, agent.tunnels.closing) == (0, 2, 0)
    assert (agent.traffic.up, agent.traffic.down) == (12, 12)
    assert (agent.dials, agent.dials_failed, agent.draining) == (2, 0, False)
    assert status.tunnel_counts == agent.tunnels
    assert [(t.id, t.mode, t.traffic.up, t.state) for t in status.tunnels] == [
        (1, "grpc", 5, "open"),
        (2, "http-connect", 7, "open"),
    ]
    assert {t.destination for t in status.tunnels} == {echoing.address}
    assert {t.peer for t in status.tunnels} == {"agent-1"}
    assert all(0 <= status.generated_at - t.since < 60 for t in status.tunnels)


async def test_the_round_trip_to_an_agent_is_measured(pair: Pair) -> None:
    async def trip() -> float | None:
        return (await server_status(pair.server)).agents[0].round_trip

    async with asyncio.timeout(5):
        while (seconds := await trip()) is None:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)
    assert 0 < seconds < 1


async def test_asking_often_does_not_ping_often(pair: Pair, log: Log) -> None:
    (before,) = pair.server.exchange.backends.streams()
    for _ in range(20):
        status = await agent_status(pair.agent)
        await server_status(pair.server)
    assert status.servers[0].round_trip is not None
    await asyncio.sleep(0.1)
    assert list(pair.server.exchange.backends.streams()) == [before]
    assert not log.has("pings too often")


async def test_the_server_says_what_it_is(start_server: StartServer) -> None:
    server = await start_server(max_tunnels=50)
    status = await server_status(server)
    program = status.server
    assert (program.id, program.version) == ("server-1", __version__)
    assert (program.state, program.ready) == ("running", False)
    assert program.unready == "no connection to any proxy agent"
    assert (program.modes, program.strategies) == (("grpc", "http-connect"), ("default",))
    assert {each.name: (each.address, each.tls) for each in program.listeners} == {
        "frontend": (server.options.uds_name, False),
        "agent": (f"127.0.0.1:{server.options.agent_port}", True),
        "health": (f"127.0.0.1:{server.options.health_port}", False),
        "admin": (f"127.0.0.1:{server.options.admin_port}", False),
    }
    limits = {each.name: (each.used, each.limit) for each in program.limits}
    assert limits["tunnels"] == (0, 50)
    assert limits["pendingDials"][0] == 0
    cluster = next(each for each in program.certificates if each.name == "cluster-cert")
    assert cluster.not_before < time.time() < cluster.not_after
    assert cluster.fingerprint_sha256 == cluster.disk_fingerprint_sha256
    assert status.tunnels == status.agents == ()


async def test_a_stock_agent_is_known_by_its_user_agent(
    start_server: StartServer, connect_agent: ConnectAgent
) -> None:
    server = await start_server()
    await connect_agent()
    (agent,) = (await server_status(server)).agents
    assert agent.software.startswith("grpc-python")
    assert (agent.version, agent.credit, agent.identifiers) == ("", False, {})


async def test_what_an_agent_announces_is_cut(
    start_server: StartServer, connect_agent: ConnectAgent
) -> None:
    server = await start_server()
    many = "&".join(f"host=h{number}" for number in range(1000))
    announced = [
        ("agentid", "a"),
        ("konnectivity-version", "9" * 5000),
        ("agentidentifiers", many),
    ]
    agent = await connect_agent(metadata=announced)
    assert (await agent.answer())["konnectivity-version"] == __version__
    (peer,) = (await server_status(server)).agents
    assert peer.version == "9" * 64
    assert len(peer.identifiers["host"]) == 64


@pytest.mark.parametrize("mode", MODES)
async def test_tunnels_are_seen_in_each_state(
    mode: str,
    start_server: StartServer,
    connect_agent: ConnectAgent,
    open_proxy: OpenProxy,
    http_connect: ConnectClient,
) -> None:
    server = await start_server()
    agent = await connect_agent()

    async def the_tunnel() -> Tunnel:
        (tunnel,) = (await server_status(server)).tunnels
        return tunnel

    if mode == "grpc":
        stream = await open_proxy()
        await stream.begin_dial("endpoint:1")
    else:
        client = await http_connect.ask("endpoint:1")
    dial = await agent.expect(schema.DIAL_REQ)
    dialing = await the_tunnel()
    assert (dialing.state, dialing.mode, dialing.destination) == ("dialing", mode, "endpoint:1")
    assert (await server_status(server)).dials.pending == 1
    await agent.send(schema.dial_response(dial.dialRequest.random, 5))
    await until(lambda: server.exchange.counters.established)
    opened = await the_tunnel()
    assert (opened.state, opened.id) == ("open", dialing.id)
    assert opened.since >= dialing.since - 0.1
    if mode == "grpc":
        await stream.end_dial()
        await stream.send(schema.close_request(5))
    else:
        await client.close()
    await agent.expect(schema.CLOSE_REQ)
    assert (await the_tunnel()).state == "closing"
    assert (await server_status(server)).tunnel_counts.closing == 1
    await agent.send(schema.close_response(5))
    async with asyncio.timeout(5):
        while (await server_status(server)).tunnels:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("query", "listed"), [("?tunnels=2", [1, 2]), ("?tunnels=0", [])])
async def test_as_many_tunnels_are_listed_as_asked_for_oldest_first(
    query: str, listed: list[int], pair: Pair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    tunnels = [await open_tunnel("http-connect", echoing.address) for _ in range(3)]
    status = await server_status(pair.server, query)
    assert [each.id for each in status.tunnels] == listed
    assert status.tunnel_counts.open == len(tunnels)


@pytest.mark.parametrize("query", ["?tunnels=x", "?tunnels=-1"])
async def test_a_bad_query_is_refused(query: str, start_server: StartServer) -> None:
    server = await start_server()
    status, _, body = await get(server.options.admin_port, f"/api/v1/status{query}")
    assert (status, body) == (400, "tunnels must be a number of 0 or more\n")


async def test_failed_dials_are_remembered_with_their_reason(
    start_server: StartServer, start_agent: StartAgent, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    server = await start_server()
    with pytest.raises(Refused):
        await open_tunnel("http-connect", "endpoint:1")
    await start_agent()
    await until(lambda: len(server.exchange.backends))
    closed = f"127.0.0.1:{free_port()}"
    with pytest.raises(Refused):
        await open_tunnel("http-connect", closed)
    await open_tunnel("http-connect", echoing.address)
    dials = (await server_status(server)).dials
    assert (dials.succeeded, dials.failed) == (1, {"error_response": 1, "no_agent": 1})
    assert [(each.destination, each.peer, each.result) for each in dials.recent] == [
        (echoing.address, "agent-1", "ok"),
        (closed, "agent-1", "error_response"),
        ("endpoint:1", "", "no_agent"),
    ]
    assert dials.recent_failures == dials.recent[1:]
    assert "connection refused" in dials.recent[1].error
    assert 0 <= dials.recent[0].seconds < 5


async def test_a_limit_that_is_reached_shows(
    start_pair: StartPair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    pair = await start_pair(server={"max_tunnels": 1})
    await open_tunnel("http-connect", echoing.address)
    with pytest.raises(Refused):
        await open_tunnel("http-connect", "endpoint:1")
    status = await server_status(pair.server)
    limits = {each.name: (each.used, each.limit) for each in status.server.limits}
    assert limits["tunnels"] == (1, 1)
    failed = status.dials.recent_failures[0]
    assert (failed.destination, failed.result) == ("endpoint:1", "limit")


async def test_a_draining_agent_is_seen_to(pair: Pair) -> None:
    pair.agent.connections.drain()
    await until(lambda: all(each.draining for each in pair.server.exchange.backends.streams()))
    assert (await server_status(pair.server)).agents[0].draining
    program = (await agent_status(pair.agent)).agent
    assert (program.state, program.ready) == ("draining", False)


# The agent's status


async def test_the_agent_lists_servers_and_tunnels(
    pair: Pair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    tunnel = await open_tunnel("grpc", echoing.address)
    await ping(tunnel, b"12345")
    status = await agent_status(pair.agent)
    assert (status.agent.id, status.agent.ready, status.servers_wanted) == ("agent-1", True, 1)
    (server,) = status.servers
    assert (server.id, server.version, server.credit) == ("server-1", __version__, True)
    assert server.address == f"127.0.0.1:{pair.server.options.agent_port}"
    assert server.certificate is not None
    assert (server.traffic.up, server.traffic.down, server.tunnels.open) == (5, 5, 1)
    (seen,) = status.tunnels
    assert (seen.destination, seen.peer, seen.state) == (echoing.address, "server-1", "open")
    assert (seen.traffic.up, seen.mode, seen.frontend) == (5, "", "")
    assert [each.result for each in status.dials.recent] == ["ok"]
    names = [each.name for each in status.agent.certificates]
    assert names == ["agent-cert", "ca-cert"]
    await tunnel.close()
    await until(lambda: not pair.agent.connections.tunnels)
    after = await agent_status(pair.agent)
    assert (after.servers[0].traffic, after.tunnels) == (server.traffic, ())
    assert sum(after.tunnels_ended.values()) == 1


async def test_a_stock_server_has_no_version(
    start_fake_server: StartFakeServer, start_agent: StartAgent
) -> None:
    await start_fake_server()
    agent = await start_agent()
    await until(lambda: agent.connections.links)
    (server,) = (await agent_status(agent)).servers
    assert (server.version, server.credit) == ("", False)


async def test_the_status_is_json_for_everybody(pair: Pair) -> None:
    _, headers, body = await get(pair.server.options.admin_port, "/api/v1/status")
    plain = json.loads(body)
    assert (plain["apiVersion"], plain["kind"]) == ("v1", "ServerStatus")
    assert headers["cache-control"] == "no-store"
    status, headers, _ = await get(pair.server.options.admin_port, "/api/v1/status", method="PUT")
    assert (status, headers["allow"]) == (405, "GET, HEAD")
