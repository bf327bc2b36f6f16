"""What network policies let out of a pod and into it, and which of their rules says so. Pure.

Policies add up: a pod that none selects for egress may send anywhere; one that is selected may send
what any rule of any of them allows. Ingress is the same the other way round. Names of servers are
known to no policy, so verdicts are about IP addresses.

Source: Kubernetes, networking.k8s.io/v1 NetworkPolicy. Policies of other APIs (Cilium, Calico,
AdminNetworkPolicy) are not looked at.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from konnectivity.diagnose.pods import matches
from konnectivity.diagnose.surroundings import labels_of, mappings

Object: TypeAlias = Mapping[str, Any]
Labels: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where packets go. `labels` and `namespace` are those of the pod that has the address.

    Of an address outside the cluster both are None: only `ipBlock` matches it.
    """

    address: str
    port: int
    protocol: str = "TCP"
    labels: Labels | None = None
    namespace: str | None = None
    namespace_labels: Labels | None = None
    named_ports: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Ruling:
    """The verdict. `policies` select the pod for egress; `rules` are those that were asked.

    When it is refused, each of `rules` says why it does not let the packets pass; when it is
    allowed, it is the one that does.
    """

    allowed: bool
    policies: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Direction:
    """One of the two halves of a policy: its type, its field, and the field of a rule's peers."""

    kind: str
    field: str
    peers: str
    nothing: str


_EGRESS = _Direction("Egress", "egress", "to", "it has no egress rule, so nothing may leave")
_INGRESS = _Direction("Ingress", "ingress", "from", "it has no ingress rule, so nothing may enter")


def egress(policies: Iterable[Object], pod_labels: Labels, to: Destination) -> Ruling:
    """What `policies`, all of the pod's own namespace, say of packets from it."""
    return _ruling(policies, pod_labels, to, _EGRESS)


def ingress(policies: Iterable[Object], pod_labels: Labels, source: Destination) -> Ruling:
    """Likewise of packets to it: all of `source` is the sender's, but the port is the pod's."""
    return _ruling(policies, pod_labels, source, _INGRESS)


def _ruling(
    policies: Iterable[Object], pod_labels: Labels, to: Destination, way: _Direction
) -> Ruling:
    names, reasons = [], []
    for policy in policies:
        spec = policy.get("spec")
        if not isinstance(spec, Mapping) or not _is_about(spec, way):
            continue
        if not selects(spec.get("podSelector"), pod_labels):
            continue
        name = str(policy["metadata"]["name"])
        own = str(policy["metadata"].get("namespace") or "")
        names.append(name)
        rules = list(mappings(spec.get(way.field)))
        if not rules:
            reasons.append(f"{name}: {way.nothing}")
        for number, rule in enumerate(rules):
            where = f"{name}: spec.{way.field}[{number}]"
            if why := _refusal(rule, to, own, way.peers):
                reasons.append(f"{where} {why}")
            else:
                return Ruling(True, tuple(names), (where,))
    return Ruling(not names, tuple(names), tuple(reasons))


def _is_about(spec: Mapping[str, Any], way: _Direction) -> bool:
    kinds = spec.get("policyTypes")
    if isinstance(kinds, list) and kinds:
        return way.kind in kinds
    return way is _INGRESS or bool(spec.get(way.field))  # the API's default for old objects


def selects(selector: Any, labels: Labels) -> bool:
    """Whether a LabelSelector matches; an empty one matches all, a missing one nothing."""
    return isinstance(selector, Mapping) and matches(selector, labels)


def _refusal(rule: Mapping[str, Any], to: Destination, own: str, field: str) -> str:
    """Why a rule does not let packets pass; empty if it does."""
    ports = list(mappings(rule.get("ports")))
    if ports and not any(_port_matches(each, to) for each in ports):
        shown = ", ".join(_show_port(each) for each in ports)
        return f"allows {shown}, not {to.protocol} {to.port}"
    peers = list(mappings(rule.get(field)))
    if not peers or any(_peer_matches(each, to, own) for each in peers):
        return ""
    return f"allows {', '.join(map(_show_peer, peers))}, not {to.address}"


def _port_matches(port: Mapping[str, Any], to: Destination) -> bool:
    if (port.get("protocol") or "TCP") != to.protocol:
        return False
    number = port.get("port")
    if isinstance(number, str):
        number = (to.named_ports or {}).get(number, -1)
    if number is None:
        return True
    last = port.get("endPort", number)
    return bool(number <= to.port <= last)


def _peer_matches(peer: Mapping[str, Any], to: Destination, own: str) -> bool:
    block = peer.get("ipBlock")
    if isinstance(block, Mapping):
        return _within(to.address, block.get("cidr")) and not any(
            _within(to.address, each) for each in block.get("except") or ()
        )
    if to.labels is None or to.namespace is None:
        return False
    spaces = peer.get("namespaceSelector")
    if spaces is None:
        if to.namespace != own:
            return False
    elif not selects(spaces, to.namespace_labels or {}):
        return False
    pods = peer.get("podSelector")
    return pods is None or selects(pods, to.labels)


def _within(address: str, network: Any) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(str(network), strict=False)
    except ValueError:
        return False


def _show_port(port: Mapping[str, Any]) -> str:
    number, last = port.get("port"), port.get("endPort")
    shown = "any port" if number is None else f"{number}-{last}" if last else str(number)
    return f"{port.get('protocol') or 'TCP'} {shown}"


def _show_peer(peer: Mapping[str, Any]) -> str:
    block = peer.get("ipBlock")
    if isinstance(block, Mapping):
        but = ", ".join(map(str, block.get("except") or ()))
        return f"{block.get('cidr')}{f' except {but}' if but else ''}"
    parts = [
        f"{what} {_show_selector(peer[key])}"
        for key, what in (("namespaceSelector", "namespaces"), ("podSelector", "pods"))
        if key in peer
    ]
    return " with ".join(parts) or "nobody"


def _show_selector(selector: Any) -> str:
    labels = (selector or {}).get("matchLabels") or {}
    expressions = [
        f"{each.get('key')} {each.get('operator')} {each.get('values') or ''}".rstrip()
        for each in mappings((selector or {}).get("matchExpressions"))
    ]
    return ",".join([*(f"{key}={value}" for key, value in labels.items()), *expressions]) or "(all)"


def destination_in_cluster(
    address: str, port: int, *, pods: Iterable[Object], namespaces: Iterable[Object]
) -> Destination:
    """A destination with the labels of the pod that has the address, if one has."""
    spaces = {each["metadata"]["name"]: labels_of(each) for each in namespaces}
    for pod in pods:
        status = pod.get("status") or {}
        if status.get("podIP") == address and not (pod.get("spec") or {}).get("hostNetwork"):
            name = str(pod["metadata"].get("namespace") or "")
            return Destination(
                address=address,
                port=port,
                labels=labels_of(pod),
                namespace=name,
                namespace_labels=spaces.get(name, {}),
            )
    return Destination(address=address, port=port)
