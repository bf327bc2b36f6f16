"""The agent's way to its server: through a proxy, past load balancers, under which authority."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived
from tests.e2e.conftest import Log, OpenTunnel, StartAgent, StartServer, until
from tests.net.authority import Authority, Identity
from tests.peers.connect_proxy import ConnectProxy, relay
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ping
from tests.peers.ports import free_port
from tests.peers.program import flags
from tests.peers.tool import require

from konnectivity.net.proxy import Proxy, choose_proxy

NAME = "konnectivity.example"
"""Of the server; no resolver knows it."""


@pytest.fixture
def named(authority: Authority) -> dict[str, Any]:
    """A server's options with a certificate for `NAME`."""
    own = authority.issue(NAME)
    return {"cluster_cert": own.cert, "cluster_key": own.key}


# Proxies


@pytest.mark.parametrize("with_tls", [False, True], ids=["http", "https"])
async def test_an_agent_reaches_its_server_through_a_proxy(
    with_tls: bool,
    start_server: StartServer,
    start_agent: StartAgent,
    named: dict[str, Any],
    exits: AsyncExitStack,
    authority: Authority,
    identity: Identity,
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = await start_server(**named)
    context = None
    if with_tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(identity.cert, identity.key)
        monkeypatch.setenv("SSL_CERT_FILE", authority.bundle)
    target = f"{NAME}:{server.options.agent_port}"
    listening = ConnectProxy({target: server.options.agent_port}, tls=context)
    await exits.enter_async_context(listening)
    scheme = "https" if with_tls else "http"
    proxy = choose_proxy(
        {"HTTPS_PROXY": f"{scheme}://me:secret@localhost:{listening.port}"},
        NAME,
        server.options.agent_port,
    )
    agent = await start_agent(proxy=proxy, proxy_server_host=NAME)
    await until(lambda: len(server.exchange.backends))
    tunnel = await open_tunnel("grpc", echoing.address)
    await ping(tunnel, bytes(300_000))
    assert len(listening.heads) == 1
    await agent.stop()


async def test_a_proxy_that_refuses_is_named_with_its_status_and_without_credentials(
    start_agent: StartAgent, exits: AsyncExitStack, log: Log
) -> None:
    answer = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
    listening = await exits.enter_async_context(ConnectProxy({}, answer=answer))
    agent = await start_agent(
        proxy=Proxy("127.0.0.1", listening.port, "me:secret"), proxy_server_host=NAME
    )
    line = await log.wait_for("Cannot connect", "answered 407 Proxy Authentication Required")
    assert f"proxy 127.0.0.1:{listening.port} " in line
    assert 'stage="proxy"' in line
    assert not log.has("secret")
    assert agent.counters.link_failures["proxy"]


async def test_the_program_takes_its_proxy_from_the_environment(
    exits: AsyncExitStack, agent_options: dict[str, Any]
) -> None:
    port = agent_options.pop("proxy_server_port")
    listening = await exits.enter_async_context(ConnectProxy({}, answer=b"HTTP/1.1 403 No\r\n\r\n"))
    options = agent_options | {"proxy_server_host": NAME, "proxy_server_port": port}
    options |= {"sync_interval": "100ms", "sync_interval_cap": "300ms"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "konnectivity", "agent", *flags(**options)),
        env={"https_proxy": f"127.0.0.1:{listening.port}", "PATH": ""},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await until(lambda: listening.heads)
    finally:
        process.terminate()
        process.kill()
        await process.wait()
    assert listening.heads[0].startswith(f"CONNECT {NAME}:{port} HTTP/1.1\r\n".encode())


async def test_a_proxy_variable_that_makes_no_sense_ends_the_program_with_one_line(
    agent_options: dict[str, Any],
) -> None:
    options = agent_options | {"proxy_server_host": NAME}
    options |= {"sync_interval": "100ms", "sync_interval_cap": "300ms"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "konnectivity", "agent", *flags(**options)),
        env={"HTTPS_PROXY": "socks5://me:secret@proxy:1080", "PATH": ""},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    last = said.decode().splitlines()[-1]
    assert process.returncode == 2
    assert "environment variable HTTPS_PROXY: unknown scheme socks5, expected http://" in last
    assert b"secret" not in said
    assert b"Traceback" not in said


# Load balancers


@asynccontextmanager
async def balancer(
    own: Identity, client: ssl.SSLContext, alpn: str, port: int
) -> AsyncIterator[int]:
    """End TLS for a protocol that only it knows, and pass on what was in it, as h2."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(own.cert, own.key)
    context.set_alpn_protocols([alpn])
    tasks: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            await relay(reader, writer, port, tls=client)
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=context) as listening:
        yield listening.sockets[0].getsockname()[1]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0.01)


async def test_an_agent_with_a_protocol_of_its_balancer_gets_past_it(
    start_server: StartServer,
    start_agent: StartAgent,
    authority: Authority,
    identity: Identity,
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
) -> None:
    """Scenario 20."""
    server = await start_server()
    onward = ssl.create_default_context(cafile=authority.bundle)
    onward.load_cert_chain(identity.cert, identity.key)
    onward.set_alpn_protocols(["h2"])
    async with balancer(identity, onward, "konnectivity-lb", server.options.agent_port) as port:
        agent = await start_agent(proxy_server_port=port, alpn_proto=("konnectivity-lb",))
        await until(lambda: len(server.exchange.backends))
        await ping(await open_tunnel("grpc", echoing.address))
        await agent.stop()


async def test_a_server_that_knows_none_of_our_protocols_is_told_apart(
    start_agent: StartAgent, authority: Authority, identity: Identity, log: Log
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(identity.cert, identity.key)

    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.transport.abort()

    async with await asyncio.start_server(nothing, "127.0.0.1", 0, ssl=context) as listening:
        port = listening.sockets[0].getsockname()[1]
        agent = await start_agent(proxy_server_port=port, alpn_proto=("konnectivity-lb",))
        line = await log.wait_for("Cannot connect", "konnectivity-lb or h2 is needed")
        assert 'stage="alpn"' in line
        await agent.stop()


@asynccontextmanager
async def openssl(*argv: str) -> AsyncIterator[int]:
    """A server of another make; yields its port."""
    require("openssl")
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *("openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-quiet", *argv),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield port
    finally:
        process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("settings", "stage", "says"),
    [
        (("-alpn", "other"), "alpn", "no shared ALPN protocol, says the peer"),
        ((), "alpn", "no shared ALPN protocol, konnectivity-lb or h2 is needed"),
        (("-tls1_2", "-alpn", "h2", "-cipher", "AES128-SHA"), "tls", "no shared cipher suite"),
    ],
)
async def test_openssl_as_a_server_is_told_what_it_lacks(
    settings: tuple[str, ...],
    stage: str,
    says: str,
    start_agent: StartAgent,
    identity: Identity,
    log: Log,
) -> None:
    async with openssl("-cert", identity.cert, "-key", identity.key, *settings) as port:
        await start_agent(proxy_server_port=port, alpn_proto=("konnectivity-lb",))
        line = await log.wait_for(f'stage="{stage}"', says)
        assert f"server 127.0.0.1:{port}: " in line


# The authority


async def requested_authority(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """The `:authority` of the first request on an HTTP/2 connection."""
    connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
    connection.initiate_connection()
    while True:
        writer.write(connection.data_to_send())
        for event in connection.receive_data(await reader.read(1 << 16)):
            if isinstance(event, RequestReceived):
                return dict(event.headers)[":authority"]


@pytest.mark.parametrize(
    ("host", "with_certificate", "authority_sent"),
    [
        ("localhost", True, "localhost"),
        ("localhost", False, "localhost:{port}"),
        ("127.0.0.1", True, "127.0.0.1"),
        ("::1", False, "[::1]:{port}"),
    ],
)
async def test_the_authority_is_bare_with_a_client_certificate_only(
    host: str,
    with_certificate: bool,
    authority_sent: str,
    start_agent: StartAgent,
    authority: Authority,
) -> None:
    own = authority.issue("localhost", "127.0.0.1", "::1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own.cert, own.key)
    context.set_alpn_protocols(["h2"])
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.put_nowait(await requested_authority(reader, writer))
        writer.transport.abort()

    async with await asyncio.start_server(listen, host, 0, ssl=context) as listening:
        port = listening.sockets[0].getsockname()[1]
        none = {} if with_certificate else {"agent_cert": "", "agent_key": ""}
        agent = await start_agent(proxy_server_host=host, proxy_server_port=port, **none)
        async with asyncio.timeout(5):
            assert await heard.get() == authority_sent.format(port=port)
        await agent.stop()
