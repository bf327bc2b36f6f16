"""`konnectivity top`: rates of real tunnels, keys on a real terminal, servers that go away."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pty
import signal
import sys
from contextlib import AsyncExitStack

import pytest
from tests.diagnose.conftest import Command
from tests.e2e.conftest import (  # noqa: F401 - fixtures
    ConnectAgent,
    StartAgent,
    StartServer,
    echoing,
    http_connect,
    start_endpoint,
    until,
)
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ConnectClient, ping

from konnectivity.diagnose.gather import gather
from konnectivity.diagnose.rates import agent_rates, tunnel_rates
from konnectivity.diagnose.sources import Sources


@pytest.fixture
def servers(sources: Sources) -> Sources:
    return dataclasses.replace(sources, cluster=None, events=False, metrics=False)


async def test_rates_are_what_went_through_between_two_looks(
    start_server: StartServer,
    start_agent: StartAgent,
    http_connect: ConnectClient,  # noqa: F811
    echoing: Endpoint,  # noqa: F811
    servers: Sources,
) -> None:
    server = await start_server()
    await start_agent()
    await until(lambda: len(server.exchange.backends))
    tunnel = await http_connect.dial(echoing.address)
    await ping(tunnel)
    before = await gather(servers)
    await ping(tunnel)
    now = await gather(servers)
    (agent,) = agent_rates(before, now)
    assert (agent.id, agent.servers, agent.tunnels) == ("agent-1", 1, 1)
    assert agent.up == agent.down > 0
    (rate,) = tunnel_rates(before, now)
    assert (rate.destination, rate.agent) == (echoing.address, "agent-1")
    assert rate.up == agent.up
    (first,) = agent_rates(None, now)
    assert first.traffic == 0.0


async def test_a_connection_that_is_new_counts_from_its_beginning(
    start_server: StartServer, connect_agent: ConnectAgent, servers: Sources
) -> None:
    await start_server()
    before = await gather(servers)
    await connect_agent("a1")
    (agent,) = agent_rates(before, await gather(servers))
    assert agent.traffic == 0.0


async def test_without_a_terminal_it_prints_so_many_looks(
    start_server: StartServer,
    connect_agent: ConnectAgent,
    konnectivity: Command,
    servers: Sources,
) -> None:
    await start_server()
    await connect_agent("a1")
    url = servers.servers[0].url
    status, out, err = await konnectivity(
        "top", f"--server={url},http://127.0.0.1:1", "-n", "2", "--interval=100ms"
    )
    assert (status, err) == (0, "")
    assert out.count("1 agents") == 2
    assert "refused" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("flag", ["--sort=x", "--interval=0s", "--count=-1"])
async def test_a_mistake_is_one_line(flag: str, konnectivity: Command) -> None:
    status, out, err = await konnectivity("top", flag)
    assert (status, out, err.count("\n")) == (2, "", 1)


class Terminal:
    """A pseudo-terminal with `konnectivity top` on it."""

    def __init__(self, master: int, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.text = ""
        self._master = master
        self._news = asyncio.Event()
        os.set_blocking(master, False)
        asyncio.get_running_loop().add_reader(master, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other end is closed
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        self.text += data.decode(errors="replace")
        self._news.set()

    async def shows(self, text: str) -> None:
        async with asyncio.timeout(15):
            while text not in self.text:
                self._news.clear()
                await self._news.wait()

    def press(self, keys: str) -> None:
        self.text = ""
        os.write(self._master, keys.encode())

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)


async def on_terminal(exits: AsyncExitStack, *arguments: str) -> Terminal:
    master, slave = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "konnectivity", *arguments),
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    terminal = Terminal(master, process)
    exits.callback(terminal.close)
    return terminal


async def test_keys_sort_and_quit_and_a_server_may_go_away(
    start_server: StartServer, connect_agent: ConnectAgent, servers: Sources, exits: AsyncExitStack
) -> None:
    server = await start_server()
    await connect_agent("a1")
    url = servers.servers[0].url
    terminal = await on_terminal(exits, "top", f"--server={url}", "--interval=200ms")
    await terminal.shows("a1")
    await terminal.shows("sorted by traffic")
    terminal.press("f")
    await terminal.shows("sorted by failures")
    terminal.press("\x1b[A")  # an arrow is no escape
    await server.stop()
    await terminal.shows("refused")
    terminal.press("q")
    async with asyncio.timeout(15):
        assert await terminal.process.wait() == 0


async def test_watching_the_status_redraws_it_and_leaves_the_terminal_as_it_was(
    start_server: StartServer, connect_agent: ConnectAgent, servers: Sources, exits: AsyncExitStack
) -> None:
    await start_server()
    url = servers.servers[0].url
    terminal = await on_terminal(
        exits, "status", f"--server={url}", "--no-cluster", "--watch", "--interval=100ms"
    )
    await terminal.shows("DOWN")
    await connect_agent("a1")
    await terminal.shows("HEALTHY")
    terminal.process.send_signal(signal.SIGINT)
    await terminal.shows("\x1b[?1049l")  # back from the alternate screen
    async with asyncio.timeout(15):
        assert await terminal.process.wait() == 130
