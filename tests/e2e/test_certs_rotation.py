"""`konnectivity certs` renews leaves and replaces the CA under running programs and their load."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
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
from tests.e2e.test_rotation import INTERVAL, dialling, new_link
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ConnectClient, Refused, ping
from tests.peers.ports import free_port

from konnectivity.agent.app import Agent
from konnectivity.cli import certs
from konnectivity.server.app import Server


class Certs:
    """A directory that the command looks after."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def __call__(self, action: str, *flags: str) -> None:
        """Run the command beside the event loop, as another process would."""
        words = [action, f"--directory={self.path}", *flags]
        assert await asyncio.to_thread(certs.command, words) == 0

    def flags(self, leaf: str, cert: str, key: str, ca: str) -> dict[str, Any]:
        """A program's options for the folder of a leaf."""
        folder = self.path / leaf
        names = {cert: "tls.crt", key: "tls.key", ca: "ca.crt"}
        return {flag: str(folder / name) for flag, name in names.items()}


@pytest.fixture
async def directory(folder: Path) -> Certs:
    made = Certs(folder / "pki")
    await made("init", "--server-names=127.0.0.1")
    return made


@pytest.fixture
async def pair(start_pair: StartPair, directory: Certs) -> Pair:
    """Server and agent with the files of their own folders alone; roles are insisted on."""
    return await start_pair(
        server=INTERVAL
        | directory.flags("server", "cluster_cert", "cluster_key", "cluster_ca_cert")
        | {"agent_certificate_identities": ("O=konnectivity:agent",)},
        agent=INTERVAL | directory.flags("agent", "agent_cert", "agent_key", "ca_cert"),
    )


async def taken_over(*programs: Server | Agent, change: Awaitable[None]) -> None:
    """Change files, and wait until all programs use the last of what was written."""
    before = [each.certificates[0].loaded_at for each in programs]
    await change
    await asyncio.sleep(3 * INTERVAL["certificate_reload_interval"])
    await until(
        lambda: all(
            facts.on_disk == facts.in_use and not facts.error and facts.loaded_at > then
            for each, then in zip(programs, before, strict=True)
            for facts in each.certificates
        )
    )


async def test_leaves_and_ca_rotate_under_load_and_no_tunnel_notices(
    pair: Pair,
    directory: Certs,
    start_agent: StartAgent,
    folder: Path,
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
    log: Log,
) -> None:
    """Zero tunnels cut, zero dials failed, one connection from the first to the last step."""
    await asyncio.to_thread(keep_agent, directory.path, folder / "old")
    await until(lambda: pair.agent.connections.links)
    links = list(pair.agent.connections.links)
    steps = [("--all",), *3 * [("--ca", "--after=0s")], ("--all",)]
    async with AsyncExitStack() as load:
        dials = []
        for mode in MODES:
            await load.enter_async_context(unharmed(await open_tunnel(mode, echoing.address)))
            made = dialling(open_tunnel, mode, echoing.address)
            dials.append(await load.enter_async_context(made))
        for flags in steps:
            await taken_over(pair.server, pair.agent, change=directory("rotate", *flags))
            await until(more(dials))
        assert pair.agent.connections.links == links
    counters = pair.server.exchange.counters
    assert counters.dial_failures == {}
    assert set(counters.tunnels_ended) == {"frontend_close"}  # by the load itself

    # A new connection is made with what the last step left, and what the first one had is refused.
    await new_link(pair)
    await ping(await open_tunnel("grpc", echoing.address))
    await start_agent(
        agent_id="late",
        agent_cert=str(folder / "old" / "tls.crt"),
        agent_key=str(folder / "old" / "tls.key"),
        ca_cert=str(directory.path / "ca.crt"),
        health_server_port=free_port(),
        admin_server_port=free_port(),
    )
    await log.wait_for("TLS handshake failed", "is not signed by a CA of our bundle")


async def test_every_phase_lets_agents_connect_anew_and_so_does_the_way_back(
    pair: Pair, directory: Certs, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    """Agents that reconnect at any moment of the rotation get in."""
    on, back = (), ("--rollback",)
    for flags in (on, on, back, on, on, back):
        change = directory("rotate", "--ca", "--after=0s", *flags)
        await taken_over(pair.server, pair.agent, change=change)
        await new_link(pair)
        await ping(await open_tunnel("http-connect", echoing.address))
    assert pair.server.exchange.counters.dial_failures == {}


def keep_agent(directory: Path, into: Path) -> None:
    """Copy the agent's pair, as somebody would who wants to use it later."""
    into.mkdir()
    for name in ("tls.crt", "tls.key"):
        (into / name).write_bytes((directory / "agent" / name).read_bytes())


def more(dials: list[list[int]]) -> Callable[[], bool]:
    """Whether there were ten dials more in each mode since now."""
    before = [len(each) for each in dials]
    return lambda: all(len(now) > then + 10 for now, then in zip(dials, before, strict=True))


async def test_each_of_the_four_certificates_is_good_for_its_own_end_only(
    folder: Path,
    start_server: StartServer,
    start_agent: StartAgent,
    exits: AsyncExitStack,
    echoing: Endpoint,
    log: Log,
) -> None:
    """One CA signs for agents and frontends; the organisation tells them apart."""
    made, port = Certs(folder / "pki"), free_port()
    await made("init", "--server-names=127.0.0.1", "--frontend-names=127.0.0.1")
    server = await start_server(
        mode="http-connect",
        uds_name="",
        server_port=port,
        server_bind_address="127.0.0.1",
        frontend_certificate_identities=("O=konnectivity:frontend-client",),
        agent_certificate_identities=("O=konnectivity:agent",),
        **made.flags("frontend-server", "server_cert", "server_key", "server_ca_cert"),
        **made.flags("server", "cluster_cert", "cluster_key", "cluster_ca_cert"),
    )
    await start_agent(**made.flags("agent", "agent_cert", "agent_key", "ca_cert"))
    await until(lambda: len(server.exchange.backends))

    def trusting(leaf: str) -> ssl.SSLContext:
        folder = made.path / leaf
        context = ssl.create_default_context(cafile=folder / "ca.crt")
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        return context

    for leaf in ("frontend-client", "agent"):
        context = await asyncio.to_thread(trusting, leaf)
        client = await exits.enter_async_context(ConnectClient(("127.0.0.1", port), context))
        if leaf == "agent":
            with pytest.raises(Refused, match=r"403[^!]*expected O=konnectivity:frontend-client"):
                await client.dial(echoing.address)
        else:
            await ping(await client.dial(echoing.address))

    await start_agent(
        agent_id="impostor",
        health_server_port=free_port(),
        admin_server_port=free_port(),
        **made.flags("frontend-client", "agent_cert", "agent_key", "ca_cert"),
    )
    await log.wait_for("O=konnectivity:frontend-client", "expected O=konnectivity:agent")
    assert len(server.exchange.backends) == 1
