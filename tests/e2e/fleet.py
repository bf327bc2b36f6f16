"""Servers behind one balancer that chooses at random, and agents that know only the balancer."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.chaos.proxy import ChaosProxy
from tests.peers.metrics import Page
from tests.peers.ports import free_port
from tests.spec.metrics import AGENT, SERVER

from konnectivity.agent.app import Agent
from konnectivity.agent.options import AgentOptions
from konnectivity.server.app import Server
from konnectivity.server.options import ServerOptions


class Fleet:
    """All that is started ends with `stack`. `choices` counts what the balancer was asked for."""

    def __init__(
        self,
        stack: AsyncExitStack,
        folder: Path,
        server: dict[str, Any],
        agent: dict[str, Any],
    ) -> None:
        self.servers: dict[str, Server] = {}
        self.agents: list[Agent] = []
        self.choices = 0
        self._stack = stack
        self._folder = folder
        self._server = server
        self._agent = agent

    async def open(self) -> None:
        self.balancer = await self._stack.enter_async_context(ChaosProxy(self._choose))

    def _choose(self) -> tuple[str, int]:
        self.choices += 1
        if not self.servers:
            return "127.0.0.1", 1
        server = random.choice(list(self.servers.values()))  # noqa: S311 - any of them
        return "127.0.0.1", server.options.agent_port

    async def start_server(self, name: str, *, advertised: bool = False, **options: Any) -> Server:
        own = {
            "server_id": name,
            "uds_name": str(self._folder / f"{name}.sock"),
            **{f"{which}_port": free_port() for which in ("agent", "health", "admin")},
        }
        if advertised:
            own["advertise_agent_address"] = f"127.0.0.1:{own['agent_port']}"
        made = Server(ServerOptions(**self._server | own | options))
        self.servers[name] = await self._stack.enter_async_context(made)
        return made

    async def stop_server(self, name: str) -> None:
        await self.servers.pop(name).stop()

    async def start_agent(self, name: str, **options: Any) -> Agent:
        own = {
            "agent_id": name,
            "proxy_server_port": self.balancer.port,
            **{f"{which}_server_port": free_port() for which in ("health", "admin")},
        }
        made = Agent(AgentOptions(**self._agent | own | options))
        self.agents.append(await self._stack.enter_async_context(made))
        return made

    def is_full(self) -> bool:
        """Whether each agent is connected to each server, and to nothing else."""
        servers = sorted(self.servers)
        return all(
            sorted(link.server_id for link in agent.connections.links) == servers
            for agent in self.agents
        ) and all(len(each.exchange.backends) == len(self.agents) for each in self.servers.values())

    async def until_full(self) -> float:
        """Wait for that; the seconds it took."""
        clock = asyncio.get_running_loop().time
        started = clock()
        async with asyncio.timeout(10):
            while not self.is_full():  # noqa: ASYNC110 - a state of many
                await asyncio.sleep(0.01)
        return clock() - started

    async def figures(self) -> list[tuple[float | None, ...]]:
        """For each server its agents; for each agent its servers, and how many it knows of."""
        return [
            *[
                (
                    (await Page.scrape(each.options.health_port, SERVER)).value(
                        "ready_backend_connections"
                    ),
                )
                for each in self.servers.values()
            ],
            *[await _agent_figures(each) for each in self.agents],
        ]


async def _agent_figures(agent: Agent) -> tuple[float | None, ...]:
    page = await Page.scrape(agent.options.health_server_port, AGENT)
    return page.value("open_server_connections"), page.value("known_server_count")
