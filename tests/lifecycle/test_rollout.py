"""A rollout of agents: its pace, what it waits for, when it is stopped, and when it goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from tests.lifecycle.conftest import Connect
from tests.lifecycle.specs import PLAIN
from tests.peers.kube_api import Fault, KubeApi
from tests.peers.kubelet import ToldKubelet, status
from tests.peers.workloads import Workloads

from konnectivity.kube.watch import WatchOptions
from konnectivity.lifecycle.reconciling.reconcile import ReconcileOptions, Reconciler
from konnectivity.lifecycle.rendering.render import render
from konnectivity.lifecycle.rollouts.rollout import RolloutLimits
from konnectivity.lifecycle.rollouts.said import lacking
from konnectivity.lifecycle.rollouts.steering import STOPPED
from konnectivity.lifecycle.specification.spec import AgentSpec

Object = dict[str, Any]
ROOT = "/apis/apps/v1/namespaces/kube-system"
DAEMONS = f"{ROOT}/daemonsets/konnectivity-agent"
DEPLOYMENT = f"{ROOT}/deployments/konnectivity-agent"
QUICK = WatchOptions(first_wait=0.02, longest_wait=0.1)
LIMITS = RolloutLimits(stuck_after=60.0, log_limit=0.5, again=0.1, look=0.05)
MODES = ("daemonset", "deployment")
NEXT = "registry.example.com/k:2"


@asynccontextmanager
async def keeping(
    client_of: Connect, spec: AgentSpec, *, limits: RolloutLimits = LIMITS, hold: float = 0.0
) -> AsyncIterator[Reconciler]:
    options = ReconcileOptions(
        resync=0,
        probe=60,
        overrides=spec.overrides,
        watch=QUICK,
        rollout=limits,
        scale_down_hold=hold,
    )
    reconciler = Reconciler(client_of(), render(spec), options=options)
    task = asyncio.create_task(reconciler.run())
    try:
        yield reconciler
    finally:
        if not task.done():
            task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()


@pytest.fixture
async def kubelet() -> ToldKubelet:
    return ToldKubelet()


@pytest.fixture
async def cluster(api: KubeApi, kubelet: ToldKubelet) -> AsyncIterator[Workloads]:
    async with Workloads(api, kubelet, nodes=["n1", "n2", "n3"], speed=100) as workloads:
        yield workloads


async def until(reached: Callable[[], Any], *, within: float = 10.0) -> None:
    async with asyncio.timeout(within):
        while not reached():  # noqa: ASYNC110 - what is waited for is elsewhere
            await asyncio.sleep(0.01)


def rolled_out(reconciler: Reconciler, reason: str = "Complete") -> Callable[[], bool]:
    return lambda: reconciler.rollout.condition.reason == reason


def want(reconciler: Reconciler, spec: AgentSpec) -> None:
    reconciler.want(render(spec), overrides=spec.overrides)


def images(pods: list[Object]) -> list[str]:
    return [pod["spec"]["containers"][0]["image"] for pod in pods]


async def events(api: KubeApi, reconciler: Reconciler) -> dict[str, str]:
    await reconciler.recorder.flush()
    items = api.items("/api/v1/namespaces/kube-system/events")
    return {item["reason"]: item["message"] for item in items}


def not_ready(pod: Object) -> Object:
    return status(ready=False, why="Readiness probe failed")


@pytest.mark.parametrize("mode", MODES)
async def test_agents_are_replaced_one_by_one(
    mode: str, client_of: Connect, cluster: Workloads
) -> None:
    spec = replace(PLAIN, mode=mode, replicas=3 if mode == "deployment" else 0)
    async with keeping(client_of, spec) as reconciler:
        await until(rolled_out(reconciler))
        cluster.moves.clear()
        want(reconciler, replace(spec, image=NEXT))
        await until(lambda: set(images(cluster.pods)) == {NEXT} and rolled_out(reconciler)())
        assert len(cluster.pods) == 3
        assert cluster.most_away <= 1
    kinds = [move.split()[0] for move in cluster.moves]
    first, then = ("stop", "start") if mode == "daemonset" else ("start", "stop")
    told = [kind for kind in kinds if kind in (first, then)]
    assert told == [first, then] * 3
    assert kinds.count("ready") == 3


@pytest.mark.parametrize("mode", MODES)
async def test_a_rollout_waits_for_the_first_new_agent_and_says_for_which_and_why(
    mode: str, client_of: Connect, cluster: Workloads, kubelet: ToldKubelet
) -> None:
    spec = replace(PLAIN, mode=mode, replicas=3 if mode == "deployment" else 0)
    async with keeping(client_of, spec) as reconciler:
        await until(rolled_out(reconciler))
        kubelet.judge = lambda pod: not_ready(pod) if NEXT in images([pod]) else status(ready=True)
        want(reconciler, replace(spec, image=NEXT))
        await until(lambda: NEXT in images(cluster.pods))
        name = cluster.pods[-1]["metadata"]["name"]
        waits = f"waits for pod {name} on node n"
        await until(
            lambda: waits in (text := reconciler.rollout.condition.message) and "1 of" in text
        )
        await until(lambda: "not ready" in reconciler.rollout.condition.message)
        condition = reconciler.rollout.condition
        assert (condition.status, condition.reason) == (False, "Progressing")
        assert condition.message.startswith("1 of 3 new")
        assert images(cluster.pods).count(NEXT) == 1
        kubelet.judge = lambda pod: status(ready=True)
        await until(lambda: set(images(cluster.pods)) == {NEXT} and rolled_out(reconciler)())


@pytest.mark.parametrize("mode", MODES)
async def test_a_stuck_rollout_stops_says_on_what_and_another_specification_goes_on(
    mode: str, api: KubeApi, client_of: Connect, cluster: Workloads, kubelet: ToldKubelet
) -> None:
    spec = replace(PLAIN, mode=mode, replicas=3 if mode == "deployment" else 0)
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    kubelet.judge = lambda pod: (
        status(ready=False, waiting=waiting) if NEXT in images([pod]) else status(ready=True)
    )
    limits = replace(LIMITS, stuck_after=1.0)
    async with keeping(client_of, spec, limits=limits) as reconciler:
        await until(rolled_out(reconciler))
        want(reconciler, replace(spec, image=NEXT))
        path = DAEMONS if mode == "daemonset" else DEPLOYMENT
        await until(lambda: STOPPED in (api.get(path) or {})["metadata"].get("annotations", {}))
        live = (api.get(path) or {})["spec"]
        if mode == "daemonset":
            assert live["updateStrategy"] == {"type": "OnDelete"}
        else:
            assert live["paused"]
        told = await events(api, reconciler)
        assert "ImagePullBackOff: no such image" in told["RolloutStuck"]
        assert "on node n" in told["RolloutStuck"]
        await until(rolled_out(reconciler, "Stopped"))
        third = replace(spec, image="registry.example.com/k:3")
        want(reconciler, third)
        await until(lambda: set(images(cluster.pods)) == {third.image})
        await until(rolled_out(reconciler))
        live = api.get(path) or {}
        assert STOPPED not in live["metadata"]["annotations"]
        assert not live["spec"].get("paused")


async def test_first_agents_that_do_not_come_up_are_told_of_once_and_nothing_is_stopped(
    api: KubeApi, client_of: Connect, cluster: Workloads, kubelet: ToldKubelet
) -> None:
    waiting = {"reason": "ErrImagePull", "message": "no such image"}
    kubelet.judge = lambda pod: status(ready=False, waiting=waiting)
    async with keeping(client_of, PLAIN, limits=replace(LIMITS, stuck_after=0.3)) as reconciler:
        await until(rolled_out(reconciler, "Stuck"))
        assert "ErrImagePull: no such image" in (await events(api, reconciler))["RolloutStuck"]
        assert STOPPED not in (api.get(DAEMONS) or {})["metadata"]["annotations"]
        kubelet.judge = lambda pod: status(ready=True)
        await until(rolled_out(reconciler))


async def test_an_old_agent_that_takes_its_time_to_leave_is_what_is_waited_for(
    client_of: Connect, cluster: Workloads, kubelet: ToldKubelet
) -> None:
    async with keeping(client_of, PLAIN) as reconciler:
        await until(rolled_out(reconciler))
        kubelet.stopping = 1.0
        want(reconciler, replace(PLAIN, image=NEXT))
        await until(lambda: "is leaving" in reconciler.rollout.condition.message)
        assert reconciler.rollout.condition.message.startswith("0 of 3 new")
        kubelet.stopping = 0.0
        await until(lambda: set(images(cluster.pods)) == {NEXT} and rolled_out(reconciler)())


@pytest.mark.parametrize("mode", MODES)
async def test_a_new_agent_whose_log_cannot_be_had_stops_the_rollout_until_it_can(
    mode: str, api: KubeApi, client_of: Connect, cluster: Workloads
) -> None:
    spec = replace(PLAIN, mode=mode, replicas=3 if mode == "deployment" else 0)
    async with keeping(client_of, spec) as reconciler:
        await until(rolled_out(reconciler))
        new = f"-{cluster.made + 1}/log"
        api.faults.append(Fault("GET", new, status=500, message="No agent available"))
        want(reconciler, replace(spec, image=NEXT))
        await until(rolled_out(reconciler, "Stopped"))
        path = DAEMONS if mode == "daemonset" else DEPLOYMENT
        await until(lambda: STOPPED in (api.get(path) or {})["metadata"]["annotations"])
        told = await events(api, reconciler)
        assert "No agent available" in told["RolloutStopped"]
        assert images(cluster.pods).count(NEXT) == 1
        api.faults.clear()
        await until(lambda: set(images(cluster.pods)) == {NEXT} and rolled_out(reconciler)())
        assert "RolloutResumed" in await events(api, reconciler)


async def test_a_stop_outlives_the_manager_that_made_it(
    api: KubeApi, client_of: Connect, cluster: Workloads
) -> None:
    new = replace(PLAIN, image=NEXT)
    async with keeping(client_of, PLAIN) as reconciler:
        await until(rolled_out(reconciler))
        fault = Fault("GET", f"-{cluster.made + 1}/log", status=500)
        api.faults.append(fault)
        want(reconciler, new)
        await until(lambda: STOPPED in (api.get(DAEMONS) or {})["metadata"]["annotations"])
    async with keeping(client_of, new) as reconciler:
        await until(rolled_out(reconciler, "Stopped"))
        await asyncio.sleep(0.3)
        assert images(cluster.pods).count(NEXT) == 1
        assert (api.get(DAEMONS) or {})["spec"]["updateStrategy"] == {"type": "OnDelete"}


async def test_a_log_that_no_pod_has_stops_nothing(
    api: KubeApi, client_of: Connect, cluster: Workloads
) -> None:
    async with keeping(client_of, PLAIN) as reconciler:
        await until(rolled_out(reconciler))
        api.faults.append(Fault("GET", "/log", status=500))
        want(reconciler, replace(PLAIN, image=NEXT))
        await until(lambda: set(images(cluster.pods)) == {NEXT} and rolled_out(reconciler)())
        assert "RolloutStopped" not in await events(api, reconciler)


async def test_fewer_replicas_are_wanted_after_a_while_and_that_is_said(
    api: KubeApi, client_of: Connect, cluster: Workloads
) -> None:
    spec = replace(PLAIN, mode="deployment", replicas=3)
    async with keeping(client_of, spec, hold=1.0) as reconciler:
        await until(rolled_out(reconciler))
        started = time.monotonic()
        want(reconciler, replace(spec, replicas=2))
        await until(lambda: reconciler.steering.held)
        assert (api.get(DEPLOYMENT) or {})["spec"]["replicas"] == 3
        assert "3 agents are kept for 1 s" in (await events(api, reconciler))["ScaleDownHeld"]
        await until(lambda: (api.get(DEPLOYMENT) or {})["spec"]["replicas"] == 2)
        assert time.monotonic() - started >= 1.0
        await until(lambda: len(cluster.pods) == 2)


@pytest.mark.parametrize(
    ("before", "after"), [("daemonset", "deployment"), ("deployment", "daemonset")]
)
async def test_the_other_mode_is_there_before_the_one_before_goes(
    before: str, after: str, api: KubeApi, client_of: Connect, cluster: Workloads
) -> None:
    paths = {"daemonset": DAEMONS, "deployment": DEPLOYMENT}
    spec = replace(PLAIN, mode=before)
    async with keeping(client_of, spec) as reconciler:
        await until(rolled_out(reconciler))
        old = len(cluster.pods)
        cluster.moves.clear()
        want(reconciler, replace(PLAIN, mode=after))
        await until(lambda: api.get(paths[before]) is None)
        moves = [move.split()[0] for move in cluster.moves]
        assert moves.count("stop") == 0
        assert moves.count("ready") >= 2
        await until(lambda: cluster.moves.count("gone") == 0 and len(cluster.pods) < old + 2)
        assert (await events(api, reconciler))["Removed"]
        await until(lambda: reconciler.converged)


def test_what_an_agent_lacks_is_the_last_that_it_said_of_it() -> None:
    waiting = '"Not on all servers yet" lacking="connected to 1 of 2 servers"'
    met = '"On all servers" servers=2'
    assert lacking(waiting) == "connected to 1 of 2 servers"
    assert lacking('{"msg":"Not on all servers yet","lacking":"x"}') == "x"
    assert lacking(f"{waiting}\n{met}\nmore") == ""
    assert lacking(f"{met}\n{waiting}") == "connected to 1 of 2 servers"
    assert lacking("Ready without having been on all servers") == "it is not on all servers"
    assert lacking("nothing of it") == ""
