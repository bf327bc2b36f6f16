"""A cluster in which agents are installed as they should be, for faults to be put into."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.peers.kube_api import KubeApi

from konnectivity.kube.client import connect
from konnectivity.kube.leases import format_time
from konnectivity.lifecycle.reconciling.apply import Applier
from konnectivity.lifecycle.reconciling.plan import key_of, plan
from konnectivity.lifecycle.rendering.render import render
from konnectivity.lifecycle.specification.spec import AgentSpec

IMAGE = "registry.example.com/konnectivity:1.0"
NAMESPACE = "kube-system"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
POLICIES = f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies"
EVENTS = f"/api/v1/namespaces/{NAMESPACE}/events"
AGENT = "konnectivity-agent-node-a"
"""The id of an agent that is the name of its pod."""
LABELS = {"k8s-app": "konnectivity-agent"}


class Installation:
    """Agents on nodes of a small API server, as a manager has written them."""

    def __init__(self, api: KubeApi, folder: Path, **spec: Any) -> None:
        self.api = api
        self.folder = folder
        settings = {"server": "203.0.113.7:8091", "image": IMAGE, **spec}
        self.spec = AgentSpec(**settings)
        self.file = folder / "agents.toml"
        lines = []
        for key, value in settings.items():
            shown = f'"{value}"' if isinstance(value, str) else str(value).lower()
            lines.append(f"{key.replace('_', '-')} = {shown}\n")
        self.file.write_text("".join(lines))
        self.kubeconfig = str(api.kubeconfig(folder))

    @property
    def path(self) -> str:
        """Where the workload is."""
        kind = "daemonsets" if self.spec.is_daemonset else "deployments"
        return f"/apis/apps/v1/namespaces/{NAMESPACE}/{kind}/konnectivity-agent"

    async def make(self, nodes: Mapping[str, str]) -> None:
        """Apply all objects, and run an agent on each of `nodes` (address by name)."""
        client = connect(self.kubeconfig, qps=-1.0)
        desired = render(self.spec)
        try:
            applier = Applier(client)
            for action in plan(desired, {key_of(item): None for item in desired}):
                await applier.perform(action)
        finally:
            await client.close()
        for space in ("default", NAMESPACE):
            labels = {"kubernetes.io/metadata.name": space}
            self.api.put(f"/api/v1/namespaces/{space}", {"metadata": {"labels": labels}})
        for name, address in nodes.items():
            self.node(name, address)
            self.pod(name, address)
        self.status(len(nodes), len(nodes))

    def node(self, name: str, address: str, *, port: int = 10250, zone: str = "") -> None:
        self.api.put(
            f"/api/v1/nodes/{name}",
            {
                "metadata": {"labels": {"topology.kubernetes.io/zone": zone} if zone else {}},
                "status": {
                    "addresses": [{"type": "InternalIP", "address": address}],
                    "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
                },
            },
        )

    def pod(self, node: str, address: str, *, name: str = "", **status: Any) -> None:
        """A pod that is ready, but for what `status` says of its container."""
        ready = not status
        workload = self.api.get(self.path) or {}
        condition = {"type": "Ready", "status": "True" if ready else "False"}
        container = {"name": "konnectivity-agent", "restartCount": 0, "ready": ready, **status}
        self.api.put(
            f"{PODS}/{name or f'konnectivity-agent-{node}'}",
            {
                "metadata": {"labels": workload["spec"]["template"]["metadata"]["labels"]},
                "spec": {**workload["spec"]["template"]["spec"], "nodeName": node},
                "status": {
                    "phase": "Running",
                    "podIP": address,
                    "hostIP": address,
                    "conditions": [condition],
                    "containerStatuses": [container],
                },
            },
        )

    def status(self, desired: int, ready: int, *, updated: int | None = None) -> None:
        """What the workload's controller says."""
        item = self.api.get(self.path) or {}
        updated = desired if updated is None else updated
        item["status"] = (
            {
                "desiredNumberScheduled": desired,
                "numberReady": ready,
                "numberAvailable": ready,
                "updatedNumberScheduled": updated,
            }
            if self.spec.is_daemonset
            else {
                "replicas": desired,
                "readyReplicas": ready,
                "availableReplicas": ready,
                "updatedReplicas": updated,
            }
        )
        self.api.put(self.path, item)

    def event(self, reason: str, message: str, *, count: int = 1, warning: bool = True) -> None:
        """An Event of the manager about the workload."""
        self.api.put(
            f"{EVENTS}/{reason.lower()}",
            {
                "involvedObject": {"kind": "DaemonSet", "name": "konnectivity-agent"},
                "reason": reason,
                "message": message,
                "type": "Warning" if warning else "Normal",
                "source": {"component": "konnectivity-manager"},
                "lastTimestamp": format_time(time.time()),
                "count": count,
            },
        )
