"""Peers with wrong certificates, the wrong protocol or no protocol at all.

Each gets one clear line in the log, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.e2e.conftest import (
    Log,
    OpenTunnel,
    Pair,
    StartAgent,
    StartEndpoint,
    StartPair,
    StartServer,
    unharmed,
    until,
)
from tests.net.authority import Authority, Identity
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ConnectClient, Tunnel, ping
from tests.peers.ports import free_port

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"


@pytest.fixture
async def bystander(
    pair: Pair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> AsyncIterator[Tunnel]:
    """A tunnel that must work throughout the test."""
    tunnel = await open_tunnel("http-connect", echoing.address)
    async with unharmed(tunnel):
        yield tunnel


def client_context(
    authority: Authority, identity: Identity | None, *, alpn: str = "h2"
) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.bundle)
    context.set_alpn_protocols([alpn])
    if identity is not None:
        context.load_cert_chain(identity.cert, identity.key)
    return context


async def knock(port: int, content: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """Connect, say something, and read until the other side closes."""
    host = "localhost" if context else None
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname=host
            )
            try:
                writer.write(content)
                return await reader.read(-1)
            finally:
                writer.transport.abort()
    except (ConnectionError, ssl.SSLError):
        return b""


# Clients of the agent listener


@pytest.mark.parametrize(
    ("which", "cause"),
    [
        ("none", "the peer sent no client certificate, which we require"),
        ("stranger's", "the peer's certificate is not signed by a CA of our bundle"),
        ("expired", "the peer's certificate or that of its CA has expired"),
        ("future", "the peer's certificate is not valid yet"),
    ],
)
async def test_an_agents_certificate_that_does_not_do_is_explained(
    which: str,
    cause: str,
    bystander: Tunnel,
    pair: Pair,
    authority: Authority,
    stranger: Authority,
    log: Log,
) -> None:
    identity = {
        "none": lambda: None,
        "stranger's": lambda: stranger.issue("localhost"),
        "expired": lambda: authority.expired("localhost"),
        "future": lambda: authority.future("localhost"),
    }[which]()
    context = client_context(authority, identity)
    await knock(pair.server.options.agent_port, PREFACE + SETTINGS, context)
    await log.wait_for("TLS handshake failed", cause)
    assert len(pair.server.exchange.backends) == 1


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "the peer speaks plain HTTP on a TLS port"),
        (PREFACE + SETTINGS, "the peer does not speak TLS"),
        (b"\0" * 64, "the peer does not speak TLS"),
        (b"\xff" * 1000, "the peer does not speak TLS"),
    ],
    ids=["http", "http2", "zeroes", "ones"],
)
async def test_plain_text_on_the_agent_listener_is_explained(
    content: bytes, cause: str, bystander: Tunnel, pair: Pair, log: Log
) -> None:
    await knock(pair.server.options.agent_port, content)
    await log.wait_for("TLS handshake failed", "127.0.0.1:", cause)


async def test_a_client_without_h2_is_sent_away(
    bystander: Tunnel, pair: Pair, authority: Authority, identity: Identity, log: Log
) -> None:
    context = client_context(authority, identity, alpn="http/1.1")
    await knock(pair.server.options.agent_port, b"GET / HTTP/1.1\r\n\r\n", context)
    await log.wait_for("TLS handshake failed", "ALPN")


@pytest.mark.parametrize(
    "content",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        PREFACE + b"\xff" * 64,
        PREFACE + SETTINGS + b"\0\0\x05\x00\0\0\0\0\x01hello",  # DATA on an idle stream
        PREFACE + SETTINGS + b"\xff\xff\xff\x00\0\0\0\0\x01",  # a frame of 16 MiB
        PREFACE + SETTINGS + b"\0\0\x04\x01\x04\0\0\0\x01\xff\xff\xff\xff",  # bad HPACK
    ],
    ids=["http1", "garbage", "idle-stream", "huge-frame", "hpack"],
)
async def test_what_is_not_http2_behind_good_tls_is_explained(
    content: bytes,
    bystander: Tunnel,
    pair: Pair,
    authority: Authority,
    identity: Identity,
    log: Log,
) -> None:
    answer = await knock(
        pair.server.options.agent_port, content, client_context(authority, identity)
    )
    line = await log.wait_for("HTTP/2 fault", "127.0.0.1:")
    assert "\n" not in line
    # The peer hears it too: a GOAWAY frame (type 7) ends the conversation.
    assert b"\x07\0\0\0\0\0" in answer


async def test_random_bytes_and_half_frames_leave_nothing_behind(
    bystander: Tunnel, pair: Pair, authority: Authority, identity: Identity
) -> None:
    context = client_context(authority, identity)
    for content in (
        b"",
        PREFACE[:10],
        PREFACE,
        PREFACE + SETTINGS + b"\0\0\x10\x00",
        os.urandom(999),
    ):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            pair.server.options.agent_port,
            ssl=context,
            server_hostname="localhost",
        )
        writer.write(content)
        await asyncio.sleep(0.01)
        writer.transport.abort()
        del reader
    for content in (b"", b"\x16", b"\x16\x03\x01\x02\x00", os.urandom(999)):
        with socket.create_connection(("127.0.0.1", pair.server.options.agent_port)) as client:
            client.sendall(content)
    await until(lambda: pair.server._agents.count == 1)


# Clients of the frontend listener


@pytest.mark.parametrize("mode", ["grpc", "grpc,http-connect"])
async def test_tls_on_the_plain_frontend_socket_is_sent_away(
    mode: str, start_pair: StartPair, http_connect: ConnectClient, echoing: Endpoint, log: Log
) -> None:
    await start_pair(server={"mode": mode})
    hello = ssl.MemoryBIO()
    context = ssl.create_default_context()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost").do_handshake()
    tunnel = await http_connect.open()
    await tunnel.write(hello.read())
    await tunnel.reader.read(-1)
    await until(lambda: log.has("HTTP/2 fault") or log.has("Bad CONNECT request", "not HTTP"))


async def test_http_connect_on_a_grpc_only_socket_is_sent_away(
    start_pair: StartPair, http_connect: ConnectClient, log: Log
) -> None:
    await start_pair(server={"mode": "grpc"})
    tunnel = await http_connect.ask("127.0.0.1:1")
    assert not (await tunnel.reader.read(-1)).startswith(b"HTTP/1")
    await log.wait_for("HTTP/2 fault", "unix socket")


async def test_grpc_on_an_http_connect_only_socket_is_sent_away(
    start_pair: StartPair, http_connect: ConnectClient
) -> None:
    await start_pair(server={"mode": "http-connect"})
    tunnel = await http_connect.open()
    await tunnel.write(PREFACE + SETTINGS)
    assert (await tunnel.reader.read(-1)).startswith(b"HTTP/1.1 505 ")


@pytest.fixture
def tcp_frontend(authority: Authority, identity: Identity) -> dict[str, Any]:
    """Options of a server whose frontends come over TCP with mutual TLS."""
    return {
        "uds_name": "",
        "server_port": free_port(),
        "server_bind_address": "127.0.0.1",
        "server_cert": identity.cert,
        "server_key": identity.key,
        "server_ca_cert": authority.bundle,
    }


@pytest.mark.parametrize("which", ["none", "stranger's", "expired"])
async def test_a_frontends_certificate_that_does_not_do_is_refused(
    which: str,
    tcp_frontend: dict[str, Any],
    start_pair: StartPair,
    authority: Authority,
    stranger: Authority,
    identity: Identity,
    echoing: Endpoint,
    log: Log,
) -> None:
    await start_pair(server=tcp_frontend)
    where = ("localhost", tcp_frontend["server_port"])
    good = client_context(authority, identity, alpn="http/1.1")
    async with ConnectClient(where, good) as client:
        tunnel = await client.dial(echoing.address)
        wrong = {
            "none": lambda: None,
            "stranger's": lambda: stranger.issue("localhost"),
            "expired": lambda: authority.expired("localhost"),
        }[which]()
        async with unharmed(tunnel):
            bad = client_context(authority, wrong, alpn="http/1.1")
            assert await knock(where[1], b"CONNECT a:1 HTTP/1.1\r\n\r\n", bad) == b""
            await log.wait_for("TLS handshake failed")
        await ping(tunnel)


async def test_plain_text_on_the_tls_frontend_listener_is_explained(
    tcp_frontend: dict[str, Any], start_pair: StartPair, log: Log
) -> None:
    await start_pair(server=tcp_frontend)
    await knock(tcp_frontend["server_port"], b"CONNECT a:1 HTTP/1.1\r\n\r\n")
    await log.wait_for("TLS handshake failed")


# Servers that an agent finds


@pytest.mark.parametrize(
    ("which", "cause"),
    [
        ("stranger's", "the peer's certificate is not signed by a CA of our bundle"),
        ("expired", "the peer's certificate or that of its CA has expired"),
        ("other name", "the peer's certificate is not for '127.0.0.1'"),
    ],
)
async def test_a_servers_certificate_that_does_not_do_is_explained_by_the_agent(
    which: str,
    cause: str,
    start_agent: StartAgent,
    start_server: StartServer,
    authority: Authority,
    stranger: Authority,
    log: Log,
) -> None:
    wrong = {
        "stranger's": lambda: stranger.issue("127.0.0.1"),
        "expired": lambda: authority.expired("127.0.0.1"),
        "other name": lambda: authority.issue("elsewhere.example"),
    }[which]()
    server = await start_server(cluster_cert=wrong.cert, cluster_key=wrong.key)
    agent = await start_agent()
    where = f"127.0.0.1:{server.options.agent_port}"
    await log.wait_for("Cannot connect to a server", 'stage="tls"', where, cause)
    await until(lambda: agent.counters.link_failures["tls"] >= 2)


@pytest.mark.parametrize(
    ("which", "cause"),
    [
        ("none", "the peer requires a client certificate and got none"),
        ("stranger's", "the peer does not know the CA of our certificate"),
        ("expired", "our certificate has expired"),
    ],
)
async def test_an_agent_whose_certificate_the_server_refuses_learns_why(
    which: str,
    cause: str,
    start_server: StartServer,
    start_agent: StartAgent,
    authority: Authority,
    stranger: Authority,
    log: Log,
) -> None:
    own = {
        "none": lambda: Identity("", ""),
        "stranger's": lambda: stranger.issue("agent"),
        "expired": lambda: authority.expired("agent"),
    }[which]()
    await start_server()
    await start_agent(agent_cert=own.cert, agent_key=own.key)
    await log.wait_for("Cannot connect to a server", 'stage="tls"', cause)


@pytest.mark.parametrize(
    ("greeting", "cause"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "the peer does not speak TLS"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the peer does not speak TLS"),
        (b"", "the peer closed the connection"),
    ],
    ids=["http", "ssh", "nothing"],
)
async def test_a_server_that_does_not_speak_tls_is_explained_by_the_agent(
    greeting: bytes,
    cause: str,
    start_endpoint: StartEndpoint,
    start_agent: StartAgent,
    log: Log,
) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(greeting)
        await writer.drain()
        writer.close()

    endpoint = await start_endpoint(greet)
    await start_agent(proxy_server_port=endpoint.port)
    await log.wait_for("Cannot connect to a server", 'stage="tls"', endpoint.address, cause)


async def test_a_port_on_which_no_server_listens_is_named_by_the_agent(
    start_agent: StartAgent, log: Log
) -> None:
    port = free_port()
    agent = await start_agent(proxy_server_port=port)
    await log.wait_for("Cannot connect to a server", f"127.0.0.1:{port}", "connection refused")
    assert not agent.connections.links


async def test_a_server_name_that_does_not_resolve_is_named_by_the_agent(
    start_agent: StartAgent, log: Log
) -> None:
    name = "x" * 64 + ".invalid"
    await start_agent(proxy_server_host=name)
    await log.wait_for("Cannot connect to a server", 'stage="name"', name, "no such host")
