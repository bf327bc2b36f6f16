"""What an http-connect client is told, byte for byte as upstream's tells it."""

from __future__ import annotations

import asyncio

import pytest
from tests.e2e.conftest import (
    ConnectAgent,
    OpenTunnel,
    Pair,
    StartServer,
    unharmed,
    until,
)
from tests.peers import schema
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ConnectClient, established, ping, read_all, read_exactly

LONG_NAME = "x" * 64 + ".invalid"
"""No resolver is asked for it: a label has 63 bytes at most."""
PLAIN = b"Content-Type: text/plain; charset=utf-8\r\n"


async def test_without_an_agent_the_answer_is_500_and_says_so(
    start_server: StartServer, http_connect: ConnectClient
) -> None:
    """Scenario 40."""
    server = await start_server()
    assert await http_connect.answer_to("endpoint:1") == (
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\n\r\n"
        b"currently no tunnels available: No agent available"
    )
    assert server.exchange.counters.dial_failures == {"no_agent": 1}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ("dial tcp 10.0.0.1:10250: i/o timeout", b"504 Gateway Timeout"),
        ("I/O TIMEOUT", b"504 Gateway Timeout"),
        ("context deadline exceeded", b"504 Gateway Timeout"),
        ("socket: too many open files", b"503 Service Unavailable"),
        ("dial tcp 10.0.0.1:1: connect: connection refused", b"502 Bad Gateway"),
        ("dial tcp: lookup x: no such host", b"502 Bad Gateway"),
        ("whatever", b"502 Bad Gateway"),
    ],
)
async def test_an_agents_error_chooses_the_status_and_is_passed_on(
    error: str,
    status: bytes,
    start_server: StartServer,
    connect_agent: ConnectAgent,
    http_connect: ConnectClient,
) -> None:
    await start_server()
    agent = await connect_agent()
    asking = asyncio.create_task(http_connect.answer_to("endpoint:1"))
    random = (await agent.expect(schema.DIAL_REQ)).dialRequest.random
    await agent.send(schema.dial_response(random, error=error))
    head = b"HTTP/1.1 " + status + b"\r\nConnection: close\r\n" + PLAIN + b"\r\n"
    assert await asking == head + error.encode()


async def test_an_agent_that_does_not_answer_in_time_is_a_504(
    start_server: StartServer, connect_agent: ConnectAgent, http_connect: ConnectClient
) -> None:
    server = await start_server(backend_dial_timeout=0.1)
    await connect_agent()
    assert await http_connect.answer_to("endpoint:1") == (
        b"HTTP/1.1 504 Gateway Timeout\r\n" + PLAIN + b"\r\n"
        b"Backend dial timeout: timed out waiting for backend dial\r\n"
    )
    assert server.exchange.counters.dial_failures == {"backend_dial_timeout": 1}


async def test_w22_an_agent_lost_mid_dial_is_a_502(
    start_server: StartServer, connect_agent: ConnectAgent, http_connect: ConnectClient
) -> None:
    await start_server()
    agent = await connect_agent()
    asking = asyncio.create_task(http_connect.answer_to("endpoint:1"))
    await agent.expect(schema.DIAL_REQ)
    await agent.leave()
    assert await asking == (
        b"HTTP/1.1 502 Bad Gateway\r\n" + PLAIN + b"\r\nBackend context error: context canceled\r\n"
    )


async def test_an_agent_that_closes_the_dial_ends_the_connection_without_a_byte(
    start_server: StartServer, connect_agent: ConnectAgent, http_connect: ConnectClient
) -> None:
    await start_server()
    agent = await connect_agent()
    asking = asyncio.create_task(http_connect.answer_to("endpoint:1"))
    random = (await agent.expect(schema.DIAL_REQ)).dialRequest.random
    await agent.send(schema.dial_close(random))
    assert await asking == b""


