"""Agents are replaced while tunnels carry data: real agents, two servers, a manager."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.fleet import Fleet
from tests.net.authority import Authority, Identity
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ConnectClient, ping
from tests.peers.kube_api import KubeApi
from tests.peers.kubelet import ProgramKubelet
from tests.peers.workloads import Workloads

from konnectivity.kube.client import connect
from konnectivity.lifecycle.objects.arguments import CA_DIRECTORY, CERTIFICATE_DIRECTORY
from konnectivity.lifecycle.reconciling.reconcile import ReconcileOptions, Reconciler
from konnectivity.lifecycle.rendering.render import render
from konnectivity.lifecycle.rollouts.rollout import RolloutLimits
from konnectivity.lifecycle.specification.spec import AgentSpec

NODES = ("n1", "n2", "n3")
SPEED = 20.0
"""Of ten seconds in which a new agent proves itself, half a one is left."""
SERVERS = ("s1", "s2")
LASTS = 0.5
"""Seconds that each tunnel is used, well within the drain limit."""
DRAIN = 10.0


@pytest.fixture
async def api() -> AsyncIterator[KubeApi]:
    async with KubeApi() as server:
        yield server


@pytest.fixture
async def fleet(
    exits: AsyncExitStack, folder: Path, server_options: dict[str, Any]
) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        fleet = Fleet(stack, folder, server_options | {"server_count": len(SERVERS)}, {})
        await fleet.open()
        for name in SERVERS:
            await fleet.start_server(name)
        yield fleet


@pytest.fixture
async def kubelet(
    api: KubeApi, folder: Path, authority: Authority, identity: Identity
) -> AsyncIterator[ProgramKubelet]:
    ca, certificate = folder / "ca", folder / "certificate"
    for directory in (ca, certificate):
        directory.mkdir()
    shutil.copy(authority.bundle, ca / "ca.crt")
    shutil.copy(identity.cert, certificate / "tls.crt")
    shutil.copy(identity.key, certificate / "tls.key")
    mounts = {CA_DIRECTORY: ca, CERTIFICATE_DIRECTORY: certificate}
    kubelet = ProgramKubelet(mounts, api.kubeconfig(folder))
    yield kubelet
    await kubelet.close()


@pytest.fixture
async def cluster(api: KubeApi, kubelet: ProgramKubelet) -> AsyncIterator[Workloads]:
    async with Workloads(api, kubelet, nodes=NODES, speed=SPEED) as workloads:
        yield workloads


@pytest.fixture
def spec(fleet: Fleet) -> AgentSpec:
    return AgentSpec(
        server=f"127.0.0.1:{fleet.balancer.port}",
        image="registry.example.com/k:1",
        authentication="certificate",
        drain_timeout=DRAIN,
        extra_arguments=("--sync-interval=100ms", "--sync-interval-cap=500ms"),
    )


Keep = Callable[[AgentSpec], Any]


@pytest.fixture
def keep(api: KubeApi, folder: Path) -> Keep:
    @asynccontextmanager
    async def keeping(spec: AgentSpec) -> AsyncIterator[Reconciler]:
        client = connect(str(api.kubeconfig(folder)), qps=500, burst=500)
        limits = RolloutLimits(stuck_after=4.0, log_limit=3.0, again=0.3, look=0.2)
        options = ReconcileOptions(overrides=spec.overrides, rollout=limits)
        reconciler = Reconciler(client, render(spec), options=options)
        task = asyncio.create_task(reconciler.run())
        try:
            yield reconciler
        finally:
            if not task.done():
                task.cancel()
            await asyncio.wait({task})
            await client.close()
            if not task.cancelled():
                task.result()

    return keeping


async def until(reached: Callable[[], Any], *, within: float = 60.0) -> None:
    async with asyncio.timeout(within):
        while not reached():  # noqa: ASYNC110 - what is waited for is elsewhere
            await asyncio.sleep(0.02)


def changed(spec: AgentSpec) -> AgentSpec:
    return replace(spec, extra_arguments=(*spec.extra_arguments, "--max-tunnels=1000"))


def is_new(pod: dict[str, Any]) -> bool:
    return "--max-tunnels=1000" in pod["spec"]["containers"][0]["args"]


class Traffic:
    """Tunnels through both servers, begun one after another, each used for `LASTS` seconds."""

    def __init__(self, fleet: Fleet, endpoint: Endpoint) -> None:
        self.done = 0
        self._fleet = fleet
        self._endpoint = endpoint
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Traffic:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Wait for the last tunnels; one that was cut fails here."""
        assert self._task is not None
        self._over.set()
        await self._task

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tunnels:
            while not self._over.is_set():
                for server in self._fleet.servers.values():
                    tunnels.create_task(self._use(server.options.uds_name))
                await asyncio.sleep(0.2)

    async def _use(self, frontend: str) -> None:
        async with ConnectClient(frontend) as client:
            tunnel = await client.dial(self._endpoint.address)
            until = time.monotonic() + LASTS
            while time.monotonic() < until:
                await ping(tunnel)
                await asyncio.sleep(0.05)
            await tunnel.close()
        self.done += 1


