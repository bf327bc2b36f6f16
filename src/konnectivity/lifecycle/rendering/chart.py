"""The Helm chart `deploy/helm/konnectivity-agent`, made from the renderer.

The templates know the values below and nothing else; whoever needs more renders with
`konnectivity manifests`. `.Values.server.host` and `.image` are required.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from konnectivity import __version__
from konnectivity.gotext import format_duration
from konnectivity.lifecycle.objects.metadata import Object
from konnectivity.lifecycle.rendering.chart_tree import Only, Text, Tree, emit, merge
from konnectivity.lifecycle.rendering.kustomize import file_name
from konnectivity.lifecycle.rendering.render import render
from konnectivity.lifecycle.specification import sizing
from konnectivity.lifecycle.specification.spec import AgentSpec

HOST: Final = "server.host.invalid"
IMAGE: Final = "image.invalid"
NAMESPACE: Final = "namespace-of-the-release"
NETWORK: Final = "192.0.2.0/24"
BUNDLE: Final = "ca-bundle.invalid"
EXTRA: Final = "--extra-arguments"
PORT: Final = 64091
REPLICAS: Final = 64002
DRAIN: Final = 64025

BLANK: Final = AgentSpec(
    server=f"{HOST}:{PORT}",
    image=IMAGE,
    namespace=NAMESPACE,
    authentication="",
    replicas=REPLICAS,
    drain_timeout=DRAIN,
    heartbeats=False,
    extra_arguments=(EXTRA,),
    network_policy=True,
    destinations=(NETWORK,),
    monitoring=True,
)
"""A specification whose values are found again in the objects, with every option off."""

OPTIONS: Final[Mapping[str, dict[str, Any]]] = {
    'ne .Values.authentication "certificate"': {"authentication": "token"},
    'ne .Values.authentication "token"': {"authentication": "certificate"},
    ".Values.countLeases": {"count_leases": True},
    ".Values.heartbeats": {"heartbeats": True},
    ".Values.hostNetwork": {"host_network": True},
    ".Values.caBundle": {"ca_bundle": BUNDLE},
}
"""What changes the objects' shape, by the condition under which it is on."""
KINDS: Final[Mapping[str, str]] = {
    "NetworkPolicy": ".Values.networkPolicy",
    "Service": ".Values.monitoring",
    "PodMonitor": ".Values.monitoring",
    "PrometheusRule": ".Values.monitoring",
    "DaemonSet": 'eq .Values.mode "daemonset"',
    "Deployment": 'eq .Values.mode "deployment"',
    "PodDisruptionBudget": 'eq .Values.mode "deployment"',
}
"""When there is an object of a kind at all."""

TEXTS: Final = {
    HOST: '{{ required "server.host must be set" .Values.server.host }}',
    IMAGE: '{{ required "image must be set" .Values.image | quote }}',
    BUNDLE: "{{ .Values.caBundle | quote }}",
    NAMESPACE: "{{ .Release.Namespace }}",
    BLANK.heartbeat_namespace: "{{ .Values.heartbeatNamespace }}",
    str(PORT): "{{ int .Values.server.port }}",
    str(REPLICAS): "{{ int .Values.replicas }}",
    format_duration(DRAIN): "{{ int .Values.drainTimeout }}s",
    str(DRAIN + 5): "{{ add .Values.drainTimeout 5 }}",
}


def chart() -> dict[str, str]:
    """Texts of the chart by path."""
    found = {"Chart.yaml": _CHART, "values.yaml": _values()}
    for mode in ("daemonset", "deployment"):
        for item, condition in _objects(dataclasses.replace(BLANK, mode=mode)):
            name = file_name(item)
            found[f"templates/{name}"] = _template(item, condition)
    return found


