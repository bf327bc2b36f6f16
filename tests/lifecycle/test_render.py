"""What the objects of a specification are, judged by Kubernetes' schema and the agent's flags."""

from __future__ import annotations

import dataclasses
import re
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.lifecycle.specs import CA, PLAIN, every

from konnectivity.agent.options import AgentOptions, validate
from konnectivity.cli.flags import parse
from konnectivity.lifecycle.objects.toleration import parse as parse_toleration
from konnectivity.lifecycle.rendering.render import render, to_yaml
from konnectivity.lifecycle.specification.spec import WORKLOAD_OVERRIDES, AgentSpec

ALL = list(every())


def name_of(spec: AgentSpec) -> str:
    return f"{spec.mode}-{spec.authentication}{'-all' if spec.monitoring else ''}"


def kinds(spec: AgentSpec) -> list[str]:
    return [each["kind"] for each in render(spec)]


def one(spec: AgentSpec, kind: str) -> dict[str, Any]:
    (found,) = [each for each in render(spec) if each["kind"] == kind]
    return found


def workload(spec: AgentSpec) -> dict[str, Any]:
    return one(spec, "DaemonSet" if spec.is_daemonset else "Deployment")


def pod(spec: AgentSpec) -> dict[str, Any]:
    found: dict[str, Any] = workload(spec)["spec"]["template"]["spec"]
    return found


def container(spec: AgentSpec) -> dict[str, Any]:
    (found,) = pod(spec)["containers"]
    assert isinstance(found, dict)
    return found


def changed(**change: Any) -> AgentSpec:
    return dataclasses.replace(PLAIN, **change)


@pytest.mark.parametrize("spec", ALL, ids=name_of)
def test_the_agent_accepts_its_command_line(spec: AgentSpec, tmp_path: Path) -> None:
    found = container(spec)
    assert found["command"] == ["/proxy-agent"]
    mounts = {each["mountPath"] for each in found["volumeMounts"]}
    values = {"NODE_NAME": "node-1", "NODE_IP": "192.0.2.7", "POD_NAME": "konnectivity-agent-x"}
    assert values.keys() <= {each["name"] for each in found["env"]}
    argv = []
    for text in found["args"]:
        argument = re.sub(r"\$\((\w+)\)", lambda name: values[name[1]], text)
        flag, _, value = argument.partition("=")
        if value.startswith("/"):
            assert str(Path(value).parent) in mounts, f"{value} is not mounted"
            mounted = tmp_path / Path(value).name
            mounted.touch()
            argument = f"{flag}={mounted}"
        argv.append(argument)
    line = parse(AgentOptions, argv)
    assert not line.warnings
    assert validate(line.options) == []
    assert line.options.proxy_server_host == "konnectivity.example.com"
    assert line.options.count_server_leases is spec.count_leases
    assert bool(line.options.service_account_token_path) is spec.uses_token
    assert bool(line.options.agent_cert) is spec.uses_certificate


@pytest.mark.parametrize("spec", ALL, ids=name_of)
def test_published_commands_find_the_agents_by_either_label(spec: AgentSpec) -> None:
    for item in (*render(spec), workload(spec)["spec"]["template"]):
        labels = item["metadata"]["labels"]
        if item.get("kind") == "Namespace":  # agents of several names share it
            assert not labels.keys() & {"app", "k8s-app"}
            continue
        assert labels["app"] == labels["k8s-app"] == "konnectivity-agent"
    selector = workload(spec)["spec"]["selector"]["matchLabels"]
    assert selector == {"k8s-app": "konnectivity-agent"}


