"""What network policies let out of a pod, against the rules of the Kubernetes API."""

from __future__ import annotations

from typing import Any

import pytest

from konnectivity.diagnose.policy import Destination, Ruling, egress

POD = {"k8s-app": "konnectivity-agent", "tier": "system"}
SERVER = Destination(address="203.0.113.7", port=8091)
DNS = Destination(
    address="10.0.9.9",
    port=53,
    protocol="UDP",
    labels={"k8s-app": "kube-dns"},
    namespace="kube-system",
    namespace_labels={"kubernetes.io/metadata.name": "kube-system"},
    named_ports={"dns": 53},
)
KUBE_SYSTEM = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
KUBE_DNS = {"matchLabels": {"k8s-app": "kube-dns"}}


def policy(*rules: Any, selector: Any = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": spec.pop("namespace", "kube-system")},
        "spec": {"podSelector": selector or {}, "egress": list(rules)} | spec,
    }


def ruling(*policies: dict[str, Any], to: Destination = SERVER) -> Ruling:
    return egress(policies, POD, to)


def test_without_policies_everything_may_leave() -> None:
    assert ruling() == Ruling(True)


def test_policies_for_other_pods_and_for_ingress_say_nothing() -> None:
    others = policy(selector={"matchLabels": {"app": "web"}}, policyTypes=["Egress"])
    ingress = policy(policyTypes=["Ingress"])
    assert ruling(others, ingress) == Ruling(True)


def test_an_old_policy_without_types_is_about_egress_if_it_has_rules_for_it() -> None:
    assert ruling(policy()).allowed
    assert not ruling(policy({"ports": [{"port": 53}]})).allowed


@pytest.mark.parametrize(
    "selector",
    [
        {},
        {"matchLabels": {"tier": "system"}},
        {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["system"]}]},
        {"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["web"]}]},
        {"matchExpressions": [{"key": "tier", "operator": "Exists"}]},
        {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]},
    ],
)
def test_a_deny_that_selects_the_pod_is_named(selector: dict[str, Any]) -> None:
    found = ruling(policy(selector=selector, policyTypes=["Egress"]))
    assert (found.allowed, found.policies) == (False, ("p",))
    assert found.rules == ("p: it has no egress rule, so nothing may leave",)


@pytest.mark.parametrize(
    ("rule", "to", "allowed"),
    [
        ({}, SERVER, True),
        ({"ports": [{"port": 8091}]}, SERVER, True),
        ({"ports": [{"port": 8091, "protocol": "UDP"}]}, SERVER, False),
        ({"ports": [{"port": 8000, "endPort": 8100}]}, SERVER, True),
        ({"ports": [{"port": 8000, "endPort": 8090}]}, SERVER, False),
        ({"ports": [{"protocol": "TCP"}]}, SERVER, True),
        ({"to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]}, SERVER, True),
        (
            {"to": [{"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.7/32"]}}]},
            SERVER,
            False,
        ),
        ({"to": [{"ipBlock": {"cidr": "2001:db8::/32"}}]}, SERVER, False),
        ({"to": [{"namespaceSelector": {}}]}, SERVER, False),  # it is no pod
        ({"to": [{"podSelector": KUBE_DNS}]}, DNS, True),  # of the policy's own namespace
        ({"to": [{"namespaceSelector": KUBE_SYSTEM, "podSelector": KUBE_DNS}]}, DNS, True),
        ({"to": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]}, DNS, False),
        (
            {"to": [{"namespaceSelector": {}}], "ports": [{"port": "dns", "protocol": "UDP"}]},
            DNS,
            True,
        ),
        (
            {"to": [{"namespaceSelector": {}}], "ports": [{"port": "web", "protocol": "UDP"}]},
            DNS,
            False,
        ),
        ({"to": [{"ipBlock": {"cidr": "nonsense"}}]}, SERVER, False),
    ],
)
def test_a_rule_lets_out_what_the_api_says(
    rule: dict[str, Any], to: Destination, allowed: bool
) -> None:
    assert ruling(policy(rule, policyTypes=["Egress"]), to=to).allowed is allowed


def test_a_pod_selector_alone_is_about_the_policys_own_namespace() -> None:
    elsewhere = policy({"to": [{"podSelector": KUBE_DNS}]}, namespace="agents")
    assert not ruling(elsewhere, to=DNS).allowed


def test_policies_add_up() -> None:
    deny = policy(policyTypes=["Egress"])
    allow = policy({"ports": [{"port": 8091}]}, policyTypes=["Egress"])
    found = ruling(deny, allow)
    assert (found.allowed, found.rules) == (True, ("p: spec.egress[0]",))


def test_each_rule_says_why_it_does_not_match() -> None:
    block = {"ipBlock": {"cidr": "10.0.0.0/8"}}
    found = ruling(policy({"ports": [{"port": 53, "protocol": "UDP"}]}, {"to": [block]}))
    assert found.rules == (
        "p: spec.egress[0] allows UDP 53, not TCP 8091",
        "p: spec.egress[1] allows 10.0.0.0/8, not 203.0.113.7",
    )
