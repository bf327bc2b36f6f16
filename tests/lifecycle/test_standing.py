"""Whether a manager keeps a cluster, as its lease and its mark tell."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.lifecycle.conftest import Connect
from tests.lifecycle.specs import PLAIN
from tests.peers.kube_api import KubeApi

from konnectivity.kube.leases import format_time
from konnectivity.lifecycle.managing.cluster import Cluster
from konnectivity.lifecycle.managing.metrics import ManagerCounters
from konnectivity.lifecycle.managing.standing import dismiss, keeper, mark, marked
from konnectivity.lifecycle.reconciling.plan import KEPT_BY, WORKLOADS, Key, plan
from konnectivity.lifecycle.reconciling.reconcile import ReconcileOptions
from konnectivity.lifecycle.rendering.render import render
from konnectivity.lifecycle.rollouts.availability import workloads_of

LEASE = "/apis/coordination.k8s.io/v1/namespaces/{}/leases/konnectivity-manager"
DAEMONSET = Key("apps/v1", "DaemonSet", "kube-system", "konnectivity-agent")
DESIRED = next(item for item in render(PLAIN) if item["kind"] in WORKLOADS)
PATH = "/apis/apps/v1/namespaces/kube-system/daemonsets/konnectivity-agent"


def hold(api: KubeApi, namespace: str, *, since: float = 0.0) -> None:
    times = {"renewTime": format_time(time.time() - since), "leaseDurationSeconds": 30}
    api.put(LEASE.format(namespace), {"spec": {"holderIdentity": "host-7", **times}})


def workload(text: str) -> dict[str, object]:
    annotations = {KEPT_BY: text} if text else {}
    return {"kind": "DaemonSet", "metadata": {"name": "a", "annotations": annotations}}


async def test_a_manager_is_seen_by_its_lease_which_may_be_elsewhere(
    api: KubeApi, client_of: Connect
) -> None:
    client, place = client_of(), mark(lease_namespace="managers")
    assert await keeper(client, "kube-system", [workload(place)]) == ""
    hold(api, "managers")
    assert await keeper(client, "kube-system", [workload(place)]) == "the manager host-7"
    assert await keeper(client, "kube-system", [workload("")]) == ""
    hold(api, "kube-system")
    assert await keeper(client, "kube-system", []) == "the manager host-7"


async def test_a_manager_whose_lease_has_run_out_is_gone(api: KubeApi, client_of: Connect) -> None:
    hold(api, "kube-system", since=60.0)
    place = mark(lease_namespace="kube-system")
    assert await keeper(client_of(), "kube-system", [workload(place)]) == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (mark(cluster="blue"), "a manager of many clusters, as blue (whether it runs is not seen"),
        (mark(), "a manager without a lease (whether it runs is not seen"),
    ],
)
async def test_a_manager_without_a_lease_here_is_told_of_by_its_mark(
    client_of: Connect, text: str, said: str
) -> None:
    assert (await keeper(client_of(), "kube-system", [workload(text)])).startswith(said)


def test_the_mark_is_at_the_workload_alone_and_its_pods_do_not_show_it() -> None:
    items = marked(render(PLAIN), "somebody")
    with_mark = [item for item in items if KEPT_BY in str(item)]
    assert [item["kind"] for item in with_mark] == ["DaemonSet"]
    assert KEPT_BY not in str(with_mark[0]["spec"])


async def test_a_mark_that_is_dismissed_is_gone_and_only_then(
    api: KubeApi, client_of: Connect
) -> None:
    def found() -> str | None:
        item = api.get(PATH) or {"metadata": {}}
        return (item["metadata"].get("annotations") or {}).get(KEPT_BY)

    async def until(text: str | None) -> None:
        async with asyncio.timeout(10):
            while found() != text:  # noqa: ASYNC110 - the fixture is looked at
                await asyncio.sleep(0.01)

    cluster = Cluster(
        "blue",
        client_of(),
        PLAIN,
        options=ReconcileOptions(resync=0, probe=0),
        may_write=lambda: True,
        counters=ManagerCounters(),
        mark=mark(cluster="blue"),
    )
    running = asyncio.create_task(cluster.run())
    await until(mark(cluster="blue"))
    running.cancel()
    await asyncio.wait({running})
    (seen,) = await workloads_of(client_of(), name=PLAIN.name, namespace=PLAIN.namespace)
    assert plan([DESIRED], {DAEMONSET: seen[1]}) == []  # nobody else takes it away
    await dismiss(client_of(), DAEMONSET)
    assert found() is None