async def test_agents_are_replaced_one_by_one_and_no_tunnel_is_cut(
    fleet: Fleet,
    kubelet: ProgramKubelet,
    cluster: Workloads,
    spec: AgentSpec,
    keep: Keep,
    echoing: Endpoint,
) -> None:
    async with keep(spec) as manager:
        await until(lambda: manager.rollout.condition.reason == "Complete")
        assert all(len(each.exchange.backends) == len(NODES) for each in fleet.servers.values())
        cluster.moves.clear()
        async with Traffic(fleet, echoing) as traffic:
            await until(lambda: traffic.done)
            new = changed(spec)
            manager.want(render(new), overrides=new.overrides)
            await until(lambda: all(map(is_new, cluster.pods)) and cluster.pods)
            await until(lambda: manager.rollout.condition.reason == "Complete")
        assert traffic.done > 30
        assert cluster.most_away == 1
        kinds = [move.split()[0] for move in cluster.moves]
        assert kinds == ["stop", "gone", "start", "ready"] * len(NODES)
        for name, run in kubelet.runs.items():
            text = "\n".join(run.program.lines)
            assert '"On all servers" servers=2' in text, name
            assert run.ended == ""
            if name not in {pod["metadata"]["name"] for pod in cluster.pods}:
                assert "tunnelsCut=0" in text
        for server in fleet.servers.values():
            assert not server.exchange.counters.dial_failures


async def test_a_server_that_new_agents_do_not_reach_stops_the_rollout_after_one(
    api: KubeApi,
    fleet: Fleet,
    cluster: Workloads,
    spec: AgentSpec,
    keep: Keep,
) -> None:
    spec = replace(spec, drain_timeout=0.2)  # there is no tunnel to wait for
    async with keep(spec) as manager:
        await until(lambda: manager.rollout.condition.reason == "Complete")
        hidden = fleet.servers.pop("s2")
        new = changed(spec)
        manager.want(render(new), overrides=new.overrides)
        await until(lambda: manager.rollout.condition.reason == "Stopped")
        await manager.recorder.flush()
        events = api.items("/api/v1/namespaces/kube-system/events")
        (told,) = [each["message"] for each in events if each["reason"] == "RolloutStuck"]
        assert "connected to 1 of 2 servers" in told
        assert "1 of 3 new" in told
        (waiting,) = filter(is_new, cluster.pods)
        assert f"waits for pod {waiting['metadata']['name']} on node n" in told
        fleet.servers["s2"] = hidden
        await until(lambda: manager.rollout.condition.reason == "Progressing")
        await until(lambda: sum(map(is_new, cluster.pods)) > 1)
