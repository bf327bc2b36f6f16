"""What kube-apiserver calls, by the cluster's objects: from a name to where it would dial. Pure.

Source: kube-apiserver's webhook client, aggregator and kubelet client: services by their cluster
IP, or by an endpoint with `--enable-aggregator-routing`; URLs by the selection `controlplane`.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

from konnectivity.diagnose.case import Case
from konnectivity.diagnose.checks.targets import backends
from konnectivity.diagnose.explain.chain import Link, State
from konnectivity.diagnose.explain.service import Pods, Reference, behind
from konnectivity.diagnose.pods import pod_facts
from konnectivity.diagnose.probes.end_to_end import KUBELET_PORT, authorities
from konnectivity.diagnose.surroundings import mappings
from konnectivity.gotext import one_line
from konnectivity.net.address import join_host_port

KINDS: Final = ("webhook", "apiservice", "pod", "node")
CLUSTER: Final = "cluster"
CONTROL_PLANE: Final = "controlplane"
ADDRESS_TYPES: Final = ("Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP")
"""Default of kube-apiserver's `--kubelet-preferred-address-types`."""
WEBHOOKS: Final = {
    "ValidatingWebhookConfiguration": "validating webhook",
    "MutatingWebhookConfiguration": "mutating webhook",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Callee:
    """One thing that is called. `links` is what its configuration tells, up to a broken link.

    `addresses` are where kube-apiserver dials, one of them for each call; `ends` where packets go
    from there, which differs for the address of a service. An empty `selection` is for what never
    takes the tunnel. `ca` is PEM, empty if it is not checked.
    """

    title: str
    kind: str
    links: tuple[Link, ...]
    addresses: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    selection: str = CLUSTER
    ca: str = ""
    server_name: str = ""
    tls: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How kube-apiserver is set up, by its own flags."""

    address_types: Sequence[str] = ADDRESS_TYPES
    aggregator_routing: bool = False


def namespaces(case: Case, kind: str, name: str) -> set[str]:
    """Where the pods are that matter for an answer."""
    if kind == "pod":
        return {name.partition("/")[0] if "/" in name else "default"}
    around = case.surroundings
    named = backends(around) if around is not None and kind != "node" else ()
    return {
        str(reference.get("namespace"))
        for found, full, reference, _ in named
        if found == kind and name in (full, full.partition("/")[0])
    }


def callees(case: Case, kind: str, name: str, pods: Pods, manner: Manner) -> list[Callee]:
    """What is meant by a kind and a name; a configuration may have several webhooks."""
    if kind == "webhook":
        found = list(_webhooks(case, name, pods, manner))
        return found or [_missing(case, kind, name, *WEBHOOKS)]
    if kind == "apiservice":
        found = list(_api_services(case, name, pods, manner))
        return found or [_missing(case, kind, name, "APIService")]
    if kind == "pod":
        return [_pod(case, name, pods, manner)]
    return [_node(case, name, name, (), manner)]


def _missing(case: Case, kind: str, name: str, *objects: str) -> Callee:
    title = f"{kind} {name}"
    around = case.surroundings
    unread = case.unread(*objects)
    if around is None or unread or not any(map(around.knows, objects)):
        link = Link("configuration", State.UNKNOWN, unread or _silence(case))
    else:
        resources = ",".join(f"{each.lower()}s" for each in objects)
        link = Link(
            "configuration", State.BROKEN, f"there is no {title}", f"kubectl get {resources}"
        )
    return Callee(title=title, kind=kind, links=(link,))


def _silence(case: Case) -> str:
    """Why the cluster told nothing."""
    told = [str(each) for each in case.facts.about("cluster")]
    return "; ".join(told[:1]) or "no cluster is named; --kubeconfig names one"


def _webhooks(case: Case, name: str, pods: Pods, manner: Manner) -> Iterator[Callee]:
    """`name` is a configuration's, or its and a webhook's: `configuration/webhook`."""
    around = case.surroundings
    for kind, title in WEBHOOKS.items() if around else ():
        for item in around.of(kind) if around else ():
            own = str(item["metadata"]["name"])
            for hook in mappings(item.get("webhooks")):
                full = f"{own}/{hook.get('name')}"
                if name in (own, full):
                    yield _webhook(case, f"{title} {full}", hook, pods, manner)


def _webhook(case: Case, title: str, hook: Mapping[str, Any], pods: Pods, manner: Manner) -> Callee:
    config = hook.get("clientConfig") or {}
    failing = f"failurePolicy {hook.get('failurePolicy') or 'Fail'}"
    limit = f"{failing}, timeout {hook.get('timeoutSeconds') or 10} s"
    reference = config.get("service")
    bundle = str(config.get("caBundle") or "")
    if isinstance(reference, Mapping):
        return _by_service(case, title, "webhook", reference, bundle, limit, pods, manner)
    return _by_url(title, str(config.get("url") or ""), bundle, limit)


def _by_url(title: str, url: str, bundle: str, limit: str) -> Callee:
    """A webhook outside the cluster; not the tunnel's, unless the selection says so."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
    except ValueError:
        host, port = "", 0
    if not host:
        link = Link("configuration", State.BROKEN, f"it has neither a service nor a URL: {url}")
        return Callee(title=title, kind="webhook", links=(link,))
    text = f"calls the URL {url}; {limit}"
    ca, trust = _trust(bundle)
    return Callee(
        title=title,
        kind="webhook",
        links=(Link("configuration", State.WORKS, text), *trust),
        addresses=(join_host_port(host, port),),
        ends=(join_host_port(host, port),),
        selection=CONTROL_PLANE,
        ca=ca,
        server_name=host,
    )


def _api_services(case: Case, name: str, pods: Pods, manner: Manner) -> Iterator[Callee]:
    around = case.surroundings
    item = around.named("APIService", name) if around else None
    if item is None:
        return
    spec, title = item.get("spec") or {}, f"API service {name}"
    reference = spec.get("service")
    if not isinstance(reference, Mapping):
        link = Link("configuration", State.WORKS, "it is kube-apiserver's own; nothing is called")
        yield Callee(title=title, kind="apiservice", links=(link,), selection="")
        return
    checked = not spec.get("insecureSkipTLSVerify")
    bundle = str(spec.get("caBundle") or "") if checked else ""
    said = _availability(item) + ("" if checked else "; its certificate is not checked")
    yield _by_service(case, title, "apiservice", reference, bundle, said, pods, manner)


def _availability(item: Mapping[str, Any]) -> str:
    """What kube-apiserver itself found."""
    for each in mappings((item.get("status") or {}).get("conditions")):
        if each.get("type") == "Available":
            why = f": {each.get('reason')}, {each.get('message')}"
            status = each.get("status")
            return f"Available is {status}{why if status != 'True' else ''}"
    return "kube-apiserver says nothing of its availability"


def _by_service(
    case: Case,
    title: str,
    kind: str,
    reference: Mapping[str, Any],
    bundle: str,
    said: str,
    pods: Pods,
    manner: Manner,
) -> Callee:
    where = Reference(
        namespace=str(reference.get("namespace")),
        name=str(reference.get("name")),
        port=int(reference.get("port") or 443),
    )
    ca, trust = _trust(bundle)
    way = behind(case, where, pods, by_endpoint=manner.aggregator_routing)
    first = Link("configuration", State.WORKS, f"calls service {where}; {said}")
    broken = any(each.state is State.BROKEN for each in trust)
    return Callee(
        title=title,
        kind=kind,
        links=(first, *trust, *(() if broken else way.links)),
        addresses=way.addresses,
        ends=way.ends,
        ca=ca,
        server_name=f"{where.name}.{where.namespace}.svc",
    )


def _trust(bundle: str) -> tuple[str, list[Link]]:
    """The CA as PEM, and what is wrong with it."""
    if not bundle:
        return "", []
    ca = authorities(bundle)
    remedy = "put the CA of the backend's certificate there, PEM in base64"
    if not ca:
        return "", [Link("caBundle", State.BROKEN, "it holds no certificate", remedy)]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca)
    ends = [ssl.cert_time_to_seconds(str(each["notAfter"])) for each in context.get_ca_certs()]
    if ends and max(ends) < time.time():
        day = time.strftime("%Y-%m-%d", time.gmtime(max(ends)))
        return ca, [Link("caBundle", State.BROKEN, f"all its certificates expired, {day}", remedy)]
    return ca, []


