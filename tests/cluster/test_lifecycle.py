"""What keeps agents installed, against whatever people do: on a fixture, and on a real cluster."""

from __future__ import annotations

import asyncio
import json
import os
from functools import partial
from typing import Any

import pytest
from tests.cluster.damage import damage, damages
from tests.cluster.figures import Figures, Restore
from tests.cluster.managed import Manage
from tests.cluster.places import Place
from tests.cluster.timeline import Timeline
from tests.peers.streams import PATIENCE

from konnectivity.cli import certs
from konnectivity.lifecycle.reconciling.pace import LIMITS
from konnectivity.lifecycle.reconciling.plan import WORKLOADS, Key

pytestmark = pytest.mark.timeout(600)

ROUNDS = int(os.environ.get("RESTORE_ROUNDS", "1"))
KINDS = {"ServiceAccount", "Role", "RoleBinding", "Secret", "ConfigMap", "NetworkPolicy"}
WANTED = {
    "daemonset": KINDS | {"DaemonSet"},
    "deployment": KINDS | {"Deployment", "PodDisruptionBudget"},
}


async def test_whatever_is_done_to_an_object_is_undone(
    place: Place, mode: str, manage: Manage, figures: Figures
) -> None:
    """Deleted, edited, stripped of labels, scaled to 0; then a command leaves nothing of it."""
    if mode == "deployment" and "policy/v1" not in place.versions:
        text = "a Deployment: the API server knows no policy/v1, so it is older than 1.21"
        figures.not_shown(text)
        pytest.skip(text)
    async with manage(mode) as manager:
        assert WANTED[mode] <= {key.kind for key in manager.keys}
        assert ("ClusterRoleBinding" in {key.kind for key in manager.keys}) == place.token
        async with Timeline(place.client, manager.keys) as timeline:
            for number in range(ROUNDS):
                if number:  # or the manager takes its time, as for a program that fights it
                    await asyncio.sleep(LIMITS.quick)
                for key in manager.keys:
                    for what, edit in damages(key):
                        undone = await timeline.restored(key, partial(damage, place, key, edit))
                        figures.restores.append(Restore(key.kind, what, undone))
        reasons = await place.kubectl(
            "get", "events", f"-n{place.namespace}", "-o=jsonpath={.items[*].reason}"
        )
        assert {"Installed", "Restored", "DriftReverted"} <= set(reasons.split())
    await leaves_nothing(place)


@pytest.fixture(params=["daemonset", "deployment"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def leaves_nothing(place: Place) -> None:
    """Uninstall, then look with `kubectl` at every kind that the cluster knows."""
    assert await place.left()
    done = await place.commands.process(
        "uninstall", "--yes", f"--namespace={place.namespace}", f"--name={place.name}"
    )
    assert (done.status, done.err) == (0, ""), done.out
    assert await place.owned() == []
    assert await place.left() == []


async def test_a_certificate_and_a_ca_are_replaced_in_the_cluster(
    place: Place, manage: Manage
) -> None:
    """In the phases of a rotation the cluster trusts one CA, two, and one again: the new one."""
    async with manage("daemonset") as manager:
        secret, bundle = manager.key("Secret"), manager.key("ConfigMap")
        before = await data(place, bundle), await data(place, secret)

        async def rotated(*flags: str) -> None:
            words = ["rotate", f"--directory={manager.pki}", *flags]
            async with asyncio.timeout(PATIENCE):
                # The cluster has to follow the step before.
                while await asyncio.to_thread(certs.command, words):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)

        async def trusted(count: int) -> None:
            async with asyncio.timeout(PATIENCE):
                while (  # noqa: ASYNC110 - a manager is waited for
                    (await data(place, bundle))["ca.crt"].count("BEGIN") != count
                ):
                    await asyncio.sleep(0.05)

        await rotated("--ca", "--after=0s")
        await trusted(2)
        for _ in ("reissue", "drop-old"):
            await rotated("--ca", "--after=0s")
        await trusted(1)
        after = await data(place, bundle), await data(place, secret)
        assert before[0] != after[0]
        assert before[1]["tls.crt"] != after[1]["tls.crt"]
    await leaves_nothing(place)


async def data(place: Place, key: Key) -> dict[str, Any]:
    found = await place.get(key)
    assert found
    return dict(found["data"])


async def test_people_install_upgrade_and_uninstall_without_a_manager(
    place: Place, figures: Figures
) -> None:
    where = (f"--namespace={place.namespace}", f"--name={place.name}")
    spec = f"--spec={place.specification('daemonset')}"
    controlled = await has_controllers(place)
    wait = f"--wait={str(controlled).lower()}"
    if not controlled:
        figures.not_shown("waiting for agents: no controller of workloads is in the cluster")
    done = await place.commands.process("install", spec, wait)
    assert (done.status, done.err) == (0, ""), done.out
    assert (await place.commands.process("diff", spec)).status == 0
    await place.kubectl(
        *(
            "set",
            "image",
            f"-n{place.namespace}",
            f"ds/{place.name}",
            "*=registry.example.com/evil:1",
        )
    )
    drifted = await place.commands.process("diff", spec)
    assert (drifted.status, "evil:1" in drifted.out) == (1, True)
    for image in ("k:2", "k:3"):
        done = await place.commands.process("upgrade", *where, f"--image={image}", wait)
        assert (done.status, done.err) == (0, ""), done.out
        assert await image_of(place) == image
    done = await place.commands.process("upgrade", *where, "--rollback", wait)
    assert (done.status, await image_of(place)) == (0, "k:2"), done.err
    await leaves_nothing(place)


async def image_of(place: Place) -> str:
    (key,) = [each for each in await place.owned() if each.kind in WORKLOADS]
    item = await place.get(key) or {}
    return str(item["spec"]["template"]["spec"]["containers"][0]["image"])


async def has_controllers(place: Place) -> bool:
    """Whether somebody looks at workloads: asked with a DaemonSet that nothing comes of."""
    labels = {"probe": place.name}
    pod = {"containers": [{"name": "none", "image": "none"}], "nodeSelector": {"no-such": "node"}}
    item = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "probe", "namespace": place.namespace},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    key = Key("apps/v1", "DaemonSet", place.namespace, "probe")
    probe = place.collection(key)
    await probe.create(item)
    try:
        async with asyncio.timeout(5):
            while not await is_looked_at(place, key):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    except TimeoutError:
        return False
    else:
        return True
    finally:
        await probe.delete("probe")


async def is_looked_at(place: Place, key: Key) -> bool:
    return "observedGeneration" in ((await place.get(key)) or {}).get("status", {})


async def test_a_cluster_that_a_manager_keeps_is_not_changed_by_hand(
    place: Place, manage: Manage
) -> None:
    """Once it has stopped it may be; its mark is nothing that others would take away."""
    async with manage("daemonset") as manager:
        spec = f"--spec={place.specification('daemonset')}"
        marks = (await place.get(manager.key("DaemonSet")) or {})["metadata"]["annotations"]
        assert marks["konnectivity/kept-by"] == f"lease {place.namespace}/konnectivity-manager"
        refused = await place.commands.process("install", spec, "--wait=false")
        assert refused.status == 1
        assert "keeps this cluster by a specification of its own" in refused.err
        shown = await place.commands.process("diff", spec, "-o=json")
        assert json.loads(shown.out)["actions"]
        assert "konnectivity/kept-by" not in shown.out
    done = await place.commands.process("install", spec, "--wait=false")
    assert (done.status, done.err) == (0, ""), done.out
    await leaves_nothing(place)
