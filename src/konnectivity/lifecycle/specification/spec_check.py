"""What is wrong with a specification, all of it at once, a line each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from typing import Final

from konnectivity.agent.options import AgentOptions
from konnectivity.flag import BOOL, Flag, flags_of
from konnectivity.gotext import quote
from konnectivity.kube.selector import check_key, check_value
from konnectivity.lifecycle.objects import policy
from konnectivity.lifecycle.objects.arguments import OWNED
from konnectivity.lifecycle.objects.pod import resources
from konnectivity.lifecycle.objects.toleration import parse as parse_toleration
from konnectivity.lifecycle.specification import bundle, sizing
from konnectivity.lifecycle.specification.spec import AgentSpec

MODES: Final = ("daemonset", "deployment")
AUTHENTICATIONS: Final = ("token", "certificate", "both")
DNS_POLICIES: Final = ("", "ClusterFirst", "ClusterFirstWithHostNet", "Default")
PORTS: Final = range(1, 65536)

_LABEL_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_OBJECT_NAME = re.compile(r"(?!.{254})[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
_PATH = re.compile(r"(metadata|spec)(\.[A-Za-z][\w-]*(\[[^\[\]]+\])?)+")
_REFERENCE = re.compile(r"\$\((\w+)\)")


def problems(spec: AgentSpec) -> list[str]:
    """All that is wrong, each line with the flag or key and what would be right."""
    return [
        *_check_server(spec),
        *_check_choices(spec),
        *_check_numbers(spec),
        *_check_names(spec),
        *_check_pairs(spec),
        *_check_pods(spec),
        *_check_policy(spec),
    ]


def _check_server(spec: AgentSpec) -> Iterator[str]:
    if not spec.server:
        yield "server must be set: host:port of the servers for agents"
    elif not spec.server_host or re.search(r"[\s/@,]", spec.server):
        yield f"server {quote(spec.server)} is not host:port"
    elif spec.server_port not in PORTS:
        yield f"server {quote(spec.server)} must have a port from 1 to 65535"
    for each in spec.server_addresses:
        if not _is(ip_address, each):
            yield f"server-addresses: {quote(each)} is not an IP address"
    if spec.server_addresses and _is(ip_address, spec.server_host):
        yield "server-addresses are for a server that is given by name"
    if not spec.image:
        yield "image must be set: the container image with /proxy-agent"
    elif re.search(r"\s", spec.image):
        yield f"image {quote(spec.image)} must not contain blanks"
    if spec.ca_bundle and (problem := bundle.problem(spec.ca_bundle)):
        yield f"ca-bundle {problem}"


def _check_choices(spec: AgentSpec) -> Iterator[str]:
    for name, value, known in (
        ("mode", spec.mode, MODES),
        ("authentication", spec.authentication, AUTHENTICATIONS),
        ("dns-policy", spec.dns_policy, DNS_POLICIES),
    ):
        if value not in known:
            yield f"{name} must be {_choice(known)}, not {quote(value)}"
    if spec.uses_token and not spec.audience:
        yield "audience must be set: tokens are made for one"
    if spec.uses_token and not spec.server_user:
        yield "server-user must be set: somebody has to review the agents' tokens"


def _check_numbers(spec: AgentSpec) -> Iterator[str]:
    for name, number in (
        ("replicas", spec.replicas),
        ("nodes", spec.nodes),
        ("zones", spec.zones),
    ):
        if number < 0:
            yield f"{name} must be >= 0, got {number}"
    if spec.replicas > 0 and spec.mode == "daemonset":
        yield "replicas are for mode deployment; a daemonset has an agent on each node"
    if spec.drain_timeout <= 0:
        yield "drain-timeout must be > 0: Kubernetes waits for no pod for ever"
    yield from _check_resources(spec)


def _check_resources(spec: AgentSpec) -> Iterator[str]:
    sound = True
    for name, text in (
        ("cpu-request", spec.cpu_request),
        ("memory-request", spec.memory_request),
        ("memory-limit", spec.memory_limit),
    ):
        if text and not _is(sizing.quantity, text):
            sound = False
            yield f"{name} {quote(text)} is not a quantity such as 50m or 64Mi"
    if not sound:
        return
    found = resources(spec)
    request, limit = found["requests"]["memory"], found["limits"]["memory"]
    if sizing.quantity(request) > sizing.quantity(limit):
        yield f"memory-limit {limit} must not be below memory-request {request}"


def _check_names(spec: AgentSpec) -> Iterator[str]:
    for name, text in (
        ("namespace", spec.namespace),
        ("lease-namespace", spec.lease_namespace),
        ("heartbeat-namespace", spec.heartbeat_namespace),
        ("name", spec.name),
    ):
        if not _LABEL_NAME.fullmatch(text):
            yield f"{name} {quote(text)} must be at most 63 of a-z, 0-9 and -, not - at its ends"
    objects = [("image-pull-secrets", each) for each in spec.image_pull_secrets]
    objects += [("priority-class", spec.priority_class)] if spec.priority_class else []
    objects += [("certificate-secret", spec.certificate_secret)] if spec.uses_certificate else []
    for name, text in objects:
        if not _OBJECT_NAME.fullmatch(text):
            yield f"{name}: {quote(text)} is not the name of an object"


def _check_pairs(spec: AgentSpec) -> Iterator[str]:
    for name, texts in (
        ("node-selector", spec.node_selector),
        ("labels", spec.labels),
        ("selector", spec.selector),
    ):
        for text in texts:
            key, _, value = text.partition("=")
            try:
                check_key(key)
                check_value(key, value)
            except ValueError as error:
                yield f"{name}: {quote(text)} is not key=value: {error}"
    for text in spec.environment:
        if not _VARIABLE.fullmatch(text):
            yield f"environment: {quote(text)} is not NAME=value"
        elif text.upper().startswith("HTTPS_PROXY=") and not _is(policy.proxy_port, text[12:]):
            yield "environment: HTTPS_PROXY must be a URL such as http://proxy.example.com:3128"


def _check_pods(spec: AgentSpec) -> Iterator[str]:
    for text in spec.tolerations:
        try:
            parse_toleration(text)
        except ValueError as error:
            yield f"tolerations: {quote(text)}: {error}"
    for name in _REFERENCE.findall(spec.identifiers):
        if name not in ("POD_NAME", "NODE_NAME", "NODE_IP"):
            yield f"identifiers: $({name}) is none of $(NODE_NAME), $(NODE_IP), $(POD_NAME)"
    for text in spec.overrides:
        if not _PATH.fullmatch(text):
            yield f"overrides: {quote(text)} is not a path such as spec.template.spec.tolerations"
    yield from _check_arguments(spec)


def _check_arguments(spec: AgentSpec) -> Iterator[str]:
    known: dict[str, Flag] = {}
    for each in flags_of(AgentOptions):
        known |= {f"--{name}": each for name in (each.name, each.old_name) if name}
        known |= {f"-{each.short}": each} if each.short else {}
    for text in spec.extra_arguments:
        name, given, value = text.partition("=")
        found = known.get(name)
        if name in OWNED:
            yield f"extra-arguments: {name} follows from the other settings"
        elif not found:
            yield f"extra-arguments: {quote(text)} is no flag of the agent, as --name=value"
        elif not given and found.kind is not BOOL:
            yield f"extra-arguments: {name} needs its value behind a ="
        elif given:
            try:
                found.kind.parse(value)
            except ValueError as error:
                yield f"extra-arguments: {quote(text)}: {error}"


def _check_policy(spec: AgentSpec) -> Iterator[str]:
    for each in spec.destinations:
        if "/" not in each or not _is(ip_network, each):
            yield f"destinations: {quote(each)} is not a network such as 10.0.0.0/8"
    if spec.network_policy and not spec.destinations:
        yield "network-policy needs destinations: the networks of nodes, pods and services"
    if spec.network_policy and spec.host_network:
        yield "network-policy has no effect on pods with host-network: leave one of them out"


def _is(kind: Callable[[str], object], text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def _choice(known: tuple[str, ...]) -> str:
    named = [each for each in known if each]
    return f"{', '.join(named[:-1])} or {named[-1]}"
