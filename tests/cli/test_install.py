"""`install`, `diff` and `upgrade` as a user meets them: what is shown, done and answered."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.command import Commands
from tests.cli.rollouts import Rollouts
from tests.peers import tool
from tests.peers.kube_api import Fault, KubeApi
from tests.peers.kubelet import status

from konnectivity.lifecycle.reconciling.plan import key_of
from konnectivity.lifecycle.rendering.render import render
from konnectivity.lifecycle.specification.spec import AgentSpec
from konnectivity.lifecycle.specification.stored_spec import FORMER, SPECIFICATION

NEEDED = ("--server=konnectivity.example.com:8091", "--image=registry.example.com/k:1")
RENDERED = render(AgentSpec(server=NEEDED[0][9:], image=NEEDED[1][8:]))
WORKLOAD = "/apis/apps/v1/namespaces/kube-system/daemonsets/konnectivity-agent"
DEPLOYMENT = "/apis/apps/v1/namespaces/kube-system/deployments/konnectivity-agent"
HEARTBEATS = "/api/v1/namespaces/konnectivity-heartbeats"
RIGHTS = "/apis/rbac.authorization.k8s.io/v1/namespaces/konnectivity-heartbeats"
ROLES = "/apis/rbac.authorization.k8s.io/v1/namespaces/leases/roles"
POLICY = "/apis/networking.k8s.io/v1/namespaces/kube-system/networkpolicies/konnectivity-agent"


def image(api: KubeApi) -> str:
    item = api.get(WORKLOAD) or {}
    found: str = item["spec"]["template"]["spec"]["containers"][0]["image"]
    return found


def kept(api: KubeApi, name: str = SPECIFICATION) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((api.get(WORKLOAD) or {})["metadata"]["annotations"][name])
    return found


async def test_an_install_says_what_it_does_waits_and_says_what_to_do_next(
    api: KubeApi, cluster: Commands
) -> None:
    async with Rollouts(api):
        done = await cluster.process("install", *NEEDED)
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "Cluster test, namespace kube-system:"
    assert "+ DaemonSet kube-system/konnectivity-agent" in lines
    assert "Done: 2 of 2 agents are available." in lines
    assert "  kubectl get pods -n kube-system -l app=konnectivity-agent" in lines
    config = cluster.environment["KUBECONFIG"]
    names = await tool.run("kubectl", "--kubeconfig", config, "get", "daemonsets", "-A", "-o=name")
    assert names.split() == ["daemonset.apps/konnectivity-agent"]


async def test_a_second_install_changes_nothing(api: KubeApi, cluster: Commands) -> None:
    async with Rollouts(api):
        await cluster.run("install", *NEEDED)
        before = len(api.requests)
        done = await cluster.run("install", *NEEDED, "-o", "json")
        assert not [each for each in api.requests[before:] if each.writes]
    found = json.loads(done.out)
    assert (done.status, found["actions"], found["unchanged"]) == (0, [], len(RENDERED))
    assert found["agents"] == {"wanted": 2, "updated": 2, "available": 2}


async def test_an_install_that_takes_too_long_says_on_which_pod_it_waits_and_why(
    api: KubeApi, cluster: Commands
) -> None:
    async with Rollouts(api) as rollouts:
        rollouts.new_pods_wait("ImagePullBackOff", "no such image")
        done = await cluster.run("install", *NEEDED, "--timeout=2s")
    assert done.status == 1
    assert done.err.startswith("Error: not done within 2s; 0 of 2 agents are available")
    assert "pod konnectivity-agent-1 on node node-1: ImagePullBackOff: no such image" in done.err
    assert len(done.err.splitlines()) == 1


async def test_an_install_that_need_not_wait_does_not(api: KubeApi, cluster: Commands) -> None:
    done = await cluster.run("install", *NEEDED, "--wait=false")
    assert done.status == 0
    assert "the agents are not waited for" in done.out
    assert kept(api) == {"server": NEEDED[0][9:], "image": NEEDED[1][8:]}


async def test_all_missing_rights_are_said_before_anything_is_changed(
    api: KubeApi, cluster: Commands
) -> None:
    def allowed(asked: dict[str, Any]) -> bool:
        return asked["verb"] not in ("create", "patch") or asked["resource"] == "serviceaccounts"

    api.allowed = allowed
    done = await cluster.run("install", *NEEDED)
    assert done.status == 1
    heartbeats = "rbac.authorization.k8s.io in namespace konnectivity-heartbeats (RBAC)"
    assert done.err.splitlines() == [
        "Error: missing rights: allow create, patch on namespaces in the cluster (RBAC)",
        "Error: missing rights: allow create, patch on "
        "clusterrolebindings.rbac.authorization.k8s.io in the cluster (RBAC)",
        f"Error: missing rights: allow create, patch on roles.{heartbeats}",
        f"Error: missing rights: allow create, patch on rolebindings.{heartbeats}",
        "Error: missing rights: allow create, patch on daemonsets.apps "
        "in namespace kube-system (RBAC)",
        "Error: nothing was changed",
    ]
    assert not [each for each in api.requests if each.writes]


async def test_what_the_api_would_refuse_stops_an_install_before_it_begins(
    api: KubeApi, cluster: Commands
) -> None:
    api.faults.append(Fault("PATCH", "/daemonsets", status=403, message="exceeded quota"))
    done = await cluster.run("install", *NEEDED)
    assert done.status == 1
    assert "exceeded quota" in done.err
    assert done.err.endswith("Error: nothing was changed\n")
    assert not [each for each in api.requests if each.writes]


async def test_a_kind_that_the_cluster_does_not_know_is_named(
    api: KubeApi, cluster: Commands
) -> None:
    api.faults.append(Fault("GET", "/podmonitors", status=404, message="not found"))
    done = await cluster.run("install", *NEEDED, "--monitoring")
    assert done.status == 1
    assert "this cluster does not know PodMonitor in monitoring.coreos.com/v1" in done.err
    assert not [each for each in api.requests if each.writes]


async def test_an_install_of_another_tool_is_announced_and_taken_over(
    api: KubeApi, cluster: Commands
) -> None:
    await cluster.run("install", *NEEDED, "--wait=false")
    foreign = copy.deepcopy(api.get(WORKLOAD) or {})
    api.remove(WORKLOAD)
    foreign["metadata"] = {"labels": {"k0s.k0sproject.io/stack": "konnectivity"}}
    api.put(WORKLOAD, foreign, manager="k0s")
    done = await cluster.run("install", *NEEDED, "--wait=false")
    assert done.status == 0
    assert "~ DaemonSet kube-system/konnectivity-agent (adopt)" in done.out
    assert "(it is taken over from: k0s (k0s.k0sproject.io/stack), k0s (Update" in done.out


async def test_nothing_is_changed_against_a_standing_manager_but_by_force(
    api: KubeApi, cluster: Commands
) -> None:
    lease = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/konnectivity-manager"
    spec = {
        "holderIdentity": "host-7",
        "leaseDurationSeconds": 30,
        "renewTime": "2999-01-01T00:00:00.000000Z",
    }
    api.put(lease, {"spec": spec})
    done = await cluster.run("install", *NEEDED, "--wait=false")
    assert done.status == 1
    assert "the manager host-7 keeps this cluster by a specification of its own" in done.err
    assert not api.get(WORKLOAD)
    done = await cluster.run("install", *NEEDED, "--wait=false", "--force")
    assert done.status == 0
    assert "! the manager host-7 keeps this cluster" in done.out
    spec["renewTime"] = "2001-01-01T00:00:00.000000Z"
    api.put(lease, {"spec": spec})
    done = await cluster.run("install", *NEEDED, "--wait=false")
    assert done.status == 0
    assert "keeps this cluster" not in done.out


async def test_the_exit_status_of_a_diff_tells_same_different_and_unknown(
    api: KubeApi, cluster: Commands
) -> None:
    new = await cluster.run("diff", *NEEDED)
    *created, total = new.out.splitlines()
    assert (new.status, created) == (1, [f"+ {key_of(item)}" for item in RENDERED])
    assert total == f"{len(RENDERED)} to create, 0 to change, 0 as specified"
    await cluster.run("install", *NEEDED, "--wait=false")
    same = await cluster.run("diff")
    assert (same.status, same.out) == (
        0,
        f"0 to create, 0 to change, {len(RENDERED)} as specified\n",
    )
    longer = await cluster.run("diff", "--drain-timeout=10m")
    assert '        - "--drain-timeout=25s"\n        + "--drain-timeout=10m0s"\n' in longer.out
    other = await cluster.run("diff", "--image=k:2", "-o", "json")
    (action,) = json.loads(other.out)["actions"]
    assert (other.status, action["reason"]) == (1, "upgrade")
    assert '-> "k:2"' in action["changes"][0]["change"]
    api.faults.append(Fault("GET", "/daemonsets", status=403, message="not for you"))
    unknown = await cluster.run("diff", *NEEDED, "--namespace=default")
    assert unknown.status == 2
    assert "not for you" in unknown.err


async def test_a_diff_is_in_colour_on_a_terminal_only(api: KubeApi, cluster: Commands) -> None:
    del cluster.environment["NO_COLOR"]
    shown = await cluster.on_terminal("diff", *NEEDED)
    assert (shown.status, "\x1b[32m+ DaemonSet" in shown.out) == (1, True)
    assert "\x1b" not in (await cluster.process("diff", *NEEDED)).out


async def test_an_upgrade_changes_what_is_given_and_keeps_the_rest(
    api: KubeApi, cluster: Commands
) -> None:
    async with Rollouts(api) as rollouts:
        await cluster.run("install", *NEEDED, "--nodes=700", "--environment=HTTPS_PROXY=http://p:1")
        before = set(rollouts.names)
        done = await cluster.run("upgrade", "--image=k:2")
        after = set(rollouts.names)
    assert (done.status, done.err) == (0, "")
    assert "Done: 2 of 2 agents are available." in done.out
    assert (image(api), before & after) == ("k:2", set())
    assert kept(api)["nodes"] == 700
    assert "p:1" not in json.dumps((api.get(WORKLOAD) or {})["metadata"]["annotations"])
    names = (api.get(WORKLOAD) or {})["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "HTTPS_PROXY", "value": "http://p:1"} in names


async def test_what_an_upgrade_no_longer_wants_goes_and_a_rollback_brings_it_back(
    api: KubeApi, cluster: Commands
) -> None:
    policy = ("--network-policy", "--destinations=10.0.0.0/8")
    async with Rollouts(api):
        await cluster.run("install", *NEEDED, *policy)
        assert api.get(POLICY)
        changed = await cluster.run("upgrade", "--network-policy=false", "--image=k:2")
        assert "- NetworkPolicy kube-system/konnectivity-agent" in changed.out
        assert (changed.status, api.get(POLICY)) == (0, None)
        assert kept(api, FORMER)["network-policy"] is True
        back = await cluster.run("upgrade", "--rollback")
    assert (back.status, back.err) == (0, "")
    assert api.get(POLICY)
    assert image(api) == NEEDED[1][8:]


async def test_an_upgrade_that_is_stuck_says_on_what_and_can_be_rolled_back(
    api: KubeApi, cluster: Commands
) -> None:
    async with Rollouts(api) as rollouts:
        await cluster.run("install", *NEEDED)
        rollouts.new_pods_wait("ErrImagePull", "no such image")
        stuck = await cluster.run("upgrade", "--image=bad", "--timeout=1s")
        assert stuck.status == 1
        assert "not done within 1s; 1 of 2 agents are available" in stuck.err
        assert ": ErrImagePull: no such image" in stuck.err
        rollouts.kubelet.judge = lambda pod: status(ready=True)
        back = await cluster.run("upgrade", "--rollback")
    assert (back.status, back.err, image(api)) == (0, "", NEEDED[1][8:])


async def test_what_is_left_in_another_namespace_goes_too(api: KubeApi, cluster: Commands) -> None:
    async with Rollouts(api):
        await cluster.run("install", *NEEDED, "--count-leases", "--lease-namespace=leases")
        assert len(api.items(ROLES)) == 2
        done = await cluster.run("upgrade", "--count-leases=false")
    assert (done.status, done.err) == (0, "")
    assert "- Role leases/konnectivity-server" in done.out
    assert api.items(ROLES) == []


async def test_what_belongs_in_a_new_namespace_waits_for_it(
    api: KubeApi, cluster: Commands
) -> None:
    """The API refuses both to make it and to try it before."""
    done = await cluster.run("install", *NEEDED, "--wait=false")
    assert (done.status, done.err) == (0, "")
    asked = [each for each in api.asked("PATCH") if "konnectivity-heartbeats" in each.path]
    tried, made, *inside = [each.path.split("/")[-2] for each in asked]
    assert (tried, made, sorted(inside)) == ("namespaces", "namespaces", ["rolebindings", "roles"])


async def test_heartbeats_that_are_no_longer_wanted_take_their_rights_along(
    api: KubeApi, cluster: Commands
) -> None:
    async with Rollouts(api):
        await cluster.run("install", *NEEDED)
        done = await cluster.run("upgrade", "--heartbeats=false")
    assert (done.status, done.err) == (0, "")
    assert "- Role konnectivity-heartbeats/konnectivity-agent-heartbeats" in done.out
    assert (
        "! Namespace konnectivity-heartbeats is not wanted any more and stays, with what is in it: "
        "kubectl delete namespace konnectivity-heartbeats\n"
    ) in done.out
    assert api.get(HEARTBEATS)  # it might hold what is not ours
    assert api.items(f"{RIGHTS}/roles") == api.items(f"{RIGHTS}/rolebindings") == []


async def test_a_namespace_that_stays_is_named_to_programs_too_and_not_when_it_is_gone(
    api: KubeApi, cluster: Commands
) -> None:
    json_please = ("--output=json", "--wait=false")
    await cluster.run("install", *NEEDED, "--wait=false")
    done = await cluster.run("upgrade", "--heartbeats=false", *json_please)
    assert json.loads(done.out)["staying"] == ["Namespace konnectivity-heartbeats"]
    back = await cluster.run("upgrade", "--rollback", *json_please)
    assert json.loads(back.out)["staying"] == []
    api.remove(HEARTBEATS)
    gone = await cluster.run("upgrade", "--heartbeats=false", *json_please)
    assert (gone.status, json.loads(gone.out)["staying"]) == (0, [])


async def test_what_is_to_go_needs_the_right_to_delete_it(api: KubeApi, cluster: Commands) -> None:
    policy = ("--network-policy", "--destinations=10.0.0.0/8")
    await cluster.run("install", *NEEDED, *policy, "--wait=false")
    api.allowed = lambda asked: asked["verb"] != "delete"
    done = await cluster.run("upgrade", "--network-policy=false", "--wait=false")
    assert done.status == 1
    assert "allow delete on networkpolicies.networking.k8s.io in namespace" in done.err
    assert api.get(POLICY)


async def test_an_upgrade_to_the_other_kind_of_workload_goes_there_and_back(
    api: KubeApi, cluster: Commands
) -> None:
    async with Rollouts(api):
        await cluster.run("install", *NEEDED)
        there = await cluster.run("upgrade", "--mode=deployment", "--replicas=1")
        assert (there.status, there.err) == (0, "")
        assert "- DaemonSet kube-system/konnectivity-agent" in there.out
        assert "Done: 1 of 1 agents are available." in there.out
        assert api.get(WORKLOAD) is None
        back = await cluster.run("upgrade", "--rollback")
        assert (back.status, back.err) == (0, "")
        assert api.get(DEPLOYMENT) is None
    assert image(api) == NEEDED[1][8:]


async def test_a_workload_of_the_other_kind_that_is_not_ours_is_named_and_stays(
    api: KubeApi, cluster: Commands
) -> None:
    api.put(
        DEPLOYMENT,
        {"metadata": {}, "spec": {"selector": {"matchLabels": {"a": "b"}}}},
        manager="kamaji",
    )
    done = await cluster.run("install", *NEEDED, "--wait=false")
    assert "! Deployment kube-system/konnectivity-agent was made by somebody else" in done.out
    assert api.get(DEPLOYMENT)


async def test_an_upgrade_of_nothing_says_to_install(api: KubeApi, cluster: Commands) -> None:
    for extra in ((), ("--rollback",)):
        done = await cluster.run("upgrade", *NEEDED, *extra)
        assert done.status == 1
        assert "nothing to upgrade" in done.err
        assert "konnectivity install" in done.err


async def test_an_upgrade_of_what_was_made_otherwise_asks_for_the_specification(
    api: KubeApi, cluster: Commands, tmp_path: Path
) -> None:
    await cluster.run("install", *NEEDED, "--wait=false")
    item = api.get(WORKLOAD) or {}
    del item["metadata"]["annotations"]
    api.put(WORKLOAD, item)
    done = await cluster.run("upgrade", "--image=k:2", "--wait=false")
    assert (done.status, "give all of it with --spec" in done.err) == (1, True)
    file = tmp_path / "agents.toml"
    file.write_text('server = "konnectivity.example.com:8091"\nimage = "k:3"\n')
    done = await cluster.run("upgrade", f"--spec={file}", "--wait=false")
    assert (done.status, image(api)) == (0, "k:3")
    done = await cluster.run("upgrade", f"--spec={file}", "--rollback")
    assert (done.status, "leave spec out" in done.err) == (2, True)


async def test_a_paused_workload_is_not_changed(api: KubeApi, cluster: Commands) -> None:
    await cluster.run("install", *NEEDED, "--wait=false")
    item = api.get(WORKLOAD) or {}
    item["metadata"]["annotations"]["konnectivity/paused"] = "true"
    api.put(WORKLOAD, item, manager="kubectl")
    done = await cluster.run("upgrade", "--image=k:2", "--wait=false")
    assert (done.status, "konnectivity/paused" in done.err) == (1, True)
    assert image(api) == NEEDED[1][8:]


@pytest.mark.parametrize("command", ["install", "diff", "upgrade", "restart"])
async def test_an_api_that_is_away_or_does_not_know_us_is_one_line(
    api: KubeApi, cluster: Commands, command: str
) -> None:
    extra = () if command == "restart" else NEEDED
    status = 2 if command == "diff" else 1
    api.tokens = {"another"}
    done = await cluster.run(command, *extra)
    assert done.status == status
    (line,) = done.err.splitlines()
    assert "Unauthorized" in line
    assert "credentials of the kubeconfig are expired" in line
    await api.stop()
    done = await cluster.run(command, *extra)
    (line,) = done.err.splitlines()
    assert (done.status, "onnect" in line) == (status, True)


async def test_a_wrong_command_line_or_kubeconfig_is_said_with_status_2(
    cluster: Commands, tmp_path: Path
) -> None:
    for argv, text in (
        (("install",), "server must be set"),
        (("install", *NEEDED, "--output=xml"), "output must be text or json"),
        (("install", *NEEDED, "--timeout=0s"), "timeout must be > 0"),
        (("install", *NEEDED, "--context=prod"), "there is no context prod; there are: test"),
        (("restart", "--pod=a", "--node=b"), "pod and node are one or the other"),
        (("diff", "--kubeconfig=/nowhere"), "kubeconfig /nowhere cannot be read"),
    ):
        done = await cluster.run(*argv)
        assert (done.status, text in done.err) == (2, True), done
    cluster.environment["KUBECONFIG"] = f"{tmp_path}/a:{tmp_path}/b"
    done = await cluster.process("restart")
    assert (done.status, "KUBECONFIG names several files" in done.err) == (2, True)
