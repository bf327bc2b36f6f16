"""From a service to where packets end: the links `service` and `endpoints`. Pure.

Source: Kubernetes, Service and EndpointSlice (discovery.k8s.io/v1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from konnectivity.diagnose.case import Case
from konnectivity.diagnose.checks.targets import broken_service
from konnectivity.diagnose.explain.chain import Link, State
from konnectivity.diagnose.pods import matches, pod_facts
from konnectivity.diagnose.surroundings import Surroundings, labels_of, mappings
from konnectivity.net.address import join_host_port

SHOWN: Final = 3
MOST: Final = 5
"""Endpoints that are looked at."""

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pods:
    """Pods of some namespaces by `namespace/name`; `unread` says why others were not read.

    `policies` are the network policies of those namespaces whose policies could be read.
    """

    by_name: Mapping[str, Object] = field(default_factory=dict)
    namespaces: frozenset[str] = frozenset()
    unread: str = ""
    policies: Mapping[str, Sequence[Object]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A service as others name it."""

    namespace: str
    name: str
    port: int

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}:{self.port}"


@dataclass(frozen=True, slots=True)
class Way:
    """What is behind a service; the fields are those of `Callee`."""

    links: tuple[Link, ...]
    addresses: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address behind a service, as its slices have it."""

    address: str
    ready: bool
    node: str


def behind(case: Case, where: Reference, pods: Pods, *, by_endpoint: bool) -> Way:
    """`by_endpoint`: kube-apiserver dials endpoints and not the service's address."""
    around = case.surroundings
    if around is None or not around.knows("Service"):
        text = case.unread("Service") or "services cannot be read"
        return Way((Link("service", State.UNKNOWN, text),))
    service = around.named("Service", where.name, where.namespace)
    spec = (service or {}).get("spec") or {}
    if spec.get("type") == "ExternalName":
        address = join_host_port(str(spec.get("externalName")), where.port)
        text = f"{where} stands for {address}, whose name the agent looks up"
        return Way((Link("service", State.WORKS, text),), (address,), (address,))
    found = list(_endpoints(around, where, spec))
    why, remedy = broken_service(around, where.namespace, where.name, where.port)
    if why and (service is None or not _has_port(spec, where.port)):
        return Way((Link("service", State.BROKEN, f"{where}: {why}", remedy),))
    host = str(spec.get("clusterIP") or "")
    if host in ("", "None") and not by_endpoint:
        text = f"{where} is headless, and kube-apiserver dials the addresses of services"
        remedy = "give it an address; or --enable-aggregator-routing of kube-apiserver"
        return Way((Link("service", State.BROKEN, text, remedy),))
    ready = [each for each in found if each.ready]
    ends = tuple(each.address for each in ready[:MOST])
    addresses = ends if by_endpoint else (join_host_port(host, where.port),)
    links = (
        Link("service", State.WORKS, f"{where} at {', '.join(addresses[:SHOWN]) or host}"),
        _endpoint_link(case, where, spec, found, pods, remedy),
    )
    return Way(links, addresses, ends)


def _endpoint_link(
    case: Case,
    where: Reference,
    spec: Object,
    found: list[Endpoint],
    pods: Pods,
    remedy: str,
) -> Link:
    around = case.surroundings
    if around is None or not around.knows("EndpointSlice"):
        text = case.unread("EndpointSlice") or "this API has no EndpointSlice v1"
        return Link("endpoints", State.UNKNOWN, text)
    ready = [each for each in found if each.ready]
    if ready:
        shown = ", ".join(
            f"{each.address}{f' on {each.node}' if each.node else ''}" for each in ready[:SHOWN]
        )
        more = f" and {len(ready) - SHOWN} more" if len(ready) > SHOWN else ""
        rest = f"; {len(found) - len(ready)} not ready" if len(found) > len(ready) else ""
        return Link("endpoints", State.WORKS, f"{shown}{more}{rest}")
    if not found and any(map(_has_addresses, _slices(around, where))):
        text = f"no pod has the targetPort that {where} stands for, so no endpoint has its port"
        look = f"kubectl -n {where.namespace} get service {where.name} -o yaml"
        return Link("endpoints", State.BROKEN, text, look)
    return Link("endpoints", State.BROKEN, _why_none(where, spec, found, pods), remedy)


def _why_none(where: Reference, spec: Object, found: list[Endpoint], pods: Pods) -> str:
    """Why no endpoint is ready."""
    selector = spec.get("selector")
    if not selector:
        return f"none is ready; {where} has no selector, so somebody must write its EndpointSlices"
    shown = ",".join(f"{key}={value}" for key, value in selector.items())
    own = [
        pod_facts(item)
        for name, item in pods.by_name.items()
        if name.startswith(f"{where.namespace}/")
        and matches({"matchLabels": selector}, labels_of(item))
    ]
    if not own and not found:
        return f"none: no pod of {where.namespace} has the labels {shown}"
    reasons = "; ".join(f"{each.name}: {each.reason or 'ready'}" for each in own[:SHOWN])
    return f"none of {len(own) or len(found)} is ready{f': {reasons}' if reasons else ''}"


def _has_port(spec: Object, port: int) -> bool:
    return any(each.get("port") == port for each in mappings(spec.get("ports")))


def _endpoints(around: Surroundings, where: Reference, spec: Object) -> Iterator[Endpoint]:
    """The endpoints for one port: slices name ports as the service does."""
    ports = [each for each in mappings(spec.get("ports")) if each.get("port") == where.port]
    name = ports[0].get("name") if ports else None
    for item in _slices(around, where):
        port = _port(item, name, default=where.port)
        for each in mappings(item.get("endpoints")) if port else ():
            conditions = each.get("conditions") or {}
            for address in (each.get("addresses") or ())[:1]:
                yield Endpoint(
                    address=join_host_port(str(address), port),
                    ready=conditions.get("ready") is not False,
                    node=str(each.get("nodeName") or ""),
                )


def _slices(around: Surroundings, where: Reference) -> Iterator[Object]:
    for item in around.of("EndpointSlice"):
        if (
            item["metadata"].get("namespace") == where.namespace
            and labels_of(item).get("kubernetes.io/service-name") == where.name
        ):
            yield item


def _has_addresses(item: Object) -> bool:
    return any(each.get("addresses") for each in mappings(item.get("endpoints")))


def _port(item: Object, name: object, *, default: int) -> int:
    """The number that the slice has for a port's name; 0 if it has none."""
    ports = list(mappings(item.get("ports")))
    if not ports:
        return default
    for each in ports:
        if (each.get("name") or "") == (name or ""):
            return int(each.get("port") or default)
    return 0
