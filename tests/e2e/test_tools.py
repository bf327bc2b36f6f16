"""Peers that know nothing of us: curl through http-connect, nghttp2's tools against gRPC."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from tests.chaos.proxy import ChaosProxy
from tests.e2e.conftest import Pair, StartEndpoint, StartPair, StartServer, until
from tests.net.authority import Authority, Identity
from tests.peers import schema
from tests.peers.endpoint import Endpoint
from tests.peers.ports import free_port
from tests.peers.tool import run

BODY = os.urandom(3 << 20)


async def web_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers GET with a body, and PUT with the digest of what was put."""
    head = await reader.readuntil(b"\r\n\r\n")
    size = next(
        (int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), 0
    )
    if b"Expect:" in head:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    sent = hashlib.sha256(await reader.readexactly(size)).hexdigest().encode()
    answer = BODY if head.startswith(b"GET ") else sent
    writer.write(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(answer)
    )
    writer.write(answer)
    await writer.drain()
    writer.close()


@pytest.fixture
async def website(start_endpoint: StartEndpoint) -> Endpoint:
    return await start_endpoint(web_server)


@pytest.fixture
def tcp_frontend(authority: Authority, identity: Identity) -> dict[str, Any]:
    return {
        "uds_name": "",
        "server_port": free_port(),
        "server_bind_address": "127.0.0.1",
        "server_cert": identity.cert,
        "server_key": identity.key,
        "server_ca_cert": authority.bundle,
    }


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def fetch_and_put(website: Endpoint, folder: Path, *proxy: str) -> None:
    """A download and an upload with curl, through `proxy`."""
    got, sent = folder / "got", folder / "sent"
    sent.write_bytes(BODY)
    url = f"http://{website.address}/"
    curl = (
        "curl",
        "--silent",
        "--show-error",
        "--fail",
        "--max-time",
        "8",
        "--proxytunnel",
        *proxy,
    )
    await run(*curl, "--output", str(got), url)
    assert digest(got) == digest(sent)
    assert await run(*curl, "--upload-file", str(sent), url) == digest(sent)


@pytest.mark.parametrize("mode", ["http-connect", "grpc,http-connect"])
async def test_curl_crosses_over_the_unix_socket(
    mode: str, start_pair: StartPair, website: Endpoint, folder: Path
) -> None:
    pair = await start_pair(server={"mode": mode})
    # curl sends no CONNECT into a Unix socket; a plain relay brings its bytes there.
    async with ChaosProxy(pair.server.options.uds_name) as relay:
        await fetch_and_put(website, folder, "--proxy", f"http://127.0.0.1:{relay.port}")


async def test_curl_crosses_over_tcp_with_mutual_tls(
    tcp_frontend: dict[str, Any],
    start_pair: StartPair,
    authority: Authority,
    identity: Identity,
    website: Endpoint,
    folder: Path,
) -> None:
    await start_pair(server=tcp_frontend)
    await fetch_and_put(
        website,
        folder,
        *("--proxy", f"https://localhost:{tcp_frontend['server_port']}"),
        *("--proxy-cacert", authority.bundle),
        *("--proxy-cert", identity.cert),
        *("--proxy-key", identity.key),
    )


async def test_curl_without_connect_is_told_what_this_is(pair: Pair, folder: Path) -> None:
    socket = pair.server.options.uds_name
    answer = await run("curl", "--silent", "--include", "--unix-socket", socket, "http://x/")
    assert answer.startswith("HTTP/1.1 405 Method Not Allowed")
    assert answer.endswith("this proxy only supports CONNECT passthrough\n")


def grpc_message(folder: Path, packet: Any) -> str:
    """A file with one gRPC message."""
    content = schema.serialize(packet)
    path = folder / "message"
    path.write_bytes(b"\0" + len(content).to_bytes(4, "big") + content)
    return str(path)


GRPC_HEAD = ("-H", "content-type: application/grpc", "-H", "te: trailers")


async def test_nghttp_is_an_agent_for_a_moment(
    start_server: StartServer, identity: Identity, folder: Path
) -> None:
    server = await start_server(server_count=2)
    printed = await run(
        "nghttp",
        *("--verbose", "--no-dep", "--cert", identity.cert, "--key", identity.key),
        *(*GRPC_HEAD, "-H", "agentid: nghttp", "--data", grpc_message(folder, schema.drain())),
        f"https://localhost:{server.options.agent_port}/AgentService/Connect",
    )
    for line in (":status: 200", "serverid: server-1", "servercount: 2", "grpc-status: 0"):
        assert line in printed
    await until(lambda: not len(server.exchange.backends))


async def test_nghttp_is_a_frontend_for_a_moment(
    tcp_frontend: dict[str, Any], start_server: StartServer, identity: Identity, folder: Path
) -> None:
    await start_server(**tcp_frontend, mode="grpc")
    printed = await run(
        "nghttp",
        *("--verbose", "--no-dep", "--cert", identity.cert, "--key", identity.key),
        *(*GRPC_HEAD, "--data", grpc_message(folder, schema.dial_request(1, "endpoint:1"))),
        f"https://localhost:{tcp_frontend['server_port']}/ProxyService/Proxy",
    )
    assert "The negotiated protocol: h2" in printed
    assert "No agent available" in printed
    assert "grpc-status: 0" in printed


async def test_h2load_calls_over_the_unix_socket_all_succeed(
    pair: Pair, echoing: Endpoint, folder: Path
) -> None:
    """2000 dials and closes on a few connections, by a client that sends all in one write."""
    printed = await run(
        "h2load",
        *("-n", "2000", "-c", "4", "-m", "20", *GRPC_HEAD),
        *("--base-uri", f"unix:{pair.server.options.uds_name}"),
        *("--data", grpc_message(folder, schema.dial_request(1, echoing.address))),
        "http://localhost/ProxyService/Proxy",
    )
    assert "2000 done, 2000 succeeded, 0 failed, 0 errored" in printed
    await until(lambda: not pair.agent.connections.tunnels)
    counters = pair.server.exchange.counters
    assert counters.pending_dials == counters.established == 0
