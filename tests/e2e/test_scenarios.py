"""What upstream's own integration tests ask of a server and an agent (its directory `tests`)."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import socket
from typing import Any

import pytest
from tests.e2e.conftest import (
    MODES,
    ConnectAgent,
    ConnectGrpc,
    OpenProxy,
    OpenTunnel,
    Pair,
    StartAgent,
    StartEndpoint,
    StartServer,
    until,
)
from tests.peers import schema
from tests.peers.endpoint import Endpoint, echo, listen
from tests.peers.frontend import (
    ConnectClient,
    GrpcTunnel,
    ProxyStream,
    Refused,
    Tunnel,
    ping,
    read_all,
    read_exactly,
)
from tests.peers.ports import free_port

PIECE = os.urandom(1 << 20)


async def say_then_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for _ in range(10):
        writer.write(PIECE)
        await writer.drain()
    writer.write_eof()
    await listen(reader, writer)


async def say_twice_as_much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for _ in range(10):
        writer.write(PIECE * 2)
        await writer.drain()
    writer.write_eof()
    await listen(reader, writer)


async def post_office(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """HTTP that gives each POST its own body back, on connections that are kept."""
    while head := await reader.readuntil(b"\r\n\r\n"):
        size = int(re.search(rb"Content-Length: (\d+)", head)[1])
        body = await reader.readexactly(size)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + body)
        await writer.drain()


async def post(tunnel: Tunnel, body: bytes) -> bytes:
    await tunnel.write(
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    answer = b""
    while len(answer.partition(b"\r\n\r\n")[2]) < len(body):
        piece = await tunnel.read()
        assert piece, f"the tunnel ended after {answer!r}"
        answer += piece
    return answer.partition(b"\r\n\r\n")[2]


async def get(port: int, path: str, *, host: str = "127.0.0.1") -> tuple[int, str]:
    """Status and body of an HTTP answer of a health or admin listener."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(5):
        answer = (await reader.read(-1)).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body


@pytest.mark.parametrize("mode", MODES)
async def test_a_request_over_http_gets_its_answer(
    mode: str, pair: Pair, open_tunnel: OpenTunnel, start_endpoint: StartEndpoint
) -> None:
    """Scenarios 1 and 10."""
    tunnel = await open_tunnel(mode, (await start_endpoint(post_office)).address)
    assert await post(tunnel, b"hello, world") == b"hello, world"
    assert await post(tunnel, b"hello again") == b"hello again"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("127.0.0.1:1", "connect: connection refused"),
        ("no-such-host.invalid:443", "no such host"),
    ],
)
async def test_an_endpoint_that_cannot_be_reached_is_counted_once_at_both_ends(
    mode: str, address: str, text: str, pair: Pair, open_tunnel: OpenTunnel
) -> None:
    """Scenarios 2, 11 and 12."""
    with pytest.raises(Refused, match=text):
        await open_tunnel(mode, address)
    _, metrics = await get(pair.server.options.health_port, "/metrics")
    name = "konnectivity_network_proxy_server_dial_failure_count"
    assert re.findall(rf"{name}{{(.*)}} (\d+)", metrics) == [('reason="error_response"', "1")]
    _, metrics = await get(pair.agent.options.health_server_port, "/metrics")
    name = "konnectivity_network_proxy_agent_endpoint_dial_failure_total"
    assert re.findall(rf"{name}{{(.*)}} (\d+)", metrics) == [('reason="unknown"', "1")]


