"""Every agent on every server: servers that fail, come and go; storms of agents (W58)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import OpenFleet, StartServer, until
from tests.e2e.fleet import Fleet
from tests.e2e.soak import soaking
from tests.net.authority import Authority
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ConnectClient, ping
from tests.peers.kube_api import REVIEWS, KubeApi

from konnectivity.agent.connections import Connections, SyncOptions
from konnectivity.agent.counters import AgentCounters
from konnectivity.agent.link import LinkOptions
from konnectivity.agent.targets import PATIENCE
from konnectivity.net import tls
from konnectivity.net.h2 import H2Settings
from konnectivity.server.app import Server
from konnectivity.tunnel.budget import TunnelLimits

AGENTS = 5
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"


@pytest.fixture
async def api() -> AsyncIterator[KubeApi]:
    async with KubeApi() as api:
        yield api


@pytest.fixture
async def fleet(open_fleet: OpenFleet) -> Fleet:
    return await open_fleet(sync_interval=0.05, sync_interval_cap=0.3)


async def serves(server: Server, endpoint: Endpoint) -> bool:
    async with ConnectClient(server.options.uds_name) as client:
        await ping(await client.dial(endpoint.address))
        return True


async def test_a_server_that_fails_is_replaced_at_every_agent_by_chance(
    fleet: Fleet, echoing: Endpoint
) -> None:
    """Scenario 21, experiment 4."""
    for number in (1, 2, 3):
        await fleet.start_server(f"s{number}", server_count=3)
    for number in range(AGENTS):
        await fleet.start_agent(f"a{number}")
    await fleet.until_full()
    await fleet.stop_server("s2")
    await until(fleet.is_full)  # two connections each
    await fleet.start_server("s4", server_count=3)
    assert await fleet.until_full() < 5
    for server in fleet.servers.values():
        assert await serves(server, echoing)


async def test_one_server_becomes_three_and_one_again_without_a_lottery(
    fleet: Fleet, api: KubeApi, folder: Path, echoing: Endpoint
) -> None:
    """Experiment 4, growing and shrinking."""
    config = {"kubeconfig": str(api.kubeconfig(folder))}
    leasing = config | {"enable_lease_controller": True, "advertised": True}
    await fleet.start_server("s1", **leasing)
    for number in range(AGENTS):
        await fleet.start_agent(f"a{number}", count_server_leases=True, **config)
    await fleet.until_full()
    before = fleet.choices
    await fleet.start_server("s2", **leasing)
    await fleet.start_server("s3", **leasing)
    assert await fleet.until_full() < 5
    assert fleet.choices == before
    for server in fleet.servers.values():
        assert await serves(server, echoing)
    await fleet.stop_server("s3")
    await fleet.stop_server("s1")
    assert await fleet.until_full() < 5
    assert await serves(fleet.servers["s2"], echoing)
    await until(lambda: {each.counters.known_servers for each in fleet.agents} == {1})
    settled = fleet.choices
    await asyncio.sleep(0.5)
    assert fleet.choices == settled  # nobody looks for servers that are not there


async def test_a_server_that_is_away_costs_the_others_next_to_nothing(
    fleet: Fleet, api: KubeApi, folder: Path
) -> None:
    config = {"kubeconfig": str(api.kubeconfig(folder))}
    leasing = config | {"enable_lease_controller": True, "advertised": True}
    await fleet.start_server("s1", **leasing)
    for number in range(AGENTS):
        await fleet.start_agent(f"a{number}", count_server_leases=True, **config)
    await fleet.until_full()
    away = await fleet.start_server("s2", **leasing)
    await fleet.until_full()
    (lease,) = [each for each in api.items(LEASES) if each["metadata"]["name"].endswith("s2")]
    before = fleet.choices
    await fleet.stop_server("s2")
    api.put(f"{LEASES}/{lease['metadata']['name']}", lease)  # as if it had crashed

    def vain() -> list[int]:
        return [each.counters.link_failures["tcp"] for each in fleet.agents]

    await until(lambda: min(vain()) > 2 * PATIENCE)
    assert 2 * AGENTS <= fleet.choices - before <= sum(vain()) // PATIENCE
    await fleet.start_server("s2", agent_port=away.options.agent_port, **leasing)
    await fleet.until_full()


async def test_agents_that_count_no_leases_are_told_of_all_servers_by_one(
    fleet: Fleet, api: KubeApi, folder: Path
) -> None:
    leasing = {"enable_lease_controller": True, "kubeconfig": str(api.kubeconfig(folder))}
    await fleet.start_server("s1", advertised=True, **leasing)
    await fleet.start_server("s2", advertised=True, **leasing)
    await until(lambda: len(api.items(LEASES)) == 2)
    third = await fleet.start_server("s3", advertised=True, **leasing)
    await until(lambda: third._leases is not None and len(third._leases.servers) >= 2)
    await fleet.start_agent("a1", proxy_server_port=third.options.agent_port)
    await fleet.until_full()
    assert fleet.choices == 0


async def test_w59_servers_that_disagree_are_all_found_whoever_is_met_last(fleet: Fleet) -> None:
    await fleet.start_server("s1", server_count=3)
    await fleet.start_server("s2", server_count=1)
    await fleet.start_server("s3", server_count=2)
    for number in range(AGENTS):
        await fleet.start_agent(f"a{number}", sync_forever=True)
    await fleet.until_full()
    assert {each.counters.known_servers for each in fleet.agents} == {3}


# Storms


@soaking(short=200, long=2000)
async def test_w58_a_storm_of_agents_costs_a_token_review_for_each_and_no_more(
    much: int,
    start_server: StartServer,
    exits: AsyncExitStack,
    api: KubeApi,
    folder: Path,
    authority: Authority,
    server_options: dict[str, Any],
) -> None:
    """Experiment 7."""
    reviewed: list[str] = []

    def review(spec: dict[str, Any]) -> dict[str, Any]:
        reviewed.append(spec["token"])
        user = {"username": "system:serviceaccount:kube-system:konnectivity-agent"}
        return {"authenticated": True, "audiences": ["konnectivity"], "user": user}

    api.review = review
    options = {
        "cluster_ca_cert": "",
        "agent_namespace": "kube-system",
        "agent_service_account": "konnectivity-agent",
        "authentication_audience": "konnectivity",
        "authentication_cache_ttl": 600.0,
        "kubeconfig": str(api.kubeconfig(folder)),
        "kubeconfig_qps": 1000.0,
        "kubeconfig_burst": 1000,
        "server_count": 2,  # one more than there are: every agent keeps looking for it
    }
    server = await start_server(**options)
    context = tls.client_context(authority.bundle, alpn=["h2"], insist_on_alpn=True)
    agents = []
    for number in range(much):
        token = folder / f"token-{number}"
        token.write_text(f"token-{number}")
        agent = Connections(
            LinkOptions(
                host="127.0.0.1",
                port=server_options["agent_port"],
                agent_id=f"agent-{number}",
                identifiers="",
                token_path=str(token),
                h2=H2Settings(),
                limits=TunnelLimits(),
            ),
            SyncOptions(interval=0.5, interval_cap=much / 50, forever=False),
            context=lambda: context,
            counters=AgentCounters(),
        )
        agents.append(agent)
        task = asyncio.create_task(agent.run())
        exits.push_async_callback(asyncio.wait, {task})
        exits.callback(task.cancel)
    async with asyncio.timeout(much / 10):
        while len(server.exchange.backends) < much:  # noqa: ASYNC110 - a count
            await asyncio.sleep(0.05)
    await asyncio.sleep(2)  # duplicates come and go
    assert len(set(reviewed)) == much
    # Both ends share this process: a first answer that comes too late is asked for again.
    assert len(api.asked("POST", REVIEWS)) == len(reviewed) <= much * 1.05