def test_a_selector_that_is_there_already_can_be_kept() -> None:
    spec = changed(selector=("app=konnectivity", "tier=x"), mode="deployment", monitoring=True)
    wanted = {"app": "konnectivity", "tier": "x"}
    found = workload(spec)["spec"]
    assert found["selector"]["matchLabels"] == wanted
    assert found["template"]["metadata"]["labels"].items() >= wanted.items()
    assert one(spec, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == wanted
    assert one(spec, "Service")["spec"]["selector"] == wanted


def test_only_what_is_asked_for_is_rendered() -> None:
    assert kinds(PLAIN) == ["ServiceAccount", "ClusterRoleBinding", "DaemonSet"]
    assert kinds(changed(authentication="certificate")) == ["ServiceAccount", "DaemonSet"]
    assert kinds(changed(mode="deployment"))[2:] == ["Deployment", "PodDisruptionBudget"]
    extras = changed(network_policy=True, destinations=("10.0.0.0/8",), monitoring=True)
    assert set(kinds(extras)) - set(kinds(PLAIN)) == {
        "NetworkPolicy",
        "Service",
        "PodMonitor",
        "PrometheusRule",
    }


def test_rendering_is_pure() -> None:
    assert render(ALL[-1]) == render(ALL[-1])
    changes = render(PLAIN)
    changes[0]["metadata"]["labels"].clear()
    assert render(PLAIN)[0]["metadata"]["labels"]


def test_tokens_are_reviewed_by_the_servers_user_alone() -> None:
    binding = one(PLAIN, "ClusterRoleBinding")
    assert binding["metadata"]["name"] == "system:konnectivity-server"
    assert binding["roleRef"]["name"] == "system:auth-delegator"
    (subject,) = binding["subjects"]
    assert (subject["kind"], subject["name"]) == ("User", "system:konnectivity-server")


def test_the_agents_account_may_read_leases_that_it_counts_and_write_heartbeats() -> None:
    def rules(spec: AgentSpec) -> list[Any]:
        names = {
            each["roleRef"]["name"]
            for each in render(spec)
            if each["kind"] in ("RoleBinding", "ClusterRoleBinding")
            and each["subjects"][0]["kind"] == "ServiceAccount"
        }
        roles = [each for each in render(spec) if each["kind"] in ("Role", "ClusterRole")]
        return [
            rule for each in roles if each["metadata"]["name"] in names for rule in each["rules"]
        ]

    assert rules(PLAIN) == []
    (rule,) = rules(changed(count_leases=True))
    assert rule["resources"] == ["leases"]
    assert not {"create", "update", "patch", "delete", "*"} & set(rule["verbs"])
    (rule,) = rules(changed(heartbeats=True))
    assert rule["resources"] == ["leases"]
    assert set(rule["verbs"]) == {"create", "patch", "list", "delete"}


def test_heartbeats_have_a_namespace_of_their_own_unless_another_is_named() -> None:
    spec = changed(heartbeats=True)
    assert one(spec, "Namespace")["metadata"]["name"] == "konnectivity-heartbeats"
    assert one(spec, "Role")["metadata"]["namespace"] == "konnectivity-heartbeats"
    shared = changed(heartbeats=True, heartbeat_namespace="kube-system")
    assert "Namespace" not in kinds(shared)
    assert one(shared, "Role")["metadata"]["namespace"] == "kube-system"


@pytest.mark.parametrize("spec", ALL, ids=name_of)
def test_no_token_is_mounted_that_is_not_used(spec: AgentSpec) -> None:
    assert one(spec, "ServiceAccount")["automountServiceAccountToken"] is False
    assert pod(spec)["automountServiceAccountToken"] is False
    tokens = [
        source["serviceAccountToken"].get("audience", "")
        for volume in pod(spec)["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
        if "serviceAccountToken" in source
    ]
    wanted = ["system:konnectivity-server"] if spec.uses_token else []
    assert tokens == wanted + ([""] if spec.count_leases or spec.heartbeats else [])


@pytest.mark.parametrize("spec", ALL, ids=name_of)
def test_a_pod_keeps_to_the_restricted_standard(spec: AgentSpec) -> None:
    """Kubernetes' pod security standard "restricted"; host network aside, where asked for."""
    inside = container(spec)["securityContext"]
    assert inside == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    around = pod(spec)["securityContext"]
    assert around["runAsNonRoot"] is True
    assert around["runAsUser"] > 0
    assert around["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {next(iter(set(each) - {"name"})) for each in pod(spec)["volumes"]} <= {
        "configMap",
        "projected",
        "secret",
    }
    assert all(each["readOnly"] and "subPath" not in each for each in mounts_of(spec))


def mounts_of(spec: AgentSpec) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = container(spec)["volumeMounts"]
    return found


def test_the_ca_is_the_clusters_own_or_a_bundle_that_may_hold_two() -> None:
    (volume, _) = pod(PLAIN)["volumes"]
    assert volume["configMap"]["name"] == "kube-root-ca.crt"
    spec = changed(ca_bundle=CA + CA)
    assert pod(spec)["volumes"][0]["configMap"]["name"] == "konnectivity-ca-bundle"
    assert one(spec, "ConfigMap")["data"] == {"ca.crt": CA + CA}


def test_another_ca_and_another_number_of_servers_make_no_new_pods() -> None:
    assert pod(changed(ca_bundle=CA)) == pod(changed(ca_bundle=CA + CA))


def test_probes_ask_the_health_port() -> None:
    found = container(PLAIN)
    assert found["ports"] == [{"name": "health", "containerPort": 8093, "protocol": "TCP"}]
    assert found["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert found["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert "--health-server-port=8093" in found["args"]


@pytest.mark.parametrize("seconds", [0.5, 25.0, 600.0])
def test_the_grace_period_is_longer_than_the_drain(seconds: float) -> None:
    spec = changed(drain_timeout=seconds)
    line = parse(AgentOptions, container(spec)["args"])
    assert line.options.drain_timeout == seconds
    assert pod(spec)["terminationGracePeriodSeconds"] >= seconds + 2


def test_a_daemonset_runs_everywhere_and_says_where() -> None:
    assert pod(PLAIN)["tolerations"] == [{"operator": "Exists"}]
    assert pod(PLAIN)["priorityClassName"] == "system-node-critical"
    assert "--agent-identifiers=host=$(NODE_NAME)&ipv4=$(NODE_IP)" in container(PLAIN)["args"]
    assert "topologySpreadConstraints" not in pod(PLAIN)


def test_a_deployment_is_not_drawn_to_a_node_that_evicted_it() -> None:
    spec = changed(mode="deployment")
    tolerated = pod(spec)["tolerations"]
    assert all(each.get("key") for each in tolerated)
    assert "node.kubernetes.io/unschedulable" not in {each["key"] for each in tolerated}
    short = {
        each["key"]: each["tolerationSeconds"] for each in tolerated if "tolerationSeconds" in each
    }
    assert short == {"node.kubernetes.io/not-ready": 30, "node.kubernetes.io/unreachable": 30}


def test_a_deployment_spreads_softly_by_zone_and_then_by_node() -> None:
    spread = pod(changed(mode="deployment"))["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == [
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    ]
    assert {each["whenUnsatisfiable"] for each in spread} == {"ScheduleAnyway"}


@pytest.mark.parametrize(
    ("change", "count"),
    [({}, 2), ({"zones": 3}, 3), ({"nodes": 700}, 6), ({"replicas": 1, "nodes": 700}, 1)],
)
def test_a_deployment_has_agents_by_the_ladder_or_as_many_as_is_said(
    change: dict[str, Any], count: int
) -> None:
    assert workload(changed(mode="deployment", **change))["spec"]["replicas"] == count


def test_a_single_agent_may_be_evicted() -> None:
    for replicas in (1, 5):
        budget = one(changed(mode="deployment", replicas=replicas), "PodDisruptionBudget")
        assert budget["spec"]["maxUnavailable"] == 1
        assert "minAvailable" not in budget["spec"]


def test_new_agents_of_a_deployment_are_ready_before_old_ones_leave() -> None:
    strategy = workload(changed(mode="deployment"))["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxUnavailable": 0, "maxSurge": 1}


def test_requests_follow_the_table_and_there_is_no_cpu_limit() -> None:
    for spec in ALL:
        resources = container(spec)["resources"]
        assert set(resources["requests"]) == {"cpu", "memory"}
        assert set(resources["limits"]) == {"memory"}
    own = changed(cpu_request="1", memory_request="1Gi", memory_limit="2Gi")
    assert container(own)["resources"] == {
        "requests": {"cpu": "1", "memory": "1Gi"},
        "limits": {"memory": "2Gi"},
    }


def test_on_the_nodes_network_cluster_names_are_still_known() -> None:
    found = pod(changed(host_network=True))
    assert (found["hostNetwork"], found["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
    assert "hostNetwork" not in pod(PLAIN)


def test_servers_may_be_given_by_address_without_dns() -> None:
    found = pod(changed(server_addresses=("192.0.2.1", "192.0.2.2")))["hostAliases"]
    assert found == [
        {"ip": "192.0.2.1", "hostnames": ["konnectivity.example.com"]},
        {"ip": "192.0.2.2", "hostnames": ["konnectivity.example.com"]},
    ]


def policy(**change: Any) -> dict[str, Any]:
    spec = changed(network_policy=True, destinations=("10.0.0.0/8",), **change)
    found: dict[str, Any] = one(spec, "NetworkPolicy")["spec"]
    return found


def ports(rules: list[dict[str, Any]]) -> list[int]:
    return [each["port"] for rule in rules for each in rule.get("ports", [])]


def test_a_network_policy_lets_in_health_and_metrics_only() -> None:
    assert policy()["policyTypes"] == ["Ingress", "Egress"]
    assert ports(policy()["ingress"]) == [8093]


def test_a_network_policy_lets_out_to_servers_dns_and_destinations_only() -> None:
    egress = policy()["egress"]
    assert ports(egress) == [8091, 53, 53]
    assert egress[-1] == {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}


def test_a_network_policy_knows_servers_that_have_addresses() -> None:
    wanted = [{"ipBlock": {"cidr": "192.0.2.1/32"}}, {"ipBlock": {"cidr": "2001:db8::1/128"}}]
    first, *rest = policy(server_addresses=("192.0.2.1", "2001:db8::1"))["egress"]
    assert first["to"] == wanted
    assert ports(rest) == []
    assert policy(server="192.0.2.1:443")["egress"][0]["to"] == wanted[:1]


def test_a_network_policy_lets_out_to_the_api_for_leases_and_to_a_proxy() -> None:
    for reason in ("count_leases", "heartbeats"):
        assert {443, 6443} <= set(ports(policy(**{reason: True})["egress"]))
    assert 3128 in ports(policy(environment=("https_proxy=http://p.example.com:3128",))["egress"])


def test_alerts_ask_for_metrics_that_the_agent_has() -> None:
    page = Path(__file__).parents[2] / "docs/reference/metrics.md"
    agents = page.read_text().partition("## Agent")[2]
    rules = one(changed(monitoring=True), "PrometheusRule")["spec"]["groups"][0]["rules"]
    for rule in rules:
        names = re.findall(r"konnectivity_network_proxy_agent_(\w+)", rule["expr"])
        assert names
        assert all(f"| `{name}` |" in agents for name in names)


def test_overrides_name_fields_that_are_rendered() -> None:
    whole = to_yaml([workload(changed(mode="deployment"))])
    for path in WORKLOAD_OVERRIDES:
        assert f"{path.rpartition('.')[2]}:" in whole


@pytest.mark.parametrize(
    ("text", "toleration"),
    [
        ("*", {"operator": "Exists"}),
        ("a", {"key": "a", "operator": "Exists"}),
        ("a:NoSchedule", {"key": "a", "operator": "Exists", "effect": "NoSchedule"}),
        ("a=b", {"key": "a", "operator": "Equal", "value": "b"}),
        ("a=", {"key": "a", "operator": "Equal", "value": ""}),
    ],
)
def test_a_toleration_is_written_as_a_taint_is(text: str, toleration: dict[str, Any]) -> None:
    assert parse_toleration(text) == toleration


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n:#-'\"{"))
plain_json = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(string.ascii_letters, min_size=1), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(
    st.lists(
        st.dictionaries(st.text(string.ascii_letters, min_size=1), plain_json, min_size=1),
        min_size=1,
        max_size=3,
    )
)
def test_yaml_is_read_back_as_what_was_written(objects: list[dict[str, Any]]) -> None:
    assert list(yaml.safe_load_all(to_yaml(objects))) == objects


def test_yaml_repeats_what_is_the_same_and_shows_long_texts_as_they_are() -> None:
    text = to_yaml(render(changed(ca_bundle=CA, count_leases=True)))
    assert "&id" not in text
    assert "  ca.crt: |\n    -----BEGIN CERTIFICATE-----\n" in text
