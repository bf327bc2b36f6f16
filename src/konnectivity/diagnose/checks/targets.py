"""4xx: from the agents on: kubelets, webhooks, API services, services and pods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from konnectivity.diagnose.case import Case, TargetDial
from konnectivity.diagnose.check import About, Check, Finding, Layer, Source
from konnectivity.diagnose.surroundings import Surroundings, labels_of, mappings
from konnectivity.gotext import one_line

MOST: Final = 20
POLICY: Final = "destination not allowed by the agent's policy"
NO_AGENT: Final = ("no agent available", "no backend available", "503")

_WEBHOOKS: Final = ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")


def _cause(error: str) -> str:
    """What the words of a failed dial mean for people."""
    text = error.lower()
    for words, cause in (
        ("connection refused", "refused: nothing listens there"),
        ("no such host", "its name does not resolve at the agent"),
        ("no route to host", "unreachable: the agent has no route"),
        ("unreachable", "unreachable: the agent has no route"),
        ("certificate", "TLS: the certificate does not fit"),
        ("i/o timeout", "timed out: a firewall, a security group or a network policy"),
        ("timed out", "timed out: a firewall, a security group or a network policy"),
        ("time", "timed out: a firewall, a security group or a network policy"),
    ):
        if words in text:
            return cause
    return "the dial failed"


def _dials(case: Case, *kinds: str, remedy: str) -> Iterator[Finding]:
    for each in case.dials:
        if each.kind not in kinds or not each.error or each.stage == "frontend":
            continue
        if is_policy(each):
            continue
        no_agent = is_without_agent(each)
        cause = "no agent is connected" if no_agent else _cause(each.error)
        yield Finding(
            subject=one_line(f"{each.kind} {each.name} at {each.address}"),
            evidence=cause,
            said_by=(
                one_line(f"dial through {each.frontend}: {each.error}"),
                *_agents_words(case, each),
            ),
            remedy=remedy.format(address=each.address, name=each.name),
            about=(each.kind, each.name),
            under=_hops(case) if no_agent else (("egress",),),
        )


def is_policy(dial: TargetDial) -> bool:
    return POLICY in dial.error


def is_without_agent(dial: TargetDial) -> bool:
    return any(each in dial.error.lower() for each in NO_AGENT)


def _hops(case: Case) -> tuple[About, ...]:
    """What may be why no agent is there."""
    return (("agents",), *(each.hop for each in case.attempts if not each.worked))


def _agents_words(case: Case, dial: TargetDial) -> list[str]:
    """The other viewpoint: which agent tried, as the server remembers."""
    for server, status in case.statuses:
        for each in status.dials.recent_failures:
            if each.destination == dial.address:
                return [
                    one_line(f"server {server.name}: agent {each.peer or '(none)'}: {each.error}")
                ]
    return []


def _kubelets(case: Case) -> Iterator[Finding]:
    return _dials(
        case,
        "kubelet",
        remedy="allow TCP to {address} from the agents' nodes and pods: host firewall, security "
        "group, network policy; on node {name}: systemctl status kubelet",
    )


def _backends(case: Case) -> Iterator[Finding]:
    found = list(_configured(case.surroundings)) if case.surroundings else []
    broken = {each.about for each in found}
    yield from found[:MOST]
    for each in _dials(
        case,
        "webhook",
        "apiservice",
        remedy="konnectivity explain says where it breaks; look at the network policies of the "
        "backend's namespace, and at its targetPort and caBundle",
    ):
        if each.about not in broken:
            yield each


def _configured(around: Surroundings) -> Iterator[Finding]:
    """What configurations, services and endpoints say, without any dial."""
    for kind, name, reference, _ in backends(around):
        namespace, service = str(reference.get("namespace")), str(reference.get("name"))
        port = reference.get("port") or 443
        why, remedy = broken_service(around, namespace, service, port)
        if why:
            yield Finding(
                subject=one_line(f"{kind} {name} → service {namespace}/{service}:{port}"),
                evidence=one_line(why),
                said_by=("Kubernetes API: configuration, services and endpoints",),
                remedy=remedy,
                about=(kind, name),
            )


def backends(around: Surroundings) -> Iterator[tuple[str, str, Mapping[str, Any], str]]:
    """Kind, name, service reference and CA bundle (base64) of all that kube-apiserver calls."""
    for kind in _WEBHOOKS:
        for item in around.of(kind):
            for hook in mappings(item.get("webhooks")):
                config = hook.get("clientConfig") or {}
                if isinstance(config.get("service"), Mapping):
                    name = f"{item['metadata']['name']}/{hook.get('name')}"
                    yield "webhook", name, config["service"], str(config.get("caBundle") or "")
    for item in around.of("APIService"):
        spec = item.get("spec") or {}
        if isinstance(spec.get("service"), Mapping):
            name = str(item["metadata"]["name"])
            yield "apiservice", name, spec["service"], str(spec.get("caBundle") or "")


def broken_service(around: Surroundings, namespace: str, name: str, port: int) -> tuple[str, str]:
    """Why a service cannot serve, and what to do; empty if nothing is to be seen."""
    if not around.knows("Service"):
        return "", ""
    where = f"kubectl -n {namespace}"
    service = around.named("Service", name, namespace)
    if service is None:
        return "the service does not exist", f"{where} get service {name}; or delete what names it"
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return "", ""
    ports = [each.get("port") for each in mappings(spec.get("ports"))]
    if port not in ports:
        shown = ", ".join(map(str, ports)) or "none"
        return f"the service has no port {port}, but {shown}", f"{where} edit service {name}"
    slices = [
        each
        for each in around.of("EndpointSlice")
        if each["metadata"].get("namespace") == namespace
        and labels_of(each).get("kubernetes.io/service-name") == name
    ]
    if not around.knows("EndpointSlice") or any(map(_is_ready, slices)):
        return "", ""
    return (
        "no endpoint of the service is ready: its pods are missing or not ready",
        f"{where} get pods,endpointslices -l kubernetes.io/service-name={name}",
    )


def _is_ready(item: Mapping[str, Any]) -> bool:
    return any(
        (each.get("conditions") or {}).get("ready") is not False and each.get("addresses")
        for each in mappings(item.get("endpoints"))
    )


def _ranges(case: Case) -> Iterator[Finding]:
    return _dials(
        case,
        "service",
        "pod",
        remedy="look whether kube-proxy and the network plugin run on the agents' nodes; agents "
        "with --host-network need both",
    )


def _destinations(case: Case) -> Iterator[Finding]:
    """Refusals of the agents' own policy: dials of this run, and what servers remember."""
    refused = {
        each.address: (each.error, f"dial through {each.frontend}")
        for each in case.dials
        if each.error and is_policy(each)
    }
    for server, status in case.statuses:
        for each in status.dials.recent_failures:
            if POLICY in each.error:
                refused.setdefault(each.destination, (each.error, f"server {server.name}"))
    for address, (error, witness) in list(refused.items())[:MOST]:
        yield Finding(
            subject=one_line(address),
            evidence="the agent's destination policy does not allow it",
            said_by=(one_line(f"{witness}: {error}"),),
            remedy=one_line(
                f"if it belongs to the cluster, add {address} to the agents' --allow-destinations"
            ),
            about=("destination", address),
        )


