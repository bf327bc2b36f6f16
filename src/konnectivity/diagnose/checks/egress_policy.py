"""KNC305: what network policies let out of the agents' pods, with the policy and the rule."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from konnectivity.diagnose.case import Case
from konnectivity.diagnose.check import Finding
from konnectivity.diagnose.facts import PodFacts, Workload
from konnectivity.diagnose.pods import pod_facts
from konnectivity.diagnose.policy import Destination, Ruling, destination_in_cluster, egress
from konnectivity.diagnose.surroundings import labels_of, mappings
from konnectivity.kube.leases import server_of
from konnectivity.lifecycle.specification.spec import pairs
from konnectivity.net.address import AddressError, join_host_port, parse_ip, split_host_port

ALLOWING: Final = "konnectivity-agent-allow"
DNS_PORT: Final = 53
DNS_SERVICES: Final = ("kube-dns", "coredns")
MOST: Final = 20
"""Pods whose labels are asked about; others of a workload have the same."""


def evaluate(case: Case) -> Iterator[Finding]:
    """One finding for each kind of destination that is refused."""
    cluster = case.facts.cluster
    if cluster is None:
        return
    policies = _policies(case)
    told = set[str]()
    for pod in cluster.pods[:MOST] or _planned(cluster.workload):
        if (pod.object.get("spec") or {}).get("hostNetwork"):
            continue  # policies do not apply to the node's own network
        labels = labels_of(pod.object)
        for what, to in _destinations(case, pod):
            ruling = egress(policies, labels, to)
            if ruling.allowed or what in told:
                continue
            told.add(what)
            yield _finding(
                pod, what, to, ruling, nodes=[each.node or each.name for each in cluster.pods]
            )


def _planned(workload: Workload | None) -> list[PodFacts]:
    """The pod that a workload would make, where there is none yet."""
    if workload is None:
        return []
    template = (workload.object.get("spec") or {}).get("template") or {}
    meta = {**(template.get("metadata") or {}), "name": workload.name}
    item = {"metadata": {**meta, "namespace": workload.namespace}, "spec": template.get("spec")}
    return [pod_facts(item)]


def _finding(
    pod: PodFacts, what: str, to: Destination, ruling: Ruling, *, nodes: Sequence[str]
) -> Finding:
    """All pods of the agents have the same labels, so it is told once and explains all of them."""
    hop = join_host_port(to.address, to.port)
    block = {"ipBlock": {"cidr": f"{to.address}/{128 if ':' in to.address else 32}"}}
    rule: dict[str, Any] = {"to": [block], "ports": [{"protocol": "TCP", "port": to.port}]}
    if what == "DNS":
        rule = {"ports": [{"protocol": each, "port": DNS_PORT} for each in ("UDP", "TCP")]}
    return Finding(
        subject=f"pod {pod.namespace}/{pod.name} → {what} {to.address}:{to.port}/{to.protocol}",
        evidence=f"no rule of {', '.join(ruling.policies)} lets it out",
        said_by=tuple(f"network policy {each}" for each in ruling.rules),
        remedy=f"echo '{json.dumps(_allowing(pod, rule))}' | kubectl apply -f -",
        about=("policy", what),
        explains=tuple((node,) if what == "DNS" else (node, hop) for node in nodes),
    )


def _allowing(pod: PodFacts, rule: dict[str, Any]) -> dict[str, Any]:
    """One more policy, with that rule: policies add up."""
    labels = labels_of(pod.object)
    selector = {"k8s-app": labels["k8s-app"]} if "k8s-app" in labels else dict(labels)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": pod.namespace, "name": f"{ALLOWING}-{rule['ports'][0]['port']}"},
        "spec": {
            "podSelector": {"matchLabels": selector},
            "policyTypes": ["Egress"],
            "egress": [rule],
        },
    }


def _policies(case: Case) -> list[Mapping[str, Any]]:
    """All of the namespace: which of them select a pod is seen from its labels."""
    cluster = case.facts.cluster
    if case.surroundings is not None and case.surroundings.knows("NetworkPolicy"):
        return list(case.surroundings.of("NetworkPolicy"))
    return list(cluster.policies) if cluster is not None else []


def _destinations(case: Case, pod: PodFacts) -> Iterator[tuple[str, Destination]]:
    pods = [each.object for each in case.facts.cluster.pods] if case.facts.cluster else []
    spaces = case.surroundings.of("Namespace") if case.surroundings else ()
    for address, port in sorted(_servers(case, pod)):
        yield (
            f"server {address}",
            destination_in_cluster(address, port, pods=pods, namespaces=spaces),
        )
    if _asks_dns(pod):
        yield from (("DNS", each) for each in _dns(case))


def _servers(case: Case, pod: PodFacts) -> set[tuple[str, int]]:
    """IP addresses and ports of servers, from whoever names some."""
    texts = [address for each in case.attempts for address in each.addresses]
    spec = case.spec
    if spec is not None:
        texts += [
            f"{host}:{spec.server_port}" for host in (spec.server_host, *spec.server_addresses)
        ]
    if case.facts.cluster is not None:
        texts += [server_of(lease)[1] for lease in case.facts.cluster.leases]
    arguments = _arguments(pod)
    port = arguments.get("--proxy-server-port", "8091")
    hosts = [arguments.get("--proxy-server-host", "")]
    aliases = mappings((pod.object.get("spec") or {}).get("hostAliases"))
    hosts += [str(each.get("ip")) for each in aliases]
    texts += [f"{host}:{port}" for host in hosts if host]
    return set(filter(None, map(_address, texts)))


def _address(text: str) -> tuple[str, int] | None:
    try:
        host, port = split_host_port(text)
    except AddressError:
        return None
    if not port.isdigit() or parse_ip(host, 0) is None:
        return None
    return host, int(port)


def _arguments(pod: PodFacts) -> dict[str, str]:
    found: dict[str, str] = {}
    for container in mappings((pod.object.get("spec") or {}).get("containers")):
        words = [*(container.get("command") or []), *(container.get("args") or [])]
        found |= pairs(tuple(str(each) for each in words))
    return found


def _asks_dns(pod: PodFacts) -> bool:
    """Whether the servers are known to the agent by a name that its host aliases do not have."""
    spec = pod.object.get("spec") or {}
    host = _arguments(pod).get("--proxy-server-host", "")
    named = {
        name for each in mappings(spec.get("hostAliases")) for name in each.get("hostnames") or ()
    }
    policy = spec.get("dnsPolicy", "ClusterFirst")
    is_name = bool(host) and parse_ip(host, 0) is None
    return is_name and host not in named and str(policy).startswith("ClusterFirst")


def _dns(case: Case) -> Iterator[Destination]:
    """The pods behind the cluster's DNS: by the labels that its service selects."""
    around = case.surroundings
    if around is None:
        return
    for name in DNS_SERVICES:
        service = around.named("Service", name, "kube-system")
        selector = (service.get("spec") or {}).get("selector") if service else None
        if service is None or not isinstance(selector, Mapping):
            continue
        space = around.named("Namespace", "kube-system")
        address = next(_endpoints(case, name), str((service["spec"]).get("clusterIP") or "0.0.0.0"))  # noqa: S104
        yield Destination(
            address=address,
            port=DNS_PORT,
            protocol="UDP",
            labels=selector,
            namespace="kube-system",
            namespace_labels=labels_of(space) if space else {},
            named_ports={"dns": DNS_PORT, "dns-tcp": DNS_PORT},
        )
        return


def _endpoints(case: Case, service: str) -> Iterator[str]:
    for item in case.surroundings.of("EndpointSlice") if case.surroundings else ():
        if labels_of(item).get("kubernetes.io/service-name") == service:
            for endpoint in mappings(item.get("endpoints")):
                yield from map(str, endpoint.get("addresses") or ())
