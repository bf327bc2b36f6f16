"""The agent dials only what its policy allows, and says why not: W48."""

from __future__ import annotations

import pytest
from tests.e2e.conftest import (
    MODES,
    Log,
    OpenTunnel,
    StartAgent,
    StartFakeServer,
    StartPair,
)
from tests.e2e.test_scenarios import get
from tests.peers import schema
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import Refused, ping


@pytest.mark.parametrize("mode", MODES)
async def test_w48_a_destination_outside_the_policy_is_refused_counted_and_logged(
    mode: str, start_pair: StartPair, open_tunnel: OpenTunnel, echoing: Endpoint, log: Log
) -> None:
    pair = await start_pair(agent={"cluster_destinations_only": True})
    with pytest.raises(Refused) as caught:
        await open_tunnel(mode, echoing.address)
    why = (
        f"dial tcp {echoing.address}: destination not allowed by the agent's policy "
        "(--cluster-destinations-only: loopback address)"
    )
    assert why in str(caught.value)
    assert echoing.seen == 0
    counters = pair.agent.counters
    assert counters.policy_refusals == {"loopback": 1}
    assert counters.dial_failures == {"policy": 1}
    assert pair.server.exchange.counters.dial_failures == {"error_response": 1}
    assert log.has("Dial refused", "loopback address")


@pytest.mark.parametrize("mode", MODES)
async def test_w48_a_destination_that_a_rule_allows_is_dialled(
    mode: str, start_pair: StartPair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    port = echoing.port
    await start_pair(agent={"allow_destinations": (f"127.0.0.0/8:{port}", f"localhost:{port}")})
    await ping(await open_tunnel(mode, echoing.address))
    await ping(await open_tunnel(mode, f"localhost:{port}"))
    for address in (f"127.0.0.1:{port - 1}", f"[::1]:{port}", "0.0.0.0:80", ":80"):
        with pytest.raises(Refused, match="not in --allow-destinations"):
            await open_tunnel(mode, address)


async def test_w48_a_name_is_judged_by_what_it_resolves_to(
    start_fake_server: StartFakeServer, start_agent: StartAgent, echoing: Endpoint
) -> None:
    server = await start_fake_server()
    await start_agent(cluster_destinations_only=True)
    session = await server.session()
    await session.begin_dial(f"localhost:{echoing.port}")
    answer = (await session.expect(schema.DIAL_RSP)).dialResponse
    assert "destination not allowed by the agent's policy" in answer.error
    assert "loopback address" in answer.error
    assert echoing.seen == 0


async def test_w48_by_default_everything_is_dialled_as_upstream_does(
    start_pair: StartPair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    pair = await start_pair()
    await ping(await open_tunnel("grpc", echoing.address))
    assert not pair.agent.counters.policy_refusals


async def test_w48_refusals_by_kind_of_address_stand_among_the_metrics(
    start_pair: StartPair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    pair = await start_pair(agent={"cluster_destinations_only": True})
    for _ in range(2):
        with pytest.raises(Refused):
            await open_tunnel("grpc", echoing.address)
    _, page = await get(pair.agent.options.health_server_port, "/metrics")
    assert 'refused_destinations_total{rule="loopback"} 2' in page