_NO_WAY: Final = (
    "KNC101",
    "KNC102",
    "KNC104",
    "KNC107",
    "KNC302",
    "KNC203",
    "KNC204",
    "KNC305",
    "KNC201",
)

CHECKS: Final = (
    Check(
        code="KNC404",
        title="The agents' destination policy allows what is asked for",
        layer=Layer.TARGETS,
        needs=(Source.SERVERS, Source.DIALS),
        evaluate=_destinations,
    ),
    Check(
        code="KNC403",
        title="Agents reach services and pods",
        layer=Layer.TARGETS,
        needs=(Source.DIALS,),
        evaluate=_ranges,
        blocked_by=_NO_WAY,
    ),
    Check(
        code="KNC401",
        title="Kubelets answer through the tunnel",
        layer=Layer.TARGETS,
        needs=(Source.DIALS,),
        evaluate=_kubelets,
        blocked_by=_NO_WAY,
    ),
    Check(
        code="KNC402",
        title="Webhooks and API services can be reached",
        layer=Layer.TARGETS,
        needs=(Source.CLUSTER, Source.DIALS),
        evaluate=_backends,
        blocked_by=(*_NO_WAY, "KNC403"),
        unknown=lambda case: case.unread("Service", "EndpointSlice", *_WEBHOOKS, "APIService"),
    ),
)
