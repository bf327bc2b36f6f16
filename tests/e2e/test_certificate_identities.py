"""Of all certificates of a CA only those that are meant let agents and frontends in (W47)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from tests.e2e.conftest import Log, StartAgent, StartServer, until
from tests.net.authority import Authority, Identity
from tests.peers.agent import FakeAgent, credentials
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import GrpcClient
from tests.peers.ports import free_port

from konnectivity.server.app import Server


@pytest.mark.both_loops
async def test_w47_only_agents_whose_certificate_names_them_are_admitted(
    start_server: StartServer,
    start_agent: StartAgent,
    authority: Authority,
    identity: Identity,
    log: Log,
) -> None:
    wanted = ("O=nobody", "URI=spiffe://cluster.local/ns/*/sa/konnectivity-agent", "CN=agent-*")
    server = await start_server(agent_certificate_identities=wanted)
    port = server.options.agent_port
    async with await FakeAgent.connect(port, authority, identity) as agent:
        code, text = await agent.status()
    assert code is grpc.StatusCode.UNKNOWN
    assert "certificate is for" in text
    assert "DNS=localhost" in text
    assert "expected O=nobody or URI=spiffe://cluster.local/ns/*/sa/konnectivity-agent" in text
    await log.wait_for("Agent refused", "DNS=localhost")
    named = authority.issue("localhost", common_name="agent-7")
    await start_agent(agent_cert=named.cert, agent_key=named.key)
    await until(lambda: len(server.exchange.backends))
    assert server.exchange.counters.authentications == {"certificate": 1, "accepted": 1}


@pytest.fixture
async def start_tcp_frontend(
    start_server: StartServer, identity: Identity, authority: Authority
) -> Callable[..., Awaitable[Server]]:
    """A server whose frontends come over TCP with certificates."""

    async def start(**overrides: Any) -> Server:
        frontend = {
            "uds_name": "",
            "server_bind_address": "127.0.0.1",
            "server_port": free_port(),
            "server_cert": identity.cert,
            "server_key": identity.key,
            "server_ca_cert": authority.bundle,
        }
        return await start_server(**frontend | overrides)

    return start


@pytest.mark.parametrize(("name", "admitted"), [("kube-apiserver", True), ("stranger", False)])
async def test_w47_only_frontends_whose_certificate_names_them_may_dial(
    name: str,
    admitted: bool,
    start_tcp_frontend: Callable[..., Awaitable[Server]],
    start_agent: StartAgent,
    authority: Authority,
    echoing: Endpoint,
    exits: AsyncExitStack,
    log: Log,
) -> None:
    server = await start_tcp_frontend(frontend_certificate_identities=("CN=kube-*",))
    await start_agent()
    await until(lambda: len(server.exchange.backends))
    shown = authority.issue("localhost", common_name=name)
    port = server.options.server_port
    told = await connect_over_tls(port, echoing.address, authority, shown)
    if admitted:
        assert told.startswith("HTTP/1.1 200")
    else:
        assert told.startswith("HTTP/1.1 403 Forbidden\r\n")
        assert f"CN={name}" in told
        assert "expected CN=kube-*" in told
        await log.wait_for("Frontend refused", f"CN={name}", "CN=kube-*")
    client = await exits.enter_async_context(
        GrpcClient(f"localhost:{port}", credentials(authority, shown))
    )
    stream = client.proxy()
    if admitted:
        await stream.dial(echoing.address)
    else:
        code, text = await stream.status()
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert f"CN={name}" in text


async def connect_over_tls(port: int, target: str, authority: Authority, shown: Identity) -> str:
    """The answer to a CONNECT with this client certificate."""
    context = ssl.create_default_context(cafile=authority.bundle)
    context.load_cert_chain(shown.cert, shown.key)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost"
    )
    writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    if b" 403 " in answer:
        answer += await reader.read()
    writer.close()
    return answer.decode()
