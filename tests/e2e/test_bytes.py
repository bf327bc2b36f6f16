"""No byte is lost, reordered or invented: W1, W3, W4, W5, W13, W62."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import statistics
import time
from typing import Any

import grpc
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
    StartFakeServer,
    StartServer,
)
from tests.peers import schema
from tests.peers.endpoint import Endpoint, pour, say
from tests.peers.frontend import (
    ESTABLISHED,
    GrpcTunnel,
    read_all,
    request,
)

from konnectivity.client import grpc as own_grpc

UPLOAD = os.urandom(8 << 20)
TOO_LARGE = bytes(5 << 20)


async def digest_slowly(endpoint: Endpoint) -> bytes:
    """The digest of all that one connection brings, read in no hurry until its orderly end."""
    connection = await endpoint.accepted()
    digest = hashlib.sha256()
    await asyncio.sleep(0.3)
    while content := await connection.reader.read(1 << 16):
        digest.update(content)
    return digest.digest()


@pytest.mark.parametrize("mode", MODES)
async def test_w01_an_upload_reaches_a_slow_endpoint_whole_though_the_frontend_closes_at_once(
    mode: str, pair: Pair, open_tunnel: OpenTunnel, start_endpoint: StartEndpoint
) -> None:
    endpoint = await start_endpoint(receive_buffer=4096)
    received = asyncio.create_task(digest_slowly(endpoint))
    tunnel = await open_tunnel(mode, endpoint.address)
    await tunnel.write(UPLOAD)
    await tunnel.close()
    assert await received == hashlib.sha256(UPLOAD).digest()


async def test_w01_a_stock_servers_close_request_does_not_cut_off_what_came_before_it(
    start_fake_server: StartFakeServer, start_agent: StartAgent, start_endpoint: StartEndpoint
) -> None:
    server = await start_fake_server()
    await start_agent()
    session = await server.session()
    endpoint = await start_endpoint(receive_buffer=4096)
    received = asyncio.create_task(digest_slowly(endpoint))
    connect_id = await session.dial(endpoint.address)
    for at in range(0, len(UPLOAD), 1 << 16):
        await session.send(schema.data(connect_id, UPLOAD[at : at + (1 << 16)]))
    await session.send(schema.close_request(connect_id))
    answer = (await session.expect(schema.CLOSE_RSP)).closeResponse
    assert (answer.connectID, answer.error) == (connect_id, "")
    assert await received == hashlib.sha256(UPLOAD).digest()


async def connect_raw(path: str) -> socket.socket:
    """A bare socket: here a read of the kernel's is a read of the client's."""
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, path)
    return sock


@pytest.mark.parametrize("stay", [True, False], ids=["stays", "closes"])
async def test_w03_the_200_comes_first_and_alone_when_the_endpoint_speaks_first(
    stay: bool, pair: Pair, server_options: dict[str, Any], start_endpoint: StartEndpoint
) -> None:
    """In one read, as kube-apiserver's: a byte behind the head makes it give up."""
    loop = asyncio.get_running_loop()
    endpoint = await start_endpoint(say(b"220 hello", stay=stay))
    for _ in range(100):
        with await connect_raw(server_options["uds_name"]) as client:
            await loop.sock_sendall(client, request(endpoint.address))
            assert await loop.sock_recv(client, 1 << 16) == ESTABLISHED
            assert await loop.sock_recv(client, 1 << 16) == b"220 hello"


async def test_w03_the_200_comes_first_and_alone_though_client_and_agent_are_out_of_step(
    start_server: StartServer, connect_agent: ConnectAgent, server_options: dict[str, Any]
) -> None:
    """A stock agent sends everything in one burst, and the client is slow to read the answer."""
    loop = asyncio.get_running_loop()
    await start_server()
    agent = await connect_agent()
    for number in range(1, 21):
        with await connect_raw(server_options["uds_name"]) as client:
            await loop.sock_sendall(client, request("endpoint:1"))
            dial = await agent.expect(schema.DIAL_REQ)
            await agent.send(
                schema.dial_response(dial.dialRequest.random, number),
                schema.data(number, b"220 hello"),
                schema.close_response(number),
            )
            await asyncio.sleep(0.02)
            assert await loop.sock_recv(client, 1 << 16) == ESTABLISHED
            assert await loop.sock_recv(client, 1 << 16) == b"220 hello"
            assert await loop.sock_recv(client, 1 << 16) == b""