@pytest.mark.parametrize("mode", MODES)
async def test_a_frontend_that_loses_patience_with_an_endpoint_leaves_nothing_behind(
    mode: str, pair: Pair, open_tunnel: OpenTunnel, start_endpoint: StartEndpoint
) -> None:
    """Scenarios 4 and 8."""
    endpoint = await start_endpoint(listen)
    tunnel = await open_tunnel(mode, endpoint.address)
    await tunnel.write(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(tunnel.read(), 0.2)
    await tunnel.close()
    await endpoint.wait_until_open(0)
    await until(lambda: not pair.agent.connections.tunnels)


async def test_a_dial_that_an_agent_never_answers_is_counted_as_given_up_by_the_frontend(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    """Scenario 5."""
    server = await start_server()
    agent = await connect_agent()
    stream = await open_proxy()
    await stream.begin_dial("endpoint:1")
    await agent.expect(schema.DIAL_REQ)
    await stream.send(schema.dial_close(stream.random))
    await until(lambda: server.exchange.counters.dial_failures == {"frontend_close": 1})
    assert server.exchange.counters.pending_dials == 0


@pytest.mark.parametrize("mode", MODES)
async def test_fifty_tunnels_given_up_together_all_end(
    mode: str, pair: Pair, open_tunnel: OpenTunnel, start_endpoint: StartEndpoint
) -> None:
    """Scenario 6."""
    endpoint = await start_endpoint(listen)
    tunnels = await asyncio.gather(*(open_tunnel(mode, endpoint.address) for _ in range(50)))
    await endpoint.wait_until_open(50)
    await asyncio.gather(*(tunnel.close() for tunnel in tunnels))
    await endpoint.wait_until_open(0)
    await until(lambda: not pair.agent.connections.tunnels)
    assert pair.server.exchange.counters.established == 0


@pytest.mark.parametrize("mode", MODES)
async def test_twenty_mebibytes_arrive_whole(
    mode: str, pair: Pair, open_tunnel: OpenTunnel, start_endpoint: StartEndpoint
) -> None:
    """Scenario 9."""
    tunnel = await open_tunnel(mode, (await start_endpoint(say_twice_as_much)).address)
    digest = hashlib.sha256(await read_all(tunnel)).hexdigest()
    assert digest == hashlib.sha256(PIECE * 20).hexdigest()


async def test_a_frontend_that_leaves_mid_dial_takes_no_other_dial_along(
    start_server: StartServer,
    connect_agent: ConnectAgent,
    open_proxy: OpenProxy,
    http_connect: ConnectClient,
) -> None:
    """Scenarios 27 and 41."""
    server = await start_server()
    agent = await connect_agent()
    leaving, staying = await open_proxy(), await open_proxy()
    for stream in (leaving, staying):
        await stream.begin_dial("endpoint:1")
        await agent.expect(schema.DIAL_REQ)
    client = await http_connect.ask("endpoint:2")
    await agent.expect(schema.DIAL_REQ)
    await leaving.leave()
    assert (await agent.expect(schema.DIAL_CLS)).closeDial.random == leaving.random
    assert server.exchange.counters.pending_dials == 2
    await agent.send(schema.dial_response(staying.random, 7))
    assert await staying.end_dial() == 7
    await client.close()
    await until(lambda: not server.exchange.counters.pending_dials)


async def test_a_frontend_that_ends_takes_its_own_tunnels_along_across_agents(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    """Scenarios 29 and 39: the frontend's calls, each with one tunnel."""
    server = await start_server()
    agents = {name: await connect_agent(name) for name in ("a", "b")}
    backends = {each.agent_id: each for each in server.exchange.backends.streams()}
    tunnels: dict[str, dict[int, ProxyStream]] = {"a": {}, "b": {}}
    while min(map(len, tunnels.values())) < 2:  # agents are chosen by chance
        stream = await open_proxy()
        await stream.begin_dial("endpoint:1")
        name = await until_dialled(backends)
        _, connect_id = await agents[name].accept()
        assert await stream.end_dial() == connect_id
        tunnels[name][connect_id] = stream
    for name, agent in agents.items():
        connect_id, stream = tunnels[name].popitem()
        await stream.leave()
        assert (await agent.expect(schema.CLOSE_REQ)).closeRequest.connectID == connect_id
        await agent.send(schema.close_response(connect_id))
        await until(lambda name=name: backends[name].tunnels.keys() == tunnels[name].keys())


async def test_calls_of_one_connection_come_and_go_without_touching_each_other(
    pair: Pair, connect_grpc: ConnectGrpc, echoing: Endpoint
) -> None:
    """Scenarios 83 and 85."""
    client = await connect_grpc()
    first = client.proxy()
    tunnel = GrpcTunnel(first, await first.dial(echoing.address))
    for _ in range(3):
        leaving = client.proxy()
        await leaving.begin_dial(echoing.address)
        await leaving.leave()
        await ping(tunnel)
    last = client.proxy()
    await ping(GrpcTunnel(last, await last.dial(echoing.address)))
    await ping(tunnel)


async def until_dialled(backends: dict[str, Any]) -> str:
    """The agent that a dial was given to."""
    await until(lambda: any(each.pending for each in backends.values()))
    return next(name for name, each in backends.items() if each.pending)


@pytest.mark.parametrize("mode", MODES)
async def test_ten_downloads_at_once_arrive_whole(
    mode: str, pair: Pair, open_tunnel: OpenTunnel, start_endpoint: StartEndpoint
) -> None:
    """Scenarios 17 and 18."""
    endpoint = await start_endpoint(say_then_close)

    async def download() -> str:
        tunnel = await open_tunnel(mode, endpoint.address)
        return hashlib.sha256(await read_all(tunnel)).hexdigest()

    digests = await asyncio.gather(*(download() for _ in range(10)))
    assert set(digests) == {hashlib.sha256(PIECE * 10).hexdigest()}


@pytest.mark.parametrize("mode", MODES)
async def test_a_hundred_posts_over_two_agents_each_get_their_own_body_back(
    mode: str,
    start_server: StartServer,
    start_agent: StartAgent,
    open_tunnel: OpenTunnel,
    start_endpoint: StartEndpoint,
) -> None:
    """Scenario 16."""
    server = await start_server()
    for number in (1, 2):
        ports = {"health_server_port": free_port(), "admin_server_port": free_port()}
        await start_agent(agent_id=f"agent-{number}", **ports)
    await until(lambda: len(server.exchange.backends) == 2)
    office = await start_endpoint(post_office)

    async def send(number: int) -> bool:
        tunnel = await open_tunnel(mode, office.address)
        body = b"%d " % number * 500
        return await post(tunnel, body) == body

    assert all(await asyncio.gather(*(send(number) for number in range(100))))


@pytest.mark.parametrize("mode", MODES)
async def test_after_the_agent_left_a_kept_connection_fails_at_once(
    mode: str, pair: Pair, open_tunnel: OpenTunnel, start_endpoint: StartEndpoint
) -> None:
    """Scenario 14."""
    tunnel = await open_tunnel(mode, (await start_endpoint(post_office)).address)
    assert await post(tunnel, b"first") == b"first"
    await pair.agent.stop()
    async with asyncio.timeout(2):
        assert await read_all(tunnel) == b""


@pytest.mark.parametrize("mode", MODES)
async def test_a_second_agent_of_the_same_id_does_not_disturb_what_is_outstanding(
    mode: str,
    start_server: StartServer,
    start_agent: StartAgent,
    open_tunnel: OpenTunnel,
    start_endpoint: StartEndpoint,
) -> None:
    """Scenario 19."""
    server = await start_server()
    await start_agent(agent_id="shared")
    await until(lambda: len(server.exchange.backends) == 1)
    endpoint = await start_endpoint()
    outstanding = await open_tunnel(mode, endpoint.address)
    first = await endpoint.accepted()
    twin = await start_agent(
        agent_id="shared", health_server_port=free_port(), admin_server_port=free_port()
    )
    await until(lambda: twin.connections.links)
    assert len(server.exchange.backends) == 1
    newer = await open_tunnel(mode, endpoint.address)
    second = await endpoint.accepted()
    first.writer.write(b"answer")
    second.writer.write(b"another")
    assert await read_exactly(outstanding, 6) == b"answer"
    assert await read_exactly(newer, 7) == b"another"


@pytest.mark.parametrize("mode", MODES)
async def test_small_writes_arrive_in_order_whatever_their_boundaries(
    mode: str, pair: Pair, open_tunnel: OpenTunnel, start_endpoint: StartEndpoint
) -> None:
    """Scenario 24."""
    tunnel = await open_tunnel(mode, (await start_endpoint(echo)).address)
    await ping(tunnel, b"a message of 25 bytes.....")
    await ping(tunnel, b"another")
    pieces = [b"%d," % number for number in range(1000)]
    for piece in pieces:
        await tunnel.write(piece)
    assert await read_exactly(tunnel, len(b"".join(pieces))) == b"".join(pieces)
    await tunnel.close()


@pytest.mark.parametrize(
    ("host", "name"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("127.0.0.1", "localhost")]
)
async def test_endpoints_are_reached_by_either_family_and_by_name(
    host: str, name: str, pair: Pair, open_tunnel: OpenTunnel, start_endpoint: StartEndpoint
) -> None:
    if host == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    endpoint = await start_endpoint(echo, host=host)
    for mode in MODES:
        await ping(await open_tunnel(mode, f"{name}:{endpoint.port}"))


async def test_readiness_follows_the_connections(
    start_server: StartServer, start_agent: StartAgent
) -> None:
    """Scenario 22."""
    port = free_port()
    agent = await start_agent(proxy_server_port=port)
    agent_health = agent.options.health_server_port
    status, body = await get(agent_health, "/readyz")
    assert (status, "server-connected failed" in body) == (503, True)
    assert await get(agent_health, "/healthz") == (200, "ok")

    server = await start_server(agent_port=port)
    server_health = server.options.health_port
    await until(lambda: len(server.exchange.backends))
    assert await get(server_health, "/readyz") == (200, "ok")
    assert await get(agent_health, "/readyz") == (200, "ok")
    _, metrics = await get(agent_health, "/metrics")
    assert "konnectivity_network_proxy_agent_open_server_connections 1" in metrics
    _, metrics = await get(server_health, "/metrics")
    assert "konnectivity_network_proxy_server_ready_backend_connections 1" in metrics

    await agent.stop()
    await until(lambda: not len(server.exchange.backends))
    assert await get(server_health, "/readyz") == (500, "no connection to any proxy agent")
    assert await get(server_health, "/healthz") == (200, "ok")


async def test_gauges_are_back_at_zero_when_all_is_over(
    pair: Pair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    """Scenario 36."""
    for mode in MODES:
        tunnel = await open_tunnel(mode, echoing.address)
        await ping(tunnel)
        await tunnel.close()
    await until(lambda: not pair.agent.connections.tunnels)
    await until(lambda: not pair.server.exchange.counters.http_connections)
    _, metrics = await get(pair.server.options.health_port, "/metrics")
    for gauge in ("pending_backend_dials", "established_connections", "http_connections"):
        assert f"konnectivity_network_proxy_server_{gauge} 0" in metrics
    _, metrics = await get(pair.agent.options.health_server_port, "/metrics")
    assert "konnectivity_network_proxy_agent_open_endpoint_connections 0" in metrics
