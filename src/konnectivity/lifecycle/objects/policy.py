"""What others may do to the agents: evict them, and send them packets or get them."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from konnectivity.lifecycle.objects.arguments import HEALTH_PORT
from konnectivity.lifecycle.objects.metadata import Object, metadata
from konnectivity.lifecycle.specification.spec import AgentSpec, pairs

DNS_PORT = 53
HTTPS_PORT = 443
API_PORTS = (HTTPS_PORT, 6443)


def disruption_budget(spec: AgentSpec) -> list[Object]:
    """One agent of a Deployment leaves at a time, which a single one may too.

    Drains of nodes do not evict the pods of a DaemonSet.
    """
    if spec.is_daemonset:
        return []
    return [
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata(spec),
            "spec": {
                "maxUnavailable": 1,
                "selector": {"matchLabels": dict(spec.selector_labels)},
            },
        }
    ]


def network_policy(spec: AgentSpec) -> list[Object]:
    """Out: to servers, DNS and the destinations. In: health and metrics, from the cluster."""
    if not spec.network_policy:
        return []
    inside = [{"ipBlock": {"cidr": each}} for each in spec.destinations]
    anywhere_inside = [{"namespaceSelector": {}}, *inside]
    ingress = {"from": anywhere_inside, "ports": [_port(HEALTH_PORT)]}
    egress = [_to_servers(spec), *_to_dns(spec), *_to_others(spec), {"to": inside}]
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": metadata(spec),
            "spec": {
                "podSelector": {"matchLabels": dict(spec.selector_labels)},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [ingress],
                "egress": egress,
            },
        }
    ]


def proxy_port(url: str) -> int:
    """Where an HTTP proxy listens; `url` as in HTTPS_PROXY, 443 without a port.

    Raises:
        ValueError: the port is no number, or out of range.
    """
    return urlsplit(url if "://" in url else f"http://{url}").port or HTTPS_PORT


def _to_servers(spec: AgentSpec) -> Object:
    """Their addresses if they are known; else that port anywhere, for a policy knows no names.

    Leases may tell of further servers at any time.
    """
    rule: Object = {"ports": [_port(spec.server_port)]}
    if not spec.count_leases and (addresses := _addresses(spec)):
        rule["to"] = [{"ipBlock": {"cidr": each}} for each in addresses]
    return rule


def _to_dns(spec: AgentSpec) -> list[Object]:
    if _addresses(spec):
        return []
    return [{"ports": [_port(DNS_PORT, "UDP"), _port(DNS_PORT)]}]


def _to_others(spec: AgentSpec) -> list[Object]:
    """The Kubernetes API, for leases and heartbeats, and the HTTP proxy on the way to servers."""
    found: list[Object] = []
    if spec.uses_api:  # a policy sees the API server's own port, not that of its service
        found.append({"ports": [_port(each) for each in API_PORTS]})
    for name, value in pairs(spec.environment).items():
        if name.upper() == "HTTPS_PROXY" and value:
            found.append({"ports": [_port(proxy_port(value))]})
    return found


def _addresses(spec: AgentSpec) -> list[str]:
    """The servers' addresses as CIDR, if the specification has them."""
    found = spec.server_addresses or (spec.server_host,)
    try:
        return [f"{address}/{address.max_prefixlen}" for address in map(ip_address, found)]
    except ValueError:
        return []


def _port(number: int, protocol: str = "TCP") -> Object:
    return {"protocol": protocol, "port": number}
