"""Both frontend modes carry bytes through our own pair, on either event loop."""

from __future__ import annotations

import pytest
from tests.e2e.conftest import MODES, OpenTunnel, Pair
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ping, read_all

pytestmark = pytest.mark.both_loops


@pytest.mark.parametrize("mode", MODES)
async def test_bytes_cross_both_ways_and_the_endpoint_sees_the_end(
    mode: str, pair: Pair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    tunnel = await open_tunnel(mode, echoing.address)
    for content in (b"small", bytes(range(256)) * 1000):
        await ping(tunnel, content)
    assert echoing.open == 1
    await tunnel.close()
    await echoing.wait_until_open(0)
    assert await read_all(tunnel) == b""
