"""How an agent leaves: it waits for its tunnels, and ends in order those that are left.

Upstream drains for ever and is killed at the end of Kubernetes' grace period (W39).
"""

from __future__ import annotations

import asyncio
from typing import Final

from konnectivity.agent.connections import Connections
from konnectivity.observe import logs

log = logs.get(__name__)

SETTLE: Final = 2.0
"""Seconds without a tunnel until the agent leaves: a dial that was under way when its server heard
of the draining has arrived by then."""
LOOK: Final = 0.1
LAST_WORDS: Final = 1.0
"""Seconds for the last bytes of tunnels that are ended."""


async def until_idle(connections: Connections, *, limit: float) -> None:
    """Wait until there has been no tunnel for `SETTLE` seconds, or `limit` is over (0: never)."""
    clock = asyncio.get_running_loop().time
    started = busy = clock()
    while clock() - busy < SETTLE:
        if limit and clock() - started >= limit:
            return
        await asyncio.sleep(LOOK)
        if connections.tunnels:
            busy = clock()


async def end_tunnels(connections: Connections) -> None:
    """End what is left, so that every server and endpoint hears of it, within `LAST_WORDS`."""
    left = connections.tunnels
    if left:
        log.warning("Ending tunnels that are left", tunnels=left)
    for link in list(connections.links):
        if link.packets is not None:
            link.packets.shut_down()
    endpoints, clock = connections.endpoints, asyncio.get_running_loop().time
    deadline = clock() + LAST_WORDS
    while (connections.tunnels or endpoints.sockets) and clock() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(LOOK / 10)