def _objects(blank: AgentSpec) -> list[tuple[Tree, str]]:
    """Objects, each merged over all options, and when it is there."""
    base = _by_name(blank)
    variants = {
        condition: _by_name(dataclasses.replace(blank, **change))
        for condition, change in OPTIONS.items()
    }
    merged = merge(base, variants)
    return [
        (each.value, each.condition)
        if isinstance(each, Only)
        else (each, KINDS.get(each["kind"], ""))
        for each in merged.values()
    ]


def _by_name(spec: AgentSpec) -> dict[str, Object]:
    return {f"{each['kind']} {each['metadata']['name']}": each for each in render(spec)}


def _template(item: Tree, condition: str) -> str:
    lines = emit(_fill(item))
    if condition:
        lines = [f"{{{{- if {condition} }}}}", *lines, "{{- end }}"]
    text = "\n".join(lines) + "\n"
    for sentinel, template in TEXTS.items():
        text = text.replace(sentinel, template)
    return text


def _fill(tree: Tree, path: tuple[str, ...] = ()) -> Tree:
    """Put the values that are lists and maps in place of what was rendered."""
    if tree == EXTRA:
        return _each(".Values.extraArguments", "- {{ . | quote }}")
    if tree == {"ipBlock": {"cidr": NETWORK}}:
        return _each(".Values.destinations", "- ipBlock:", "    cidr: {{ . | quote }}")
    if path[:3] == _POD and path[-1] in ("tolerations", "nodeSelector", "resources"):
        return _or(path[-1], tree)
    if isinstance(tree, dict):
        return {name: _fill(value, (*path, name)) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_fill(value, (*path, "")) for value in tree]
    if isinstance(tree, Only):
        return Only(tree.condition, _fill(tree.value, path))
    return tree


_POD: Final = ("spec", "template", "spec")


def _each(values: str, *lines: str) -> Text:
    def at(column: int) -> list[str]:
        return [f"{{{{- range {values} }}}}", *(" " * column + line for line in lines), _END]

    return Text(at)


_END: Final = "{{- end }}"


def _or(name: str, usual: Tree) -> Text:
    """The value of that name, or what the renderer has."""

    def at(column: int) -> list[str]:
        given = f"{{{{- toYaml . | nindent {column} }}}}"
        return [f"{{{{- with .Values.{name} }}}}", given, "{{- else }}", *emit(usual, column), _END]

    return Text(at)


_CHART: Final = f"""\
apiVersion: v2
name: konnectivity-agent
description: Konnectivity agents, which connect a cluster to its control plane
type: application
version: {__version__}
appVersion: {__version__}
kubeVersion: ">=1.21.0-0"
"""


def _values() -> str:
    ladder = ", ".join(f"{most} nodes: {count}" for most, count in sizing.LADDER)
    return f"""\
# Where agents find the servers. Required.
server:
  host: ""
  port: 8091
# Container image with /proxy-agent. Required.
image: ""
# daemonset: one agent on each node. deployment: as many as replicas says.
mode: daemonset
# For mode deployment; up to {ladder}. With several zones at least 3.
replicas: {sizing.FLOOR}
# What agents show: token, certificate (in the Secret konnectivity-agent) or both.
authentication: token
# CA bundle of the servers, PEM; empty: the cluster's own CA.
caBundle: ""
# Agents count servers by their leases in kube-system.
countLeases: false
# Agents write their state to the Kubernetes API, for konnectivity status and doctor; and where.
heartbeats: true
heartbeatNamespace: {AgentSpec.heartbeat_namespace}
# Agents use their node's network.
hostNetwork: false
# Seconds that an agent which leaves waits for its tunnels.
drainTimeout: 25
# Limit the agents' traffic; needs the networks of nodes, pods and services.
networkPolicy: false
destinations: []
# Service, PodMonitor and PrometheusRule; needs the Prometheus operator.
monitoring: false
# Further flags of the agent, as --name=value.
extraArguments: []
# As in a pod's specification; empty: what suits the mode.
tolerations: []
nodeSelector: {{}}
resources: {{}}
"""