@pytest.mark.parametrize(
    ("target", "host", "address"),
    [
        ("node-1:10250", "127.0.0.1", "node-1:10250"),
        ("[2001:db8::1]:443", "127.0.0.1", "[2001:db8::1]:443"),
        ("/", "node-1:10250", "node-1:10250"),
        ("node-1", "ignored:1", "node-1"),
    ],
)
async def test_the_request_line_says_where_to_dial(
    target: str,
    host: str,
    address: str,
    start_server: StartServer,
    connect_agent: ConnectAgent,
    http_connect: ConnectClient,
) -> None:
    """Scenario 10."""
    await start_server()
    agent = await connect_agent()
    tunnel = await http_connect.open()
    await tunnel.write(f"CONNECT {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    dial = (await agent.expect(schema.DIAL_REQ)).dialRequest
    assert (dial.protocol, dial.address) == ("tcp", address)
    assert 0 <= dial.random < 1 << 63


async def test_what_the_client_sends_ahead_reaches_the_endpoint_first(
    pair: Pair, http_connect: ConnectClient, echoing: Endpoint
) -> None:
    tunnel = await http_connect.open()
    await tunnel.write(f"CONNECT {echoing.address} HTTP/1.1\r\n\r\nfirst ".encode())
    await established(tunnel)
    await tunnel.write(b"second")
    assert await read_exactly(tunnel, 12) == b"first second"


async def test_another_method_is_a_405_and_the_connection_stays_open(
    pair: Pair, http_connect: ConnectClient, echoing: Endpoint
) -> None:
    tunnel = await http_connect.open()
    await tunnel.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody")
    head = await tunnel.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert PLAIN in head
    assert b"X-Content-Type-Options: nosniff\r\n" in head
    body = b"this proxy only supports CONNECT passthrough\n"
    assert f"Content-Length: {len(body)}\r\n".encode() in head
    assert await tunnel.reader.readexactly(len(body)) == body
    await tunnel.write(f"CONNECT {echoing.address} HTTP/1.1\r\n\r\n".encode())
    await established(tunnel)
    await ping(tunnel)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"CONNECT a:1 HTTP/1.1\r\nno colon\r\n\r\n", b"400"),
        (b"CONNECT  a:1 HTTP/1.1\r\n\r\n", b"400"),
        (b"CONNECT a:1\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
        (b"\0" * 20, b"400"),
        (b"CONNECT a:1 HTTP/2.0\r\n\r\n", b"505"),
        (b"CONNECT a:1 HTTP/1.1\r\nX: " + b"x" * (70 << 10) + b"\r\n\r\n", b"431"),
    ],
    ids=["two-hosts", "no-colon", "two-blanks", "no-version", "tls", "zeroes", "http2", "long"],
)
async def test_a_malformed_request_gets_one_line_that_says_what_is_wrong(
    head: bytes,
    status: bytes,
    pair: Pair,
    http_connect: ConnectClient,
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
) -> None:
    bystander = await open_tunnel("http-connect", echoing.address)
    async with unharmed(bystander):
        tunnel = await http_connect.open()
        await tunnel.write(head)
        answer = await read_all(tunnel)
    assert answer.startswith(b"HTTP/1.1 " + status)
    body = answer.partition(b"\r\n\r\n")[2]
    assert body.strip()
    assert body.count(b"\n") == 1


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("localhost", "dial tcp: address localhost: missing port in address"),
        ("localhost:99999", "dial tcp: address 99999: invalid port"),
        ("127.0.0.1:1", "dial tcp 127.0.0.1:1: connect: connection refused"),
        ("[::1]:1", "dial tcp [::1]:1: connect: connection refused"),
        (f"{LONG_NAME}:80", f"dial tcp: lookup {LONG_NAME}: no such host"),
    ],
)
async def test_a_destination_that_cannot_be_dialled_is_a_502_in_gos_words(
    address: str, text: str, pair: Pair, http_connect: ConnectClient
) -> None:
    """Scenario 12."""
    assert await http_connect.answer_to(address) == (
        b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n" + PLAIN + b"\r\n" + text.encode()
    )
    assert pair.server.exchange.counters.dial_failures == {"error_response": 1}
    assert sum(pair.agent.counters.dial_failures.values()) == 1


async def test_a_name_that_the_resolver_does_not_know_is_a_502(
    pair: Pair, http_connect: ConnectClient
) -> None:
    """Scenario 11."""
    answer = await http_connect.answer_to("no-such-host.invalid:80")
    assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    # What follows is "no such host", unless there is no resolver to ask.
    assert b"\r\n\r\ndial tcp: lookup no-such-host.invalid: " in answer


async def test_half_a_request_is_waited_for(
    pair: Pair, http_connect: ConnectClient, echoing: Endpoint
) -> None:
    tunnel = await http_connect.open()
    for piece in (b"CON", b"NECT ", echoing.address.encode(), b" HTTP/1.1\r", b"\n\r", b"\n"):
        await tunnel.write(piece)
        await asyncio.sleep(0.01)
    await established(tunnel)
    await ping(tunnel)


async def test_a_client_that_leaves_in_the_middle_of_its_request_is_forgotten(
    pair: Pair, http_connect: ConnectClient
) -> None:
    for start in (b"", b"C", b"CONNECT a:1 HTT", b"PRI"):
        tunnel = await http_connect.open()
        await tunnel.write(start)
        await asyncio.sleep(0.01)
        await tunnel.close()
    await until(lambda: not pair.server.exchange.counters.http_connections)
