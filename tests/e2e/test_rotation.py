"""Certificates and CAs change under running programs and their load: W51, experiment 6."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import (
    MODES,
    Log,
    OpenTunnel,
    Pair,
    StartAgent,
    StartPair,
    StartServer,
    unharmed,
    until,
)
from tests.net.authority import Authority, Identity
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ConnectClient, ping
from tests.peers.ports import free_port

from konnectivity.agent.app import Agent
from konnectivity.server.app import Server

INTERVAL = {"certificate_reload_interval": 0.05}
"""Seconds between looks at the files, where operators have ten."""


class Mounted:
    """Credentials at paths that stay. Server and agent of a test share them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.cert, self.key, self.ca = (str(folder / name) for name in ("crt", "key", "ca"))

    def put(self, identity: Identity | None = None, trusted: tuple[Authority, ...] = ()) -> None:
        """Replace the pair, the CAs, or both."""
        if identity is not None:
            shutil.copy(identity.cert, self.cert)
            shutil.copy(identity.key, self.key)
        if trusted:
            Path(self.ca).write_bytes(b"".join(Path(each.bundle).read_bytes() for each in trusted))

    @property
    def for_server(self) -> dict[str, Any]:
        return INTERVAL | {
            "cluster_cert": self.cert,
            "cluster_key": self.key,
            "cluster_ca_cert": self.ca,
        }

    @property
    def for_agent(self) -> dict[str, Any]:
        return INTERVAL | {"agent_cert": self.cert, "agent_key": self.key, "ca_cert": self.ca}


@pytest.fixture
def mounted(folder: Path, authority: Authority, identity: Identity) -> Mounted:
    made = Mounted(folder / "pki")
    made.put(identity, (authority,))
    return made


async def taken_over(*programs: Server | Agent, change: Callable[[], None]) -> None:
    """Change files, and wait until all programs use them."""

    def loaded() -> list[float]:
        return [facts.loaded_at for each in programs for facts in each.certificates]

    before = loaded()
    change()
    await until(lambda: all(now > then for now, then in zip(loaded(), before, strict=True)))


@asynccontextmanager
async def dialling(open_tunnel: OpenTunnel, mode: str, address: str) -> AsyncIterator[list[int]]:
    """Open a tunnel, use it, close it, again and again. Yields a list that grows with each."""
    made: list[int] = []
    stop = asyncio.Event()

    async def dial_on() -> None:
        while not stop.is_set():
            tunnel = await open_tunnel(mode, address)
            await ping(tunnel)
            await tunnel.close()
            made.append(len(made))
            await asyncio.sleep(0.01)

    task = asyncio.create_task(dial_on())
    try:
        yield made
    finally:
        stop.set()
        await task


async def new_link(pair: Pair) -> None:
    """End the agent's connection; wait for its next one."""
    await until(lambda: pair.agent.connections.links)
    (link,) = pair.agent.connections.links
    link.close()
    await until(lambda: pair.agent.connections.links and pair.agent.connections.links != [link])


async def test_w51_leaf_and_ca_rotate_under_load_and_no_tunnel_notices(
    start_pair: StartPair,
    start_agent: StartAgent,
    mounted: Mounted,
    authority: Authority,
    identity: Identity,
    stranger: Authority,
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
    log: Log,
) -> None:
    """Experiment 6: zero dropped connections, and the old CA is refused afterwards."""
    pair = await start_pair(server=mounted.for_server, agent=mounted.for_agent)
    await until(lambda: pair.agent.connections.links)
    links = list(pair.agent.connections.links)
    steps: list[Callable[[], None]] = [
        lambda: mounted.put(None, (authority, stranger)),
        lambda: mounted.put(stranger.issue("localhost", "127.0.0.1")),
        lambda: mounted.put(None, (stranger,)),
    ]
    async with AsyncExitStack() as load:
        dials = []
        for mode in MODES:
            await load.enter_async_context(unharmed(await open_tunnel(mode, echoing.address)))
            made = dialling(open_tunnel, mode, echoing.address)
            dials.append(await load.enter_async_context(made))
        for step in steps:
            await taken_over(pair.server, pair.agent, change=step)
            seen = sum(map(len, dials))
            await until(lambda seen=seen: sum(map(len, dials)) > seen + 10)
        assert pair.agent.connections.links == links
        assert all(dials)
    assert pair.server.exchange.counters.dial_failures == {}

    await new_link(pair)
    await ping(await open_tunnel("grpc", echoing.address))
    await start_agent(
        agent_id="late",
        agent_cert=identity.cert,
        agent_key=identity.key,
        ca_cert=mounted.ca,
        health_server_port=free_port(),
        admin_server_port=free_port(),
    )
    await log.wait_for("Cannot connect", "the peer does not know the CA of our certificate")
    await log.wait_for("TLS handshake failed", "is not signed by a CA of our bundle")
    assert not log.has("are not used")


