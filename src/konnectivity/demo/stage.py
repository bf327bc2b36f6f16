"""The demo's players as processes: the server outside, kubelet and agent in the cluster."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from konnectivity.demo.certificates import Authority
from konnectivity.demo.network import Network
from konnectivity.demo.process import READY_TIMEOUT, Process, ProcessError, running

PYTHON: Final = (sys.executable, "-m")
_RANGE: Final = range(20000, 32000)  # within 1024..49151, below Linux's ephemeral ports


class Ports(NamedTuple):
    """TCP ports of one stage."""

    agent_listener: int
    server_health: int
    server_admin: int
    agent_health: int
    agent_admin: int


@dataclass(frozen=True, slots=True)
class Stage:
    """A running system: the frontend's socket, the kubelet's address and the CA it is known by."""

    socket_path: str
    kubelet_host: str
    kubelet_port: int
    ca_bundle: Path
    processes: Sequence[Process]

    def expect_alive(self) -> None:
        """Raise ProcessError when one of the processes has ended."""
        for process in self.processes:
            process.expect_alive()


@contextlib.asynccontextmanager
async def set_up(network: Network, *, directory: Path) -> AsyncIterator[Stage]:
    """Start everything and wait until the agent is connected to the server.

    Raises:
        ProcessError: a process did not start or was not ready in time; with its last words.
    """
    authority = Authority(directory)
    frontend = str(directory / "konnectivity-server.socket")
    ports = _free_ports()
    async with contextlib.AsyncExitStack() as stack:

        async def start(name: str, argv: Sequence[str], *, announces: bool = False) -> Process:
            log = directory / f"{name}.log"
            process = running(f"the {name}", argv, log=log, announces=announces)
            return await stack.enter_async_context(process)

        kubelet = await start("kubelet", _kubelet(network, authority), announces=True)
        server = await start("server", _server(network, authority, frontend, ports))
        agent = await start("agent", _agent(network, authority, ports))
        address = (await kubelet.read_line()).rpartition(" ")[2]
        host, _, port = address.rpartition(":")
        stage = Stage(frontend, host, int(port), authority.bundle, (server, agent, kubelet))
        await _until_ready(stage, ports.server_health)
        yield stage


def _kubelet(network: Network, authority: Authority) -> list[str]:
    pair = authority.issue_server("kubelet", [network.node_host])
    return [
        *network.enter,
        *PYTHON,
        "konnectivity.demo.cluster",
        f"--host={network.node_host}",
        f"--port={network.kubelet_port}",
        f"--cert={pair.certificate}",
        f"--key={pair.key}",
    ]


def _server(network: Network, authority: Authority, frontend: str, ports: Ports) -> list[str]:
    pair = authority.issue_server("server", [network.server_host])
    return [
        *PYTHON,
        "konnectivity",
        "server",
        "--mode=grpc,http-connect",
        f"--uds-name={frontend}",
        "--server-port=0",
        f"--agent-bind-address={network.server_host}",
        f"--agent-port={ports.agent_listener}",
        f"--cluster-cert={pair.certificate}",
        f"--cluster-key={pair.key}",
        f"--cluster-ca-cert={authority.bundle}",
        "--health-bind-address=127.0.0.1",
        f"--health-port={ports.server_health}",
        f"--admin-port={ports.server_admin}",
    ]


def _agent(network: Network, authority: Authority, ports: Ports) -> list[str]:
    pair = authority.issue_client("agent")
    return [
        *network.enter,
        *PYTHON,
        "konnectivity",
        "agent",
        "--agent-id=demo",
        f"--proxy-server-host={network.server_host}",
        f"--proxy-server-port={ports.agent_listener}",
        f"--ca-cert={authority.bundle}",
        f"--agent-cert={pair.certificate}",
        f"--agent-key={pair.key}",
        "--health-server-host=127.0.0.1",
        f"--health-server-port={ports.agent_health}",
        f"--admin-server-port={ports.agent_admin}",
        "--sync-interval=0.2s",
    ]


def _free_ports() -> Ports:
    """Ports that nothing listens on now, on any address of this namespace."""
    ports: list[int] = []
    for port in random.sample(_RANGE, len(_RANGE)):
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(("", port))
            ports.append(port)
        if len(ports) == len(Ports._fields):
            return Ports(*ports)
    raise ProcessError(f"too few ports are free between {_RANGE.start} and {_RANGE.stop}")


async def _until_ready(stage: Stage, health_port: int) -> None:
    """Ask the server's `/readyz` until it knows an agent."""
    answer = "no answer"
    try:
        async with asyncio.timeout(READY_TIMEOUT):
            while "200" not in (answer := await _ask_readyz(health_port)):
                stage.expect_alive()
                await asyncio.sleep(0.05)
    except TimeoutError:
        agent = stage.processes[1]
        raise ProcessError(
            f"no agent connected in {READY_TIMEOUT:g} s: the server's /readyz says {answer!r}, "
            f"the agent: {agent.last_words()}"
        ) from None


async def _ask_readyz(port: int) -> str:
    """The status line of the server's answer."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        return error.strerror or str(error)
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return (await reader.readline()).decode("latin-1").strip()
    except OSError as error:
        return str(error)
    finally:
        writer.close()