@pytest.mark.parametrize("stay", [True, False], ids=["stays", "closes"])
async def test_w04_a_grpc_frontend_has_time_to_enter_its_tunnel_before_data_comes(
    stay: bool, pair: Pair, connect_grpc: ConnectGrpc, start_endpoint: StartEndpoint
) -> None:
    """konnectivity-client drops what comes at once; it lost nothing after two milliseconds."""
    endpoint = await start_endpoint(say(b"220 hello", stay=stay))
    client = await connect_grpc()
    gaps = []
    for _ in range(21):
        stream = client.proxy()
        await stream.dial(endpoint.address)
        answered = time.monotonic()
        assert (await stream.expect(schema.DATA)).data.data == b"220 hello"
        gaps.append(time.monotonic() - answered)
        if not stay:
            await stream.expect(schema.CLOSE_RSP)
    assert statistics.median(gaps) > 0.002


async def test_w05_empty_data_of_an_agent_does_not_reach_a_grpc_frontend(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    await start_server()
    agent = await connect_agent()
    proxy = await open_proxy()
    await proxy.begin_dial("endpoint:1")
    _, connect_id = await agent.accept()
    await proxy.end_dial()
    await proxy.send(schema.data(connect_id, b"hello"))  # from now on nothing is held back
    await agent.expect(schema.DATA)
    await agent.send(schema.data(connect_id, b""), schema.data(connect_id, b"after"))
    assert (await proxy.expect(schema.DATA)).data.data == b"after"


async def test_w13_an_oversized_packet_of_a_frontend_ends_its_tunnel_alone(
    start_server: StartServer, connect_agent: ConnectAgent, connect_grpc: ConnectGrpc
) -> None:
    await start_server()
    agent = await connect_agent()
    client = await connect_grpc()
    rude, polite = client.proxy(), client.proxy()
    ids = []
    for stream in (rude, polite):
        await stream.begin_dial("endpoint:1")
        ids.append((await agent.accept())[1])
        await stream.end_dial()
    await rude.send(schema.data(ids[0], TOO_LARGE))
    code, text = await rude.status()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "4194304" in text
    assert (await agent.expect(schema.CLOSE_REQ)).closeRequest.connectID == ids[0]
    await polite.send(schema.data(ids[1], b"still here"))
    assert (await agent.expect(schema.DATA)).data.data == b"still here"


async def test_w13_an_oversized_packet_of_an_agent_ends_its_tunnel_alone(
    start_server: StartServer, connect_agent: ConnectAgent, connect_grpc: ConnectGrpc
) -> None:
    await start_server()
    agent = await connect_agent()
    tunnels = []
    for _ in range(2):
        stream = (await connect_grpc()).proxy()
        await stream.begin_dial("endpoint:1")
        await agent.accept()
        tunnels.append(GrpcTunnel(stream, await stream.end_dial()))
    await agent.send(schema.data(1, b"before"), schema.data(1, TOO_LARGE))
    assert await read_all(tunnels[0]) == b"before"
    assert "too large" in tunnels[0].error
    assert (await agent.expect(schema.CLOSE_REQ)).closeRequest.connectID == 1
    await agent.send(schema.data(2, b"still here"))
    assert await tunnels[1].read() == b"still here"


async def test_w13_an_oversized_packet_of_a_server_ends_its_tunnel_alone(
    start_fake_server: StartFakeServer, start_agent: StartAgent, echoing: Endpoint
) -> None:
    server = await start_fake_server()
    await start_agent()
    session = await server.session()
    rude, polite = await session.dial(echoing.address), await session.dial(echoing.address)
    await session.send(schema.data(rude, TOO_LARGE))
    answer = (await session.expect(schema.CLOSE_RSP)).closeResponse
    assert answer.connectID == rude
    assert answer.error == "packet too large"
    await session.send(schema.data(polite, b"still here"))
    assert await session.collect(10) == b"still here"


async def test_w13_a_large_write_of_our_own_client_is_cut_into_packets(
    pair: Pair, server_options: dict[str, str], echoing: Endpoint
) -> None:
    reader, writer = await own_grpc.dial(server_options["uds_name"], echoing.address)
    writer.write(TOO_LARGE)
    async with asyncio.timeout(10):
        assert await reader.readexactly(len(TOO_LARGE)) == TOO_LARGE
    writer.close()
    await writer.wait_closed()


async def test_w62_a_download_travels_in_packets_larger_than_upstreams_4_kib(
    start_fake_server: StartFakeServer, start_agent: StartAgent, start_endpoint: StartEndpoint
) -> None:
    server = await start_fake_server()
    await start_agent()
    session = await server.session()
    connect_id = await session.dial((await start_endpoint(pour)).address)
    sizes = [len((await session.expect(schema.DATA)).data.data) for _ in range(200)]
    assert statistics.mean(sizes) > 16 << 10
    assert max(sizes) < 4 << 20
    await session.send(schema.close_request(connect_id))
