"""A socket becomes a transport, whatever its peer does meanwhile."""

from __future__ import annotations

import asyncio
import gc
from typing import cast

import pytest
from tests.net.sockets import connected_pair, open_as, reset

from konnectivity.net.handover import transport_on

pytestmark = pytest.mark.both_loops


class Eager(asyncio.Protocol):
    """Writes as soon as it can."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(b"hello")

    def connection_lost(self, error: Exception | None) -> None:
        self.over.set()


@pytest.mark.parametrize("turns", range(4))
async def test_a_reset_at_any_moment_closes_the_socket_once(turns: int) -> None:
    ours, theirs = connected_pair()
    number = ours.fileno()
    running = asyncio.create_task(transport_on(ours, Eager))
    del ours
    for _ in range(turns):
        await asyncio.sleep(0)
    reset(theirs)
    transport, eager = await running
    await eager.over.wait()
    await asyncio.sleep(0)
    with open_as(number) as another:
        del running, transport
        gc.collect()
        assert another.getsockname()  # its descriptor has not been closed by us