async def test_w51_an_agent_that_trusts_only_the_old_ca_does_not_connect_to_the_new_server(
    start_pair: StartPair,
    mounted: Mounted,
    folder: Path,
    authority: Authority,
    identity: Identity,
    stranger: Authority,
    log: Log,
) -> None:
    at_agent = Mounted(folder / "agent")
    at_agent.put(identity, (authority,))
    pair = await start_pair(server=mounted.for_server, agent=at_agent.for_agent)
    fresh = stranger.issue("localhost", "127.0.0.1")
    await taken_over(pair.server, change=lambda: mounted.put(fresh))
    await until(lambda: pair.agent.connections.links)
    (link,) = pair.agent.connections.links
    link.close()
    await log.wait_for("Cannot connect", "the peer's certificate is not signed by a CA")
    # It heals without a restart as soon as the bundle has the new CA.
    at_agent.put(None, (authority, stranger))
    await until(lambda: pair.agent.connections.links)


async def test_w51_half_of_a_rotation_changes_nothing_and_is_told_once(
    start_pair: StartPair,
    mounted: Mounted,
    authority: Authority,
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
    log: Log,
) -> None:
    pair = await start_pair(server=mounted.for_server, agent=mounted.for_agent)
    fresh = authority.issue("localhost", "127.0.0.1")
    shutil.copy(fresh.cert, mounted.cert)
    fault = f"key {mounted.key}: does not belong to certificate {mounted.cert}"
    for program in (pair.server, pair.agent):
        await until(lambda program=program: program.certificates[0].error == fault)
    await new_link(pair)
    await ping(await open_tunnel("http-connect", echoing.address))
    await asyncio.sleep(0.2)
    assert sum(fault in line for line in log.lines) == 2  # each program once
    await taken_over(pair.server, pair.agent, change=lambda: mounted.put(fresh))
    assert pair.server.certificates[0].error == ""


def trusting(authority: Authority, own: Identity) -> ssl.SSLContext:
    """A frontend's settings."""
    context = ssl.create_default_context(cafile=authority.bundle)
    context.load_cert_chain(own.cert, own.key)
    return context


async def test_w51_the_frontend_listener_follows_its_files_too(
    start_server: StartServer,
    start_agent: StartAgent,
    exits: AsyncExitStack,
    mounted: Mounted,
    authority: Authority,
    identity: Identity,
    stranger: Authority,
    echoing: Endpoint,
    log: Log,
) -> None:
    port = free_port()
    server = await start_server(
        mode="http-connect",
        uds_name="",
        server_port=port,
        server_bind_address="127.0.0.1",
        server_cert=mounted.cert,
        server_key=mounted.key,
        server_ca_cert=mounted.ca,
        **INTERVAL,
    )
    await start_agent()
    await until(lambda: len(server.exchange.backends))
    assert [facts.name for facts in server.certificates] == [
        "server-cert",
        "server-ca-cert",
        "cluster-cert",
        "cluster-ca-cert",
    ]

    async def frontend(trusted: Authority, own: Identity) -> ConnectClient:
        client = ConnectClient(("127.0.0.1", port), trusting(trusted, own))
        return await exits.enter_async_context(client)

    early = await (await frontend(authority, identity)).dial(echoing.address)
    fresh = stranger.issue("localhost", "127.0.0.1")
    mounted.put(fresh, (stranger,))
    await until(lambda: server.certificates[0].loaded_at > server.certificates[2].loaded_at)
    await ping(early)
    await ping(await (await frontend(stranger, fresh)).dial(echoing.address))
    late = trusting(stranger, identity)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=late)
    with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
        await reader.read(1)
    writer.transport.abort()
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection("127.0.0.1", port, ssl=trusting(authority, fresh))


async def test_an_expired_client_certificate_is_told_of_at_the_start_and_by_the_server(
    start_server: StartServer, start_agent: StartAgent, authority: Authority, log: Log
) -> None:
    await start_server()
    old = authority.expired("agent")
    await start_agent(agent_cert=old.cert, agent_key=old.key)
    await log.wait_for("the one in use has expired at ", 'flag="--agent-cert"', old.cert)
    await log.wait_for("TLS handshake failed", "has expired, by this machine's clock: 20")
    await log.wait_for("Cannot connect", "our certificate has expired or is not valid yet")


async def test_tls_below_12_is_warned_of(start_server: StartServer, log: Log) -> None:
    await start_server(tls_min_version="VersionTLS11")
    assert log.has("TLS below 1.2 is insecure", 'tlsMinVersion="VersionTLS11"')
