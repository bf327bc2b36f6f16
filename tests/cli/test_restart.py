"""`restart` as a user meets it: all agents in turn, or the ones that are named."""

from __future__ import annotations

import copy
import json

from tests.cli.command import Commands
from tests.cli.rollouts import Rollouts
from tests.peers.kube_api import KubeApi

from konnectivity.lifecycle.rollouts.restart import RESTARTED

NEEDED = ("--server=konnectivity.example.com:8091", "--image=registry.example.com/k:1")
WORKLOAD = "/apis/apps/v1/namespaces/kube-system/daemonsets/konnectivity-agent"
DEPLOYMENT = "/apis/apps/v1/namespaces/kube-system/deployments/konnectivity-agent"


async def test_all_agents_are_replaced_and_waited_for(api: KubeApi, cluster: Commands) -> None:
    async with Rollouts(api) as rollouts:
        await cluster.run("install", *NEEDED)
        before = rollouts.names
        done = await cluster.run("restart")
        after = rollouts.names
    assert (done.status, done.err) == (0, "")
    assert "Restarting DaemonSet kube-system/konnectivity-agent\n" in done.out
    assert "Done: 2 of 2 agents are available.\n" in done.out
    assert (len(after), set(before) & set(after)) == (2, set())


async def test_a_restart_is_no_drift(api: KubeApi, cluster: Commands) -> None:
    await cluster.run("install", *NEEDED, "--wait=false")
    await cluster.run("restart", "--wait=false")
    template = (api.get(WORKLOAD) or {})["spec"]["template"]
    assert RESTARTED in template["metadata"]["annotations"]
    assert (await cluster.run("diff")).status == 0
    again = await cluster.run("install", *NEEDED, "--wait=false")
    assert "0 to create, 0 to change, " in again.out
    assert (api.get(WORKLOAD) or {})["spec"]["template"] == template


async def test_of_two_workloads_the_one_that_takes_the_others_place_is_meant(
    api: KubeApi, cluster: Commands
) -> None:
    await cluster.run("install", *NEEDED, "--wait=false")
    await cluster.run("upgrade", "--mode=deployment", "--wait=false")
    assert api.get(WORKLOAD)
    new = copy.deepcopy(api.get(DEPLOYMENT) or {})
    new["metadata"]["creationTimestamp"] = "2001-01-01T00:00:00Z"  # ages may be the same
    api.put(DEPLOYMENT, new)
    done = await cluster.run("restart", "--wait=false")
    assert "Restarting Deployment kube-system/konnectivity-agent\n" in done.out
    await cluster.run("upgrade", "--replicas=4", "--wait=false")
    assert (api.get(DEPLOYMENT) or {})["spec"]["replicas"] == 4


async def test_one_agent_is_replaced_by_its_name_or_its_node(
    api: KubeApi, cluster: Commands
) -> None:
    async with Rollouts(api) as rollouts:
        await cluster.run("install", *NEEDED)
        first, second = rollouts.names
        done = await cluster.run("restart", f"--pod={first}", "-o", "json")
        assert json.loads(done.out) == {"restarted": [f"Pod {first}"], "available": 2}
        (third,) = set(rollouts.names) - {second}
        assert third != first
        node = next(
            pod["spec"]["nodeName"] for pod in rollouts.pods if pod["metadata"]["name"] == second
        )
        await cluster.run("restart", f"--node={node}")
        assert second not in rollouts.names
        assert third in rollouts.names


async def test_who_is_not_there_cannot_be_restarted(api: KubeApi, cluster: Commands) -> None:
    done = await cluster.run("restart")
    assert (done.status, "nothing to restart" in done.err) == (1, True)
    await cluster.run("install", *NEEDED, "--wait=false")
    done = await cluster.run("restart", "--pod=agent-9")
    assert (done.status, "no agent is called agent-9" in done.err) == (1, True)
    done = await cluster.run("restart", "--node=node-9")
    assert (done.status, "no agent is on node node-9" in done.err) == (1, True)


async def test_a_restart_that_is_stuck_says_on_what(api: KubeApi, cluster: Commands) -> None:
    async with Rollouts(api) as rollouts:
        await cluster.run("install", *NEEDED)
        rollouts.new_pods_wait("ErrImagePull", "no such image")
        done = await cluster.run("restart", "--timeout=1s")
    assert done.status == 1
    assert "not over within 1s: 1 of 2 agents are available" in done.err
    assert ": ErrImagePull: no such image" in done.err


async def test_a_missing_right_is_said_first(api: KubeApi, cluster: Commands) -> None:
    await cluster.run("install", *NEEDED, "--wait=false")
    api.allowed = lambda asked: asked["verb"] != "patch"
    done = await cluster.run("restart")
    assert done.status == 1
    assert "allow patch on daemonsets.apps in namespace kube-system (RBAC)" in done.err
    assert RESTARTED not in json.dumps(api.get(WORKLOAD))
