"""Faults that the Kubernetes API tells of: what is installed, rights, and network policies."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from tests.diagnose.faults.cluster import EVENTS, LABELS, NAMESPACE, POLICIES, Installation
from tests.diagnose.faults.doctor import Diagnosis, diagnose
from tests.peers.kube_api import Fault, KubeApi

from konnectivity.kube.leases import format_time

LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/konnectivity-manager"
HOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"


@pytest.fixture
async def cluster(api: KubeApi, folder: Path) -> Installation:
    """Two nodes with an agent each."""
    made = Installation(api, folder)
    await made.make({"node-a": "10.0.0.1", "node-b": "10.0.0.2"})
    return made


async def look(cluster: Installation, *flags: str) -> Diagnosis:
    """A run that compares the cluster with the specification."""
    where = (f"--kubeconfig={cluster.kubeconfig}", f"--spec={cluster.file}")
    return await diagnose(*where, "--timeout=5s", *flags)


async def test_a_sound_installation_is_healthy(cluster: Installation) -> None:
    before = len(cluster.api.requests)
    found = await look(cluster)
    assert (found.codes, found.unknown, found.status) == (set(), set(), 0)
    asked = cluster.api.requests[before:]
    assert not [each for each in asked if each.writes and "reviews" not in each.path]


async def test_a_workload_that_was_deleted(cluster: Installation) -> None:
    cluster.api.remove(cluster.path)
    found = await look(cluster)
    assert (found.codes, found.status) == ({"KNC101"}, 2)
    assert found.skipped["KNC102"] == found.skipped["KNC103"] == ["KNC101"]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (
            {"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}},
            "ImagePullBackOff: no such tag",
        ),
        (
            {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m"}},
            "CrashLoopBackOff: back-off 5m",
        ),
    ],
)
async def test_a_pod_that_is_not_ready(
    cluster: Installation, state: dict[str, Any], words: str
) -> None:
    cluster.pod("node-b", "10.0.0.2", state=state)
    cluster.status(2, 1)
    found = await look(cluster)
    assert found.codes == {"KNC102"}
    assert words in found.finding("KNC102")["evidence"]
    assert "konnectivity-agent-node-b on node-b" in found.finding("KNC102")["subject"]


async def test_pods_that_quota_keeps_away(cluster: Installation) -> None:
    cluster.api.remove(f"/api/v1/namespaces/{NAMESPACE}/pods/konnectivity-agent-node-b")
    cluster.status(2, 1)
    cluster.event("FailedCreate", "exceeded quota: compute")
    found = await look(cluster)
    assert found.codes == {"KNC102"}
    assert "exceeded quota: compute" in found.text("KNC102")


async def test_a_workload_that_wants_no_agent(cluster: Installation) -> None:
    for node in ("node-a", "node-b"):
        cluster.api.remove(f"/api/v1/namespaces/{NAMESPACE}/pods/konnectivity-agent-{node}")
    cluster.status(0, 0)
    assert (await look(cluster)).codes == {"KNC102"}


async def test_a_policy_is_found_before_there_are_pods(cluster: Installation) -> None:
    for node in ("node-a", "node-b"):
        cluster.api.remove(f"/api/v1/namespaces/{NAMESPACE}/pods/konnectivity-agent-{node}")
    policy(cluster, "default-deny")
    cluster.status(2, 0)
    assert (await look(cluster)).codes == {"KNC102", "KNC305"}


async def test_a_field_that_somebody_changed(cluster: Installation) -> None:
    item = cluster.api.get(cluster.path) or {}
    item["spec"]["template"]["spec"]["dnsPolicy"] = "None"
    item["spec"]["template"]["spec"]["containers"][0]["args"][0] = "--proxy-server-host=10.9.9.9"
    cluster.api.put(cluster.path, item, manager="kubectl-edit")
    found = await look(cluster)
    assert (found.codes, found.status) == ({"KNC103"}, 1)
    assert "kubectl-edit" in found.text("KNC103")
    assert "10.9.9.9" in found.text("KNC103")


async def test_a_binding_that_is_gone(cluster: Installation) -> None:
    path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:konnectivity-server"
    cluster.api.remove(path)
    found = await look(cluster)
    assert found.codes == {"KNC104"}
    assert found.skipped["KNC103"] == ["KNC104"]
    command = "kubectl create clusterrolebinding system:konnectivity-server"
    assert command in found.finding("KNC104")["remedy"]


async def test_agents_without_requests_and_priority(cluster: Installation) -> None:
    item = cluster.api.get(cluster.path) or {}
    pod = item["spec"]["template"]["spec"]
    del pod["priorityClassName"]
    pod["containers"][0]["resources"] = {}
    cluster.api.put(cluster.path, item)
    found = await diagnose(f"--kubeconfig={cluster.kubeconfig}")
    assert (found.codes, found.status) == ({"KNC105"}, 1)
    assert "requests no cpu and no memory" in found.finding("KNC105")["evidence"]


async def test_pods_of_a_stale_image(cluster: Installation) -> None:
    item = cluster.api.get(cluster.path) or {}
    item["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example.com/k:2"
    cluster.api.put(cluster.path, item)
    found = await diagnose(f"--kubeconfig={cluster.kubeconfig}")
    assert found.codes == {"KNC106"}


def policy(cluster: Installation, name: str, *rules: dict[str, Any]) -> None:
    spec = {"podSelector": {"matchLabels": LABELS}, "policyTypes": ["Egress"], "egress": [*rules]}
    cluster.api.put(f"{POLICIES}/{name}", {"spec": spec})


async def test_a_policy_that_denies_everything(cluster: Installation) -> None:
    policy(cluster, "default-deny")
    found = await look(cluster)
    assert found.codes == {"KNC305"}
    assert "default-deny: it has no egress rule" in found.text("KNC305")


async def test_a_policy_whose_exception_hits_the_server(cluster: Installation) -> None:
    block = {"cidr": "203.0.113.0/24", "except": ["203.0.113.4/30"]}
    policy(cluster, "allow-servers", {"to": [{"ipBlock": block}], "ports": [{"port": 8091}]})
    found = await look(cluster)
    assert found.codes == {"KNC305"}
    (said,) = found.finding("KNC305")["saidBy"]
    assert said == (
        "network policy allow-servers: spec.egress[0] allows "
        "203.0.113.0/24 except 203.0.113.4/30, not 203.0.113.7"
    )
    assert '"cidr": "203.0.113.7/32"' in found.finding("KNC305")["remedy"]


async def test_a_policy_that_lets_the_servers_port_out_is_none(cluster: Installation) -> None:
    policy(cluster, "default-deny")
    policy(cluster, "allow-servers", {"ports": [{"port": 8091, "protocol": "TCP"}]})
    assert (await look(cluster)).codes == set()


async def test_a_policy_that_forbids_name_service(api: KubeApi, folder: Path) -> None:
    cluster = Installation(api, folder, server="konnectivity.example.com:8091")
    await cluster.make({"node-a": "10.0.0.1"})
    service = {"spec": {"clusterIP": "10.96.0.10", "selector": {"k8s-app": "kube-dns"}}}
    api.put(f"/api/v1/namespaces/{NAMESPACE}/services/kube-dns", service)
    policy(cluster, "allow-servers", {"ports": [{"port": 8091}]})
    found = await look(cluster)
    assert found.codes == {"KNC305"}
    assert "DNS 10.96.0.10:53/UDP" in found.finding("KNC305")["subject"]


async def test_rights_of_our_own_that_are_missing_are_told_with_the_rule(
    cluster: Installation,
) -> None:
    cluster.api.faults.append(Fault("GET", "/pods", status=403, message="pods is forbidden"))
    found = await look(cluster)
    assert "KNC102" in found.unknown
    assert found.status == 3
    reasons = {each["code"]: each["reason"] for each in found.document["checks"]}
    assert "allow list on pods in namespace kube-system (RBAC)" in reasons["KNC102"]


async def test_an_api_that_is_away_is_no_verdict(cluster: Installation) -> None:
    await cluster.api.stop()
    found = await look(cluster)
    assert (found.codes, found.status) == (set(), 3)
    assert "KNC101" in found.unknown


async def test_a_manager_that_is_gone(cluster: Installation) -> None:
    old = format_time(time.time() - 600)
    spec = {"holderIdentity": "host-1", "leaseDurationSeconds": 30, "renewTime": old}
    cluster.api.put(LEASE, {"spec": spec})
    found = await look(cluster)
    assert found.codes == {"KNC701"}
    assert "the last one was host-1" in found.finding("KNC701")["evidence"]


async def test_a_tool_that_fights_the_manager(cluster: Installation) -> None:
    cluster.event("DriftReverted", "spec.x: 1 -> 2, written by argocd", count=7, warning=False)
    found = await look(cluster)
    assert (found.codes, found.status) == ({"KNC702"}, 1)
    assert "put back 7 times" in found.finding("KNC702")["evidence"]
    assert "argocd" in found.text("KNC702")


async def test_a_rollout_that_does_not_go_on(cluster: Installation) -> None:
    cluster.status(2, 2, updated=1)
    found = await look(cluster)
    assert found.codes == {"KNC703"}
    assert "1 of 2 agents are updated" in found.finding("KNC703")["evidence"]


async def test_agents_that_are_all_on_one_node(api: KubeApi, folder: Path) -> None:
    cluster = Installation(api, folder, mode="deployment", replicas=2)
    await cluster.make({"node-a": "10.0.0.1"})
    cluster.pod("node-a", "10.0.0.1", name="konnectivity-agent-second")
    cluster.status(2, 2)
    found = await look(cluster)
    assert found.codes == {"KNC802"}
    assert "all 2 agents are on node node-a" in found.finding("KNC802")["evidence"]


async def test_an_agent_that_ran_out_of_memory(cluster: Installation) -> None:
    ended = {"reason": "OOMKilled", "exitCode": 137, "finishedAt": format_time(time.time() - 60)}
    cluster.pod("node-a", "10.0.0.1", lastState={"terminated": ended})
    item = cluster.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods/konnectivity-agent-node-a") or {}
    item["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    cluster.api.put(f"/api/v1/namespaces/{NAMESPACE}/pods/konnectivity-agent-node-a", item)
    found = await look(cluster)
    assert found.codes == {"KNC504"}
    assert "--memory-limit" in found.finding("KNC504")["remedy"]


def webhook(cluster: Installation, *, port: int = 443) -> None:
    reference = {"namespace": "default", "name": "policy-hook", "port": port}
    hook = {"name": "check.example.com", "clientConfig": {"service": reference}}
    cluster.api.put(f"{HOOKS}/policies", {"webhooks": [hook]})


def service(cluster: Installation) -> None:
    spec = {"clusterIP": "10.96.0.77", "ports": [{"port": 443}]}
    cluster.api.put("/api/v1/namespaces/default/services/policy-hook", {"spec": spec})


def endpoints(cluster: Installation, *, ready: bool) -> None:
    item = {
        "metadata": {"labels": {"kubernetes.io/service-name": "policy-hook"}},
        "endpoints": [{"addresses": ["10.0.3.4"], "conditions": {"ready": ready}}],
    }
    path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/policy-hook-x"
    cluster.api.put(path, item)


async def test_a_webhook_without_a_service(cluster: Installation) -> None:
    webhook(cluster)
    found = await look(cluster)
    assert found.codes == {"KNC402"}
    assert found.finding("KNC402")["evidence"] == "the service does not exist"


async def test_a_webhook_with_the_wrong_port(cluster: Installation) -> None:
    webhook(cluster, port=8443)
    service(cluster)
    found = await look(cluster)
    assert found.finding("KNC402")["evidence"] == "the service has no port 8443, but 443"


async def test_a_webhook_whose_pods_are_not_ready(cluster: Installation) -> None:
    webhook(cluster)
    service(cluster)
    endpoints(cluster, ready=False)
    found = await look(cluster)
    assert found.codes == {"KNC402"}
    endpoints(cluster, ready=True)
    assert (await look(cluster)).codes == set()


async def test_an_apiservice_without_endpoints(cluster: Installation) -> None:
    service(cluster)
    reference = {"namespace": "default", "name": "policy-hook"}
    item = {"spec": {"service": reference, "group": "metrics.k8s.io"}}
    path = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io"
    cluster.api.put(path, item)
    found = await look(cluster)
    assert found.codes == {"KNC402"}
    assert "apiservice v1beta1.metrics.k8s.io" in found.finding("KNC402")["subject"]


async def test_objects_of_any_shape_are_no_reason_to_fail(cluster: Installation) -> None:
    cluster.api.put(f"{POLICIES}/odd", {"spec": {"podSelector": {}, "egress": "all\x1b[2J"}})
    cluster.api.put(f"{HOOKS}/odd", {"webhooks": [{"clientConfig": 7}, 5, None]})
    cluster.api.put(f"{EVENTS}/odd", {"involvedObject": "x", "message": ["\x1b[31m"], "count": "7"})
    cluster.api.put(LEASE, {"spec": {"renewTime": 5, "holderIdentity": []}})
    found = await look(cluster)
    assert found.document["schema"] == "konnectivity.doctor/v1"
    assert found.status in (2, 3)
