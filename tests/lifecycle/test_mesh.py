"""The condition MeshComplete: what agents say of the servers that they are at."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
from tests.lifecycle.conftest import Connect
from tests.lifecycle.specs import PLAIN
from tests.peers.kube_api import KubeApi

from konnectivity.kube import heartbeat
from konnectivity.kube.heartbeat import Connection, Failure, Heartbeat
from konnectivity.lifecycle.managing.cluster import Cluster
from konnectivity.lifecycle.managing.metrics import ManagerCounters
from konnectivity.lifecycle.reconciling.reconcile import ReconcileOptions
from konnectivity.lifecycle.rollouts import mesh
from konnectivity.observe.status import Time

NAMESPACE = heartbeat.NAMESPACE
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
NOW = 1_000_000.0


def beat(agent: str, *, at: int, of: int, error: str = "", **facts: Any) -> Heartbeat:
    """An agent at `at` of `of` servers."""
    servers = tuple(
        Connection(f"s{number}", "10.0.0.1:8091", "1", Time(NOW), None, 0) for number in range(at)
    )
    failures = (Failure("10.0.0.2:8091", "tcp", error, Time(NOW), 3),) if error else ()
    told = {"updated_at": Time(NOW), "started_at": Time(NOW)} | facts
    return Heartbeat(
        agent=agent,
        version="1",
        state="running",
        servers_wanted=of,
        servers=servers,
        failures=failures,
        **told,
    )


def lease(told: Heartbeat) -> dict[str, Any]:
    return heartbeat.lease_of(told, name=told.agent, interval=60.0)


def test_it_is_true_when_every_agent_is_at_all_servers() -> None:
    found = mesh.judge([lease(beat("a", at=2, of=2)), lease(beat("b", at=2, of=2))], NOW)
    assert (found.status, found.message) == (True, "2 agents, each at all of its servers")


def test_it_names_agents_that_miss_servers_and_what_went_wrong() -> None:
    leases = [
        lease(beat("a", at=2, of=2)),
        lease(beat("b", at=1, of=2, error="connection refused", node="node-b")),
    ]
    found = mesh.judge(leases, NOW)
    assert (found.status, found.reason) == (False, "ServersMissing")
    expected = "node-b is at 1 of 2 servers (10.0.0.2:8091: connection refused)"
    assert found.message == expected


def test_of_many_a_few_are_named() -> None:
    found = mesh.judge([lease(beat(f"a{n}", at=0, of=1)) for n in range(9)], NOW)
    assert found.message.endswith("; and 6 more")


@pytest.mark.parametrize("leases", [[], [{"metadata": {}}], [lease(beat("a", at=0, of=1))]])
def test_nobody_who_told_lately_is_no_verdict(leases: list[dict[str, Any]]) -> None:
    found = mesh.judge(leases, NOW + 600)
    assert (found.status, found.reason) == (None, "NoHeartbeats")


def test_a_document_that_cannot_be_read_counts_as_silence() -> None:
    broken = lease(beat("a", at=0, of=1))
    broken["metadata"]["annotations"][heartbeat.ANNOTATION] = "{"
    assert mesh.judge([broken, lease(beat("b", at=1, of=1))], NOW).status is True


async def test_a_cluster_that_is_kept_tells_it(api: KubeApi, client_of: Connect) -> None:
    spec = replace(PLAIN, heartbeats=True)
    cluster = Cluster(
        "",
        client_of(),
        spec,
        options=ReconcileOptions(resync=0, probe=0.05),
        may_write=lambda: True,
        counters=ManagerCounters(),
    )
    now = {"updated_at": Time(time.time())}
    api.put(f"{LEASES}/a", lease(beat("a", at=1, of=2, **now)))
    task = asyncio.create_task(cluster.run())
    try:
        await until_status(cluster, status=False)
        api.put(f"{LEASES}/a", lease(beat("a", at=2, of=2, **now)))
        await until_status(cluster, status=True)
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until_status(cluster: Cluster, *, status: bool) -> None:
    async with asyncio.timeout(8):
        while True:
            found = cluster.conditions.current.get(mesh.TYPE)
            if found is not None and found.status is status:
                return
            await asyncio.sleep(0.02)
