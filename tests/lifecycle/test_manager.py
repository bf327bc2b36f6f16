"""The manager at work on an API server: heals, is paused, refused, fought, and idle."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.lifecycle.conftest import Connect
from tests.lifecycle.objects import (
    ACCOUNT,
    BINDING,
    OVERRIDES,
    PATHS,
    WORKLOAD,
    Object,
    changed,
    container_of,
    desired,
)
from tests.peers.kube_api import Fault, KubeApi

from konnectivity.kube.watch import WatchOptions
from konnectivity.lifecycle.managing.metrics import ClusterFigures, families
from konnectivity.lifecycle.reconciling.pace import Pace, PaceLimits
from konnectivity.lifecycle.reconciling.plan import MANAGER, PAUSED, Key
from konnectivity.lifecycle.reconciling.preview import preview
from konnectivity.lifecycle.reconciling.reconcile import ReconcileOptions, Reconciler
from konnectivity.observe.exposition import render

QUICK = WatchOptions(first_wait=0.02, longest_wait=0.1)


@asynccontextmanager
async def reconciling(
    client_of: Connect, objects: list[Object] | None = None, **options: Any
) -> AsyncIterator[Reconciler]:
    settings = {"resync": 0, "probe": 0, "overrides": OVERRIDES, "watch": QUICK}
    may_write = options.pop("may_write", lambda: True)
    reconciler = Reconciler(
        client_of(),
        objects or desired(),
        options=ReconcileOptions(**{**settings, **options}),
        may_write=may_write,
    )
    task = asyncio.create_task(reconciler.run())
    try:
        yield reconciler
    finally:
        if not task.done():
            task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()


async def until(reached: Callable[[], Any], *, within: float = 5.0) -> None:
    async with asyncio.timeout(within):
        while not reached():  # noqa: ASYNC110 - what is waited for is elsewhere
            await asyncio.sleep(0.005)


async def settled(reconciler: Reconciler) -> None:
    async with asyncio.timeout(5):
        await reconciler.until_settled()
        await reconciler.recorder.flush()


def told(api: KubeApi, namespace: str = "kube-system") -> list[tuple[str, str]]:
    """Reason and message of the Events, in the order of their creation."""
    items = api.items(f"/api/v1/namespaces/{namespace}/events")
    items.sort(key=lambda item: int(item["metadata"]["resourceVersion"]))
    return [(item["reason"], item["message"]) for item in items]


def reasons(api: KubeApi) -> set[str]:
    return {reason for reason, _ in told(api)}


def edit(api: KubeApi, path: str, item: Object, *, by: str = "kubectl-edit") -> None:
    api.put(path, item, manager=by)


async def test_all_is_installed_with_an_event_each(api: KubeApi, client_of: Connect) -> None:
    async with reconciling(client_of) as reconciler:
        await settled(reconciler)
        assert all(api.get(path) for path in PATHS)
        assert told(api) == [("Installed", "Created")] * 2
        assert told(api, "default") == [("Installed", "Created")]
        assert reconciler.conditions.current["Installed"].status


async def test_each_object_that_is_deleted_is_restored_at_once(
    api: KubeApi, client_of: Connect
) -> None:
    took = []
    async with reconciling(client_of) as reconciler:
        await settled(reconciler)
        for path in PATHS * 4:
            started = time.monotonic()
            api.remove(path)
            await until(lambda path=path: api.get(path))
            took.append(time.monotonic() - started)
        await settled(reconciler)
        assert reconciler.counters.heals["DaemonSet", "restore"] == 4
        histogram = reconciler.counters.heal_seconds["DaemonSet", "restore"]
    took.sort()
    assert took[len(took) // 2] < 0.3
    assert took[-1] < 1.0
    assert (histogram.total, histogram.sum < 1.0) == (4, True)
    assert {"Restored"} < reasons(api)


async def test_drift_is_reverted_and_the_event_says_which_field_and_who(
    api: KubeApi, client_of: Connect
) -> None:
    async with reconciling(client_of) as reconciler:
        await settled(reconciler)
        edit(api, WORKLOAD, changed(api.get(WORKLOAD), image="evil:1"))
        await until(lambda: container_of(api.get(WORKLOAD) or {})["image"] != "evil:1")
        await settled(reconciler)
        (message,) = [text for reason, text in told(api) if reason == "DriftReverted"]
        assert '.image: "evil:1" -> "registry.example/agent:1"' in message
        assert "kubectl-edit (Update at" in message
        assert reconciler.counters.heal_seconds["DaemonSet", "drift"].total == 1


async def test_labels_that_were_stripped_come_back(api: KubeApi, client_of: Connect) -> None:
    async with reconciling(client_of) as reconciler:
        await settled(reconciler)
        bare = api.get(WORKLOAD) or {}
        bare["metadata"]["labels"] = {"team": "red"}
        edit(api, WORKLOAD, bare)
        await until(lambda: len((api.get(WORKLOAD) or {})["metadata"]["labels"]) == 3)
        await settled(reconciler)
        assert "DriftReverted" in reasons(api)


async def test_an_allowed_override_is_not_fought(api: KubeApi, client_of: Connect) -> None:
    async with reconciling(client_of) as reconciler:
        await settled(reconciler)
        more = {"requests": {"cpu": "2"}, "limits": {"memory": "1Gi"}}
        edit(api, WORKLOAD, changed(api.get(WORKLOAD), resources=more))
        await asyncio.sleep(0.2)
        await settled(reconciler)
        assert container_of(api.get(WORKLOAD) or {})["resources"] == more
        assert reasons(api) == {"Installed"}


async def test_an_idle_manager_writes_nothing_at_all(api: KubeApi, client_of: Connect) -> None:
    async with reconciling(client_of, resync=0.1) as reconciler:
        await settled(reconciler)
        await until(lambda: api.watches == len(PATHS))
        before = len(api.requests)
        for _ in range(3):
            item = api.get(WORKLOAD) or {}
            item["status"] = {"numberAvailable": 1, "desiredNumberScheduled": 1}
            api.put(WORKLOAD, item)
            await asyncio.sleep(0.1)
        api.end_watches()
        await asyncio.sleep(0.3)
        assert len(api.requests) > before
        assert not [each for each in api.requests[before:] if each.writes]
        assert reconciler.conditions.current["Available"].status


async def test_a_cluster_that_is_as_wanted_is_not_written_to_by_a_new_manager(
    api: KubeApi, client_of: Connect
) -> None:
    async with reconciling(client_of) as reconciler:
        await settled(reconciler)
    before = len(api.requests)
    async with reconciling(client_of) as reconciler:
        await settled(reconciler)
    assert not [each for each in api.requests[before:] if each.writes]


async def test_while_paused_nothing_is_changed_and_afterwards_all_is_made_good(
    api: KubeApi, client_of: Connect
) -> None:
    async with reconciling(client_of) as reconciler:
        await settled(reconciler)
        item = api.get(WORKLOAD) or {}
        item["metadata"]["annotations"] = {PAUSED: "true"}
        edit(api, WORKLOAD, item)
        await until(lambda: reconciler.paused)
        api.remove(ACCOUNT)
        await asyncio.sleep(0.2)
        assert api.get(ACCOUNT) is None
        await reconciler.recorder.flush()
        assert "Paused" in reasons(api)
        del item["metadata"]["annotations"]
        edit(api, WORKLOAD, item)
        await until(lambda: api.get(ACCOUNT))


async def test_nothing_is_written_before_it_is_known_whether_the_workload_is_paused(
    api: KubeApi, client_of: Connect
) -> None:
    item = desired()[2]
    item["metadata"]["annotations"] = {PAUSED: ""}
    api.put(WORKLOAD, item, manager="kubectl")
    api.faults.append(Fault("GET", "/daemonsets", delay=0.3, watch=False))
    async with reconciling(client_of) as reconciler:
        await until(lambda: reconciler.paused)
        await asyncio.sleep(0.1)
        await reconciler.recorder.flush()
        assert {each.path for each in api.requests if each.writes} == {
            "/api/v1/namespaces/kube-system/events"
        }
        assert reasons(api) == {"Paused"}


async def test_who_does_not_lead_writes_nothing(api: KubeApi, client_of: Connect) -> None:
    lead = asyncio.Event()
    async with reconciling(client_of, may_write=lead.is_set) as reconciler:
        await until(lambda: len(reconciler.observer.observed()) == len(PATHS))
        await asyncio.sleep(0.1)
        assert not [each for each in api.requests if each.writes]
        lead.set()
        reconciler.wake()
        await settled(reconciler)
        assert api.get(WORKLOAD)


async def test_a_missing_right_is_named_and_the_other_objects_are_written(
    api: KubeApi, client_of: Connect
) -> None:
    text = (
        'clusterrolebindings.rbac.authorization.k8s.io "x" is forbidden: User "m" cannot patch '
        'resource "clusterrolebindings" in API group "rbac.authorization.k8s.io"'
    )
    api.faults.append(
        Fault("PATCH", "/clusterrolebindings/", status=403, reason="Forbidden", message=text)
    )
    async with reconciling(client_of) as reconciler:
        await until(lambda: api.get(WORKLOAD) and api.get(ACCOUNT) and reconciler.failing)
        (why,) = reconciler.failing.values()
        assert why.endswith(
            "allow patch on clusterrolebindings.rbac.authorization.k8s.io in the cluster (RBAC)"
        )
        await until(lambda: reconciler.conditions.current["Installed"].reason == "Refused")
        api.faults.clear()
        await settled(reconciler)
        assert api.get(BINDING)
        assert reconciler.conditions.current["Installed"].status
        assert not reconciler.failing


async def test_what_may_not_be_read_is_named_and_left_alone(
    api: KubeApi, client_of: Connect
) -> None:
    api.faults.append(Fault("GET", "/daemonsets", status=403, reason="Forbidden"))
    async with reconciling(client_of) as reconciler:
        await until(lambda: api.get(ACCOUNT) and api.get(BINDING) and reconciler.stuck)
        assert api.get(WORKLOAD) is None
        assert not reconciler.converged
        await until(lambda: reconciler.conditions.current["Installed"].reason == "Refused")
        (why,) = reconciler.stuck.values()
        assert why.endswith(
            "allow get, list, watch on daemonsets.apps in namespace kube-system (RBAC)"
        )


async def test_a_refusal_by_admission_is_tried_again_with_growing_waits(
    api: KubeApi, client_of: Connect
) -> None:
    text = 'admission webhook "no" denied the request: not today'
    api.faults.append(Fault("PATCH", "/daemonsets/", status=400, message=text))
    async with reconciling(client_of) as reconciler:
        await until(lambda: reconciler.counters.failures["DaemonSet", "400"] == 3)
        assert text in next(iter(reconciler.failing.values()))
        await reconciler.recorder.flush()
        assert [reason for reason, message in told(api) if text in message] == ["WriteFailed"]
        assert reconciler.counters.last_failure <= time.time()
        api.faults.clear()
        await settled(reconciler)


async def test_an_api_server_that_goes_and_comes_is_survived(
    api: KubeApi, client_of: Connect
) -> None:
    async with reconciling(client_of) as reconciler:
        await settled(reconciler)
        await api.stop()
        await until(lambda: reconciler.conditions.current["ApiReachable"].status is False)
        api.remove(WORKLOAD)
        await api.start()
        await until(lambda: api.get(WORKLOAD))
        await until(lambda: reconciler.conditions.current["ApiReachable"].status)
        await settled(reconciler)


async def test_credentials_that_have_expired_are_said_and_asked_with_again(
    api: KubeApi, client_of: Connect
) -> None:
    api.tokens = {"another"}
    async with reconciling(client_of) as reconciler:
        await until(lambda: len(reconciler.stuck) == len(PATHS))
        assert all("Unauthorized" in why for why in reconciler.stuck.values())
        assert reconciler.conditions.current["Installed"].status is not True
        api.tokens = None
        await settled(reconciler)
        assert api.get(WORKLOAD)


async def test_a_slow_object_holds_up_no_other(api: KubeApi, client_of: Connect) -> None:
    async with reconciling(client_of) as reconciler:
        await settled(reconciler)
        api.faults.append(Fault("PATCH", "/daemonsets/", hang=True, times=1))
        api.remove(WORKLOAD)
        await until(lambda: api.faults[0].times == 0)
        started = time.monotonic()
        api.remove(ACCOUNT)
        await until(lambda: api.get(ACCOUNT))
        assert time.monotonic() - started < 1.0
        assert api.get(WORKLOAD) is None


async def test_a_watch_that_lost_its_place_lists_again(api: KubeApi, client_of: Connect) -> None:
    async with reconciling(client_of) as reconciler:
        await settled(reconciler)
        await until(lambda: api.watches == len(PATHS))
        api.expire_watches()
        api.remove(BINDING)
        await until(lambda: api.get(BINDING))


async def test_a_full_resync_finds_what_a_watch_has_missed(
    api: KubeApi, client_of: Connect
) -> None:
    async with reconciling(client_of, resync=0.2) as reconciler:
        await settled(reconciler)
        await until(lambda: api.watches == len(PATHS))
        deaf, api._watchers = api._watchers, set()
        api.remove(ACCOUNT)
        api._watchers = deaf
        await until(lambda: api.get(ACCOUNT))
        await until(lambda: reconciler.counters.missed["ServiceAccount"] == 1)


async def test_who_keeps_deleting_is_waited_out_and_named(api: KubeApi, client_of: Connect) -> None:
    objects = desired()
    objects[0]["metadata"]["labels"]["k0s.k0sproject.io/stack"] = "konnectivity"
    async with reconciling(client_of, objects) as reconciler:
        await settled(reconciler)
        ends = time.monotonic() + 2.0
        while time.monotonic() < ends:
            if api.get(ACCOUNT):
                api.remove(ACCOUNT)
            await asyncio.sleep(0.005)
        assert reconciler.counters.heals["ServiceAccount", "restore"] < 10
        await reconciler.recorder.flush()
        (message,) = [text for reason, text in told(api) if reason == "Contested"]
        assert "deleted again and again" in message
        assert "k0s (k0s.k0sproject.io/stack)" in message


async def test_two_who_want_different_things_do_not_run_hot(
    api: KubeApi, client_of: Connect
) -> None:
    async with reconciling(client_of) as reconciler:
        await settled(reconciler)
        ends = time.monotonic() + 2.0
        while time.monotonic() < ends:
            item = api.get(WORKLOAD)
            if item and container_of(item)["image"] != "other:1":
                edit(api, WORKLOAD, changed(item, image="other:1"), by="other-operator")
            await asyncio.sleep(0.005)
        assert reconciler.counters.heals["DaemonSet", "drift"] < 10
        await reconciler.recorder.flush()
        (message,) = [text for reason, text in told(api) if reason == "Contested"]
        assert "other-operator (Update at" in message


async def test_an_install_of_another_tool_is_taken_over_with_its_selector(
    api: KubeApi, client_of: Connect
) -> None:
    foreign = copy.deepcopy(desired()[2])
    foreign["spec"]["selector"]["matchLabels"]["tenant"] = "blue"
    foreign["spec"]["template"]["metadata"]["labels"]["tenant"] = "blue"
    container_of(foreign)["name"] = "konnectivity-agent-container"
    uid = api.put(WORKLOAD, foreign, manager="helm")["metadata"]["uid"]
    async with reconciling(client_of) as reconciler:
        await settled(reconciler)
        item = api.get(WORKLOAD) or {}
        assert item["metadata"]["uid"] == uid
        assert item["spec"]["selector"]["matchLabels"]["tenant"] == "blue"
        assert item["spec"]["template"]["metadata"]["labels"]["tenant"] == "blue"
        names = [each["name"] for each in item["spec"]["template"]["spec"]["containers"]]
        assert names == ["konnectivity-agent"]
        assert not api.asked("DELETE")


async def test_a_binding_to_another_role_is_made_anew(api: KubeApi, client_of: Connect) -> None:
    other = desired()[1]
    other["roleRef"]["name"] = "cluster-admin"
    api.put(BINDING, other, manager="kubectl")
    async with reconciling(client_of) as reconciler:
        await settled(reconciler)
        assert (api.get(BINDING) or {})["roleRef"]["name"] == "system:auth-delegator"


async def test_the_manager_owns_just_what_it_applies(api: KubeApi, client_of: Connect) -> None:
    async with reconciling(client_of) as reconciler:
        await settled(reconciler)
    (entry,) = (api.get(ACCOUNT) or {})["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == (MANAGER, "Apply")
    assert "f:automountServiceAccountToken" in entry["fieldsV1"]


async def test_a_preview_shows_the_diff_and_refusals_and_changes_nothing(
    api: KubeApi, client_of: Connect
) -> None:
    async with reconciling(client_of) as reconciler:
        await settled(reconciler)
    edit(api, WORKLOAD, changed(api.get(WORKLOAD), image="evil:1"))
    api.remove(ACCOUNT)
    before = api._version
    api.faults.append(Fault("PATCH", "/serviceaccounts", status=403, message="exceeded quota"))
    lines = [line async for line in preview(client_of(), desired(), overrides=(), limit=5)]
    assert lines[0] == "+ ServiceAccount kube-system/konnectivity-agent"
    assert lines[1].startswith(
        "! ServiceAccount kube-system/konnectivity-agent: would be refused: exceeded quota"
    )
    assert lines[2] == "~ DaemonSet kube-system/konnectivity-agent (drift)"
    assert '.image: "evil:1" -> "registry.example/agent:1"  # kubectl-edit (Upd' in lines[3]
    assert lines[4] == "1 to create, 1 to change, 1 as specified"
    assert api._version == before


async def test_a_preview_says_what_would_be_made_anew(api: KubeApi, client_of: Connect) -> None:
    other = desired()[1]
    other["roleRef"]["name"] = "cluster-admin"
    api.put(BINDING, other, manager="kubectl")
    shown = [line async for line in preview(client_of(), desired()[1:2], overrides=(), limit=5)]
    assert shown[0] == "~ ClusterRoleBinding system:konnectivity-server (adopt)"
    assert "    (deleted and created anew: roleRef is immutable)" in shown
    assert not [line for line in shown if line.startswith("!")]


async def test_the_path_to_the_nodes_is_judged_by_a_log(api: KubeApi, client_of: Connect) -> None:
    pods = "/api/v1/namespaces/kube-system/pods"
    pod = {"metadata": {"labels": {"k8s-app": "konnectivity-agent"}}, "status": {}}
    api.put(f"{pods}/a", pod | {"status": {"phase": "Running"}})
    failure = Fault("GET", "/pods/a/log", status=500, message="No agent available")
    api.faults += [failure]
    async with reconciling(client_of, probe=0.05) as reconciler:
        current = reconciler.conditions.current
        await until(lambda: "DataPlaneReachable" in current)
        assert current["DataPlaneReachable"].status is False
        assert "No agent available" in current["DataPlaneReachable"].message
        api.faults[:] = [Fault("GET", "/pods/a/log", text="a line of a log")]
        await until(lambda: current["DataPlaneReachable"].status)
        api.remove(f"{pods}/a")
        await until(lambda: current["DataPlaneReachable"].status is None)


async def test_the_metrics_tell_of_heals_lag_and_conditions(
    api: KubeApi, client_of: Connect
) -> None:
    async with reconciling(client_of) as reconciler:
        await settled(reconciler)
        api.remove(ACCOUNT)
        await until(lambda: reconciler.counters.heals["ServiceAccount", "restore"])
        await settled(reconciler)
        reconciler.judge()
        observer = reconciler.observer
        figures = ClusterFigures(
            observer.lags(),
            observer.lists,
            observer.watches,
            failing=0,
            dropped=0,
            conditions=tuple(reconciler.conditions.current.values()),
        )
        page = render(families(reconciler.counters, {"": figures}, leading=True)).decode()
    prefix = "konnectivity_manager_"
    for line in (
        'heals_total{kind="ServiceAccount",reason="restore"} 1',
        'heal_duration_seconds_count{kind="ServiceAccount",reason="restore"} 1',
        'watch_lag_seconds{kind="DaemonSet"} 0',
        'condition{cluster="",type="Installed"} 1',
        'clusters{type="Installed",status="True"} 1',
        "leading 1",
    ):
        assert f"\n{prefix}{line}" in page


def test_waits_grow_only_for_what_is_undone_at_once() -> None:
    pace, now = Pace(PaceLimits(patience=2, many=4, memory=100.0)), 0.0
    said = []
    for _ in range(4):
        said.append(pace.damaged(now))
        pace.mended(now)
        now += 0.5
    assert said[:3] == ["", "", ""]
    assert said[3] == "3 times running within 1 s; waiting 1 s"
    now += 5.0
    assert pace.damaged(now) == "4 times within 7 s"
    assert pace.due <= now
    pace.mended(now)


def test_failures_wait_longer_and_longer_up_to_a_bound() -> None:
    pace = Pace(PaceLimits(first_wait=1.0, longest_wait=4.0))
    waits = [pace.failed(0.0) for _ in range(5)]
    assert waits[0] < 2.0 <= waits[1]
    assert 4.0 <= waits[-1] <= 6.0
    pace.settled()
    assert pace.failed(0.0) < 2.0


def test_a_key_is_shown_as_people_write_it() -> None:
    assert str(Key("v1", "Secret", "ns", "x")) == "Secret ns/x"
    assert str(Key("v1", "Node", "", "x")) == "Node x"