# Pods and nodes


def _pod(case: Case, name: str, pods: Pods, manner: Manner) -> Callee:
    full = name if "/" in name else f"default/{name}"
    title, item = f"pod {full}", pods.by_name.get(full)
    space, _, own = full.partition("/")
    look = f"kubectl -n {space} describe pod {own}"
    if item is None:
        known = space in pods.namespaces
        text = f"there is no {title}" if known else pods.unread or _silence(case)
        state = State.BROKEN if known else State.UNKNOWN
        return Callee(title=title, kind="pod", links=(Link("pod", state, text, look),))
    pod = pod_facts(item)
    if not pod.node:
        text = f"it is on no node: {pod.reason}, {pod.message}"
        return Callee(title=title, kind="pod", links=(Link("pod", State.BROKEN, text, look),))
    trouble = f", not ready: {pod.reason}" if pod.reason else ""
    link = Link("pod", State.WORKS, f"{pod.phase} on node {pod.node}{trouble}")
    return _node(case, title, pod.node, (link,), manner)


def _node(case: Case, name: str, node: str, links: tuple[Link, ...], manner: Manner) -> Callee:
    title = name if links else f"node {name}"
    around = case.surroundings
    item = around.named("Node", node) if around else None
    callee = Callee(title=title, kind="kubelet", links=links)
    if around is None or not around.knows("Node"):
        link = Link("node", State.UNKNOWN, case.unread("Node") or _silence(case))
        return replace(callee, links=(*links, link))
    if item is None:
        link = Link("node", State.BROKEN, f"there is no node {node}", "kubectl get nodes")
        return replace(callee, links=(*links, link))
    status = item.get("status") or {}
    host, kind = _preferred(status, manner.address_types)
    if not host:
        wanted = ", ".join(manner.address_types)
        text = f"node {node} has no address of {wanted}"
        remedy = "kubectl get node -o wide; --kubelet-preferred-address-types of kube-apiserver"
        return replace(callee, links=(*links, Link("node", State.BROKEN, text, remedy)))
    endpoint = (status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}
    address = join_host_port(host, int(endpoint.get("Port") or KUBELET_PORT))
    text = f"kubelet of {node} at {address}, its {kind}{_condition(status)}"
    return replace(
        callee,
        links=(*links, Link("node", State.WORKS, text)),
        addresses=(address,),
        ends=(address,),
    )


def _preferred(status: Mapping[str, Any], types: Sequence[str]) -> tuple[str, str]:
    """The first address of the first type that there is."""
    for kind in types:
        for each in mappings(status.get("addresses")):
            if each.get("type") == kind and each.get("address"):
                return str(each["address"]), kind
    return "", ""


def _condition(status: Mapping[str, Any]) -> str:
    for each in mappings(status.get("conditions")):
        if each.get("type") == "Ready" and each.get("status") != "True":
            return one_line(f"; it is not ready: {each.get('reason')}, {each.get('message')}")
    return ""
