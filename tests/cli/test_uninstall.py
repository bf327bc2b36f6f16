"""`uninstall` as a user meets it: what it says, what it asks, what is left."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from tests.cli.command import Commands
from tests.cli.rollouts import Rollouts
from tests.peers import tool
from tests.peers.kube_api import Fault, KubeApi

NEEDED = ("--server=konnectivity.example.com:8091", "--image=registry.example.com/k:1")
WORKLOAD = "/apis/apps/v1/namespaces/kube-system/daemonsets/konnectivity-agent"
ACCOUNT = "/api/v1/namespaces/kube-system/serviceaccounts/konnectivity-agent"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
SECRETS = "/api/v1/namespaces/kube-system/secrets"
MONITORS = "/apis/monitoring.coreos.com/v1/namespaces/kube-system/podmonitors"
HEARTBEATS = "/api/v1/namespaces/konnectivity-heartbeats"
BEATS = "/apis/coordination.k8s.io/v1/namespaces/konnectivity-heartbeats/leases"
BEAT = {"metadata": {"labels": {"konnectivity/heartbeat": "agent"}}, "spec": {}}
RIGHTS = "/apis/rbac.authorization.k8s.io/v1/namespaces/konnectivity-heartbeats"
HOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def lease(renewed: str) -> dict[str, Any]:
    return {"spec": {"holderIdentity": "host-7", "leaseDurationSeconds": 30, "renewTime": renewed}}


async def test_it_asks_deletes_waits_and_leaves_nothing(api: KubeApi, cluster: Commands) -> None:
    async with Rollouts(api) as rollouts:
        await cluster.run("install", *NEEDED, "--count-leases", "--monitoring")
        assert api.items(MONITORS)
        api.put(f"{LEASES}/konnectivity-manager", lease("2001-01-01T00:00:00.000000Z"))
        done = await cluster.on_terminal("uninstall", question="Type test", answer="test")
        assert done.status == 0, done.out
        assert rollouts.pods == []
    config = cluster.environment["KUBECONFIG"]
    kinds = "ns,sa,ds,netpol,pdb,cm,roles,rolebindings,clusterrolebindings,leases"
    left = await tool.run("kubectl", "--kubeconfig", config, "get", kinds, "-A", "-o=name")
    assert [line for line in left.splitlines() if "konnectivity" in line] == []
    assert api.items(MONITORS) == []
    shown = done.out.splitlines()
    order = [
        shown.index(f"  {each}")
        for each in (
            "DaemonSet kube-system/konnectivity-agent",
            "ClusterRoleBinding system:konnectivity-server",
            "ServiceAccount kube-system/konnectivity-agent",
            "Lease kube-system/konnectivity-manager",
        )
    ]
    assert order == sorted(order)
    assert "All of it is gone." in shown[-1]


async def test_what_would_stop_is_named(api: KubeApi, cluster: Commands) -> None:
    await cluster.run("install", *NEEDED, "--wait=false")
    inside = {"service": {"namespace": "policy", "name": "judge"}}
    hooks = [
        {"name": "strict.example.com", "clientConfig": inside},
        {"name": "lenient.example.com", "clientConfig": inside, "failurePolicy": "Ignore"},
        {"name": "outside.example.com", "clientConfig": {"url": "https://192.0.2.1/"}},
    ]
    api.put(f"{HOOKS}/policy", {"webhooks": hooks})
    spec = {"group": "metrics.k8s.io", "version": "v1", **inside}
    api.put(f"{SERVICES}/v1.metrics.k8s.io", {"spec": spec})
    api.put(f"{SERVICES}/v1.apps", {"spec": {"group": "apps", "version": "v1"}})
    conversion = {"strategy": "Webhook", "webhook": {"clientConfig": inside}}
    api.put(f"{DEFINITIONS}/things.example.com", {"spec": {"conversion": conversion}})
    api.faults.append(Fault("GET", "/mutatingwebhook", status=403, message="not for you"))
    done = await cluster.on_terminal("uninstall", question="Type test", answer="no")
    assert done.status == 1
    for line in (
        "kubectl logs, exec, attach, cp and port-forward",
        "validating webhook strict.example.com (service policy/judge): what it judges is then "
        "refused",
        "validating webhook lenient.example.com (service policy/judge): it is then skipped",
        "aggregated API metrics.k8s.io/v1 (service policy/judge)",
        "conversion webhook of things.example.com (service policy/judge)",
    ):
        assert f"  {line}\n" in done.out
    assert "(not known: MutatingWebhookConfiguration: cannot be listed: not for you" in done.out
    assert "outside.example.com" not in done.out
    assert "aggregated API apps" not in done.out
    assert "Error: nothing was deleted" in done.out
    assert api.get(WORKLOAD)


async def test_without_a_terminal_it_wants_to_be_told(api: KubeApi, cluster: Commands) -> None:
    await cluster.run("install", *NEEDED, "--wait=false")
    done = await cluster.process("uninstall")
    assert (done.status, "give --yes" in done.err) == (2, True)
    assert api.get(WORKLOAD)
    done = await cluster.process("uninstall", "--yes", "-o", "json")
    assert (done.status, done.err, api.get(WORKLOAD)) == (0, "", None)
    assert "DaemonSet kube-system/konnectivity-agent" in json.loads(done.out)["deleted"]


async def test_what_is_not_ours_stays_and_is_named(api: KubeApi, cluster: Commands) -> None:
    await cluster.run("install", *NEEDED, "--wait=false")
    account = copy.deepcopy(api.get(ACCOUNT) or {})
    api.remove(ACCOUNT)
    account["metadata"] = {"labels": account["metadata"]["labels"]}
    api.put(ACCOUNT, account, manager="helm")
    done = await cluster.run("uninstall", "--yes")
    assert done.status == 0
    stays = "Stays, for it is not ours: ServiceAccount kube-system/konnectivity-agent"
    assert f"{stays}, written by helm (Update" in done.out
    assert api.get(ACCOUNT)
    again = await cluster.run("uninstall", "--yes")
    assert (again.status, "Nothing of ours is in cluster test." in again.out) == (0, True)


async def test_secrets_and_leases_of_the_agents_go_and_others_stay(
    api: KubeApi, cluster: Commands, folder: Path
) -> None:
    await cluster.run("install", *NEEDED, "--wait=false")
    labels = (api.get(ACCOUNT) or {})["metadata"]["labels"]
    meta = {"name": "konnectivity-agent", "namespace": "kube-system", "labels": labels}
    file = folder / "secret.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": meta}))
    how = ("--server-side", "--validate=false", "--field-manager=konnectivity-manager")
    config = cluster.environment["KUBECONFIG"]
    await tool.run("kubectl", "--kubeconfig", config, "apply", *how, "-f", str(file))
    api.put(f"{SECRETS}/by-hand", {"metadata": {}, "data": {}}, manager="kubectl")
    api.put(f"{LEASES}/agent-1", {"metadata": {"labels": labels}, "spec": {}})
    api.put(f"{LEASES}/other", {"spec": {}})
    done = await cluster.run("uninstall", "--yes")
    assert (done.status, done.err) == (0, "")
    left = [*api.items(SECRETS), *api.items(LEASES)]
    assert [each["metadata"]["name"] for each in left] == ["by-hand", "other"]


async def test_the_namespace_of_heartbeats_goes_with_what_is_ours_in_it(
    api: KubeApi, cluster: Commands
) -> None:
    await cluster.run("install", *NEEDED, "--wait=false")
    api.put(f"{BEATS}/konnectivity-agent-x7k2p", BEAT)
    given = {"metadata": {}, "data": {"ca.crt": "a certificate"}}
    api.put(f"{HEARTBEATS}/configmaps/kube-root-ca.crt", given, manager="kube-controller-manager")
    done = await cluster.run("uninstall", "--yes")
    assert (done.status, done.err) == (0, "")
    assert "  Namespace konnectivity-heartbeats\n" in done.out
    assert api.get(HEARTBEATS) is None
    assert api.items(BEATS) == []


async def test_a_namespace_with_what_is_not_ours_stays_and_only_ours_goes(
    api: KubeApi, cluster: Commands
) -> None:
    await cluster.run("install", *NEEDED, "--wait=false")
    await cluster.run("install", *NEEDED, "--wait=false", "--name=other")
    api.put(f"{BEATS}/konnectivity-agent-x7k2p", BEAT)
    api.put(f"{BEATS}/other-x7k2p", BEAT)
    done = await cluster.run("uninstall", "--yes")
    assert (done.status, done.err) == (0, "")
    stays = "Namespace konnectivity-heartbeats, in it is Lease other-x7k2p, Role other-heartbeats, "
    assert f"Stays, for it is not ours: {stays}RoleBinding other-heartbeats\n" in done.out
    assert [each["metadata"]["name"] for each in api.items(BEATS)] == ["other-x7k2p"]
    last = await cluster.run("uninstall", "--yes", "--name=other")
    assert (last.status, last.err, api.get(HEARTBEATS)) == (0, "", None)


async def test_a_namespace_that_somebody_else_has_written_to_stays(
    api: KubeApi, cluster: Commands
) -> None:
    api.put(HEARTBEATS, {"metadata": {"labels": {"team": "net"}}}, manager="kubectl-create")
    await cluster.run("install", *NEEDED, "--wait=false")
    done = await cluster.run("uninstall", "--yes")
    assert (done.status, done.err) == (0, "")
    assert "not ours: Namespace konnectivity-heartbeats, written by kubectl-create (Up" in done.out
    assert (api.get(HEARTBEATS), api.get(WORKLOAD)) != (None, None)
    assert api.items(f"{RIGHTS}/roles") == []


async def test_a_namespace_that_cannot_be_looked_into_stays(
    api: KubeApi, cluster: Commands
) -> None:
    """As when an extension of the API is away: Kubernetes would not empty it, either."""
    await cluster.run("install", *NEEDED, "--wait=false")
    api.faults.append(Fault("GET", "-heartbeats/pods", status=503, message="no endpoints"))
    done = await cluster.run("uninstall", "--yes")
    assert (done.status, api.get(WORKLOAD)) == (0, None)
    assert "Namespace konnectivity-heartbeats, what is in it cannot be told: no end" in done.out
    assert api.get(HEARTBEATS)


async def test_agents_leave_before_their_rights_do(api: KubeApi, cluster: Commands) -> None:
    async with Rollouts(api):
        await cluster.run("install", *NEEDED)
        before = len(api.requests)
        await cluster.run("uninstall", "--yes")
    asked = [(each.method, each.path) for each in api.requests[before:]]
    deleted = [path.split("/")[-2] for method, path in asked if method == "DELETE"]
    assert deleted == [
        *("namespaces", "daemonsets", "rolebindings", "roles"),
        *("clusterrolebindings", "serviceaccounts"),
    ]
    binding = next(
        i for i, (method, path) in enumerate(asked) if method == "DELETE" and "rolebindings" in path
    )
    assert asked[binding - 1] == ("GET", "/api/v1/namespaces/kube-system/pods")


async def test_a_manager_that_would_put_all_back_is_named_and_its_work_noticed(
    api: KubeApi, cluster: Commands
) -> None:
    await cluster.run("install", *NEEDED, "--wait=false")
    api.put(f"{LEASES}/konnectivity-manager", lease("2999-01-01T00:00:00.000000Z"))
    item = copy.deepcopy(api.get(ACCOUNT) or {})
    remove = api._delete

    def put_back(place: Any, options: Any = None) -> Any:
        answer = remove(place, options)
        if place.resource == "serviceaccounts":
            api.put(ACCOUNT, {**item, "metadata": {**item["metadata"], "uid": "another"}})
        return answer

    api._delete = put_back  # type: ignore[method-assign]
    done = await cluster.run("uninstall", "--yes")
    assert "! This cluster is kept by the manager host-7, which will put all back" in done.out
    assert done.status == 1
    assert "deleted, and there again: ServiceAccount kube-system/konnectivity-agent" in done.err


async def test_what_does_not_go_is_said_after_the_time_limit(
    api: KubeApi, cluster: Commands
) -> None:
    await cluster.run("install", *NEEDED, "--wait=false")
    item = api.get(WORKLOAD) or {}
    labels = item["spec"]["template"]["metadata"]["labels"]
    api.put("/api/v1/namespaces/kube-system/pods/stubborn", {"metadata": {"labels": labels}})
    done = await cluster.run("uninstall", "--yes", "--timeout=1s")
    assert done.status == 1
    assert "not all is gone within 1s; pods still there: stubborn (1)" in done.err


async def test_missing_rights_are_said_and_nothing_is_deleted(
    api: KubeApi, cluster: Commands
) -> None:
    await cluster.run("install", *NEEDED, "--wait=false")
    api.allowed = lambda asked: asked["verb"] != "delete"
    done = await cluster.run("uninstall", "--yes")
    assert done.status == 1
    assert "allow delete on daemonsets.apps in namespace kube-system (RBAC)" in done.err
    assert done.err.endswith("Error: nothing was deleted\n")
    assert not api.asked("DELETE")
