"""How a server stops: ordered and bounded, with and without `--graceful-shutdown-timeout`.

By then readiness is off and the listeners are closed. Tunnels of both modes may go on up to the
limit (W36, W37); those that are left get a clean end; nothing is waited for without bound (W35).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from konnectivity.errors import KonnectivityError
from konnectivity.observe import logs
from konnectivity.server.backend import Agents
from konnectivity.server.exchange import Exchange
from konnectivity.server.first_bytes import PAUSE
from konnectivity.server.frontend import Frontends

log = logs.get(__name__)

LOOK: Final = 0.02
"""Seconds between looks at what is left."""
HELD_BACK: Final = 2 * PAUSE
"""Seconds for the end of a gRPC tunnel whose beginning is still held back, and to read both."""
LAST_WORDS: Final = 0.5
"""Seconds for what was written last to leave."""
FAREWELL_LIMIT: Final = 2.0
"""Seconds for a farewell: a lease that cannot be deleted runs out by itself."""

Farewell: TypeAlias = Callable[[], Awaitable[object]]


async def bid(farewell: Farewell) -> None:
    """Say one farewell to others, such as the deletion of a lease, within its limit."""
    try:
        async with asyncio.timeout(FAREWELL_LIMIT):
            await farewell()
    except TimeoutError:
        log.warning("No answer to a farewell in time", seconds=FAREWELL_LIMIT)
    except KonnectivityError as error:
        log.warning("A farewell failed", error=str(error))


async def wind_down(
    exchange: Exchange, frontends: Frontends, agents: Agents, *, limit: float
) -> None:
    """Let tunnels end by themselves up to `limit` seconds; then end them and every connection."""
    counters = exchange.counters
    if limit:
        frontends.go_away()
        agents.go_away()
        await _until(lambda: not (counters.established or counters.pending_dials), limit)
    if counters.established or counters.pending_dials:
        log.warning("Ending tunnels that are left", tunnels=counters.established)
        for stream in list(exchange.backends.streams()):
            stream.shut_down()
        await asyncio.sleep(HELD_BACK)
    frontends.close()
    agents.close()
    await _until(lambda: not (frontends.count or agents.count), LAST_WORDS)
    frontends.abort()
    agents.abort()


async def _until(done: Callable[[], bool], limit: float) -> None:
    """Look at counts of many owners until they agree; an event for each would be wiring."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + limit
    while not done() and clock() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(LOOK)
