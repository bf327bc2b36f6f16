"""What is wanted changes: at run time, and while no manager was there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.lifecycle.conftest import Connect
from tests.lifecycle.specs import CA, PLAIN, every
from tests.peers.kube_api import KubeApi
from tests.peers.kubelet import ToldKubelet
from tests.peers.workloads import Workloads

from konnectivity.kube.resources import collection_path
from konnectivity.kube.watch import WatchOptions
from konnectivity.lifecycle.reconciling.plan import key_of
from konnectivity.lifecycle.reconciling.prune import KINDS
from konnectivity.lifecycle.reconciling.reconcile import ReconcileOptions, Reconciler
from konnectivity.lifecycle.rendering.render import render
from konnectivity.lifecycle.specification.spec import AgentSpec
from konnectivity.lifecycle.specification.spec_watch import SpecWatch

Object = dict[str, Any]
ACCOUNT = "/api/v1/namespaces/kube-system/serviceaccounts/konnectivity-agent"
BUNDLE = "/api/v1/namespaces/kube-system/configmaps/konnectivity-ca-bundle"
BINDING = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:konnectivity-server"
POLICY = "/apis/networking.k8s.io/v1/namespaces/kube-system/networkpolicies/konnectivity-agent"
DAEMONS = "/apis/apps/v1/namespaces/kube-system/daemonsets/konnectivity-agent"
RICH = replace(PLAIN, ca_bundle=CA, network_policy=True)
QUICK = WatchOptions(first_wait=0.02, longest_wait=0.1)


@asynccontextmanager
async def keeping(client_of: Connect, spec: AgentSpec) -> AsyncIterator[Reconciler]:
    options = ReconcileOptions(resync=0, probe=0, overrides=spec.overrides, watch=QUICK)
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


@asynccontextmanager
async def agents(api: KubeApi) -> AsyncIterator[Workloads]:
    async with Workloads(api, ToldKubelet(), nodes=["n1", "n2"], speed=100) as workloads:
        yield workloads


async def until(reached: Callable[[], Any], *, within: float = 5.0) -> None:
    async with asyncio.timeout(within):
        while not reached():  # noqa: ASYNC110 - what is waited for is elsewhere
            await asyncio.sleep(0.01)


async def settled(reconciler: Reconciler) -> None:
    async with asyncio.timeout(5):
        await reconciler.until_settled()
        await reconciler.recorder.flush()


def want(reconciler: Reconciler, spec: AgentSpec) -> None:
    reconciler.want(render(spec), overrides=spec.overrides)


def told(api: KubeApi, namespace: str = "kube-system") -> list[tuple[str, str, str]]:
    """Reason, kind and message of each Event."""
    items = api.items(f"/api/v1/namespaces/{namespace}/events")
    return [(each["reason"], each["involvedObject"]["kind"], each["message"]) for each in items]


async def test_a_change_at_run_time_is_an_upgrade_and_a_further_object_an_install(
    api: KubeApi, client_of: Connect
) -> None:
    async with keeping(client_of, PLAIN) as reconciler:
        await settled(reconciler)
    async with keeping(client_of, PLAIN) as reconciler:
        await settled(reconciler)
        want(reconciler, replace(RICH, image="registry.example.com/k:2"))
        await settled(reconciler)
        assert api.get(POLICY)
        found = {(reason, kind) for reason, kind, _ in told(api)}
        assert ("Upgraded", "DaemonSet") in found
        assert ("Installed", "NetworkPolicy") in found
        assert not [each for each in found if each[0] in ("DriftReverted", "Restored")]


async def test_what_only_restrains_goes_at_once_and_the_rest_when_new_agents_are_there(
    api: KubeApi, client_of: Connect
) -> None:
    async with keeping(client_of, RICH) as reconciler:
        await settled(reconciler)
        want(reconciler, PLAIN)
        await until(lambda: api.get(POLICY) is None)
        await asyncio.sleep(0.2)
        assert api.get(BUNDLE)
        assert not reconciler.converged
        assert any("it goes when" in text for text in reconciler.stuck.values())
        async with agents(api):
            await until(lambda: api.get(BUNDLE) is None)
            await settled(reconciler)
        found = {(reason, kind) for reason, kind, _ in told(api)}
        assert {("Removed", "NetworkPolicy"), ("Removed", "ConfigMap")} <= found
        assert api.get(ACCOUNT)


async def test_what_is_wanted_again_stays(api: KubeApi, client_of: Connect) -> None:
    async with keeping(client_of, RICH) as reconciler:
        await settled(reconciler)
        uid = (api.get(BUNDLE) or {})["metadata"]["uid"]
        want(reconciler, PLAIN)
        want(reconciler, RICH)
        await settled(reconciler)
        async with agents(api):
            await until(lambda: reconciler.rollout.condition.reason == "Complete")
        assert (api.get(BUNDLE) or {})["metadata"]["uid"] == uid
        assert "Removed" not in {reason for reason, _, _ in told(api)}


async def test_what_an_earlier_specification_left_is_found_at_the_start(
    api: KubeApi, client_of: Connect
) -> None:
    async with agents(api):
        async with keeping(client_of, RICH) as reconciler:
            await settled(reconciler)
        async with keeping(client_of, replace(PLAIN, mode="deployment")) as reconciler:
            await until(lambda: api.get(DAEMONS) is None)
            await settled(reconciler)
    assert api.get(BUNDLE) is None
    assert api.get(POLICY) is None
    assert api.get(BINDING)


async def test_what_others_have_made_stays_whatever_labels_it_bears(
    api: KubeApi, client_of: Connect
) -> None:
    foreign = next(item for item in render(RICH) if item["kind"] == "NetworkPolicy")
    api.put(POLICY, foreign, manager="kubectl")
    async with agents(api), keeping(client_of, PLAIN) as reconciler:
        await settled(reconciler)
        await until(lambda: reconciler.rollout.condition.reason == "Complete")
        assert api.get(POLICY)


async def test_other_agents_in_the_same_namespace_are_not_touched(
    api: KubeApi, client_of: Connect
) -> None:
    other = replace(RICH, name="edge-agent")
    async with agents(api):
        async with keeping(client_of, other) as reconciler:
            await settled(reconciler)
        async with keeping(client_of, PLAIN) as reconciler:
            await settled(reconciler)
    assert api.get(POLICY.replace("konnectivity-agent", "edge-agent"))
    assert api.get(DAEMONS.replace("konnectivity-agent", "edge-agent"))


async def test_a_paused_workload_keeps_what_is_no_longer_wanted(
    api: KubeApi, client_of: Connect
) -> None:
    async with keeping(client_of, RICH) as reconciler:
        await settled(reconciler)
        item = api.get(DAEMONS) or {}
        item["metadata"].setdefault("annotations", {})["konnectivity/paused"] = "true"
        api.put(DAEMONS, item, manager="kubectl")
        await until(lambda: reconciler.paused)
        want(reconciler, PLAIN)
        await asyncio.sleep(0.2)
        assert api.get(POLICY)


def test_all_that_is_rendered_may_be_removed_but_namespaces() -> None:
    kinds = {key_of(item)[:2] for spec in every() for item in render(spec)}
    assert kinds - {("v1", "Namespace")} <= set(KINDS)
    assert all(collection_path(*kind) for kind in KINDS)


async def test_a_file_that_changes_is_read_again_and_a_wrong_one_is_said(folder: Path) -> None:
    file = folder / "agents.toml"
    text = 'server = "k.example.com"\nimage = "registry.example.com/k:{}"\n'
    file.write_text(text.format(1))
    found: list[AgentSpec] = []
    watch = SpecWatch(str(file), PLAIN, changed=found.append)
    await watch.look()
    await watch.look()
    assert [each.image for each in found] == ["registry.example.com/k:1"]
    file.write_text("image = ")
    await watch.look()
    assert "it is not TOML" in watch.trouble
    file.unlink()
    await watch.look()
    assert watch.trouble
    file.write_text(text.format(2))
    await watch.look()
    assert watch.trouble == ""
    assert len(found) == 1
    await watch.look()
    assert [each.image for each in found] == [
        "registry.example.com/k:1",
        "registry.example.com/k:2",
    ]
    assert watch.spec is found[-1]
