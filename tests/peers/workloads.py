"""Stand-ins for the DaemonSet and Deployment controllers on the fixture API server.

    async with Workloads(api, ToldKubelet(), nodes=["n1", "n2"]):

Pods are made, replaced and removed by the rules of rolling updates: `maxUnavailable`, `maxSurge`,
`minReadySeconds`, `OnDelete`, `paused`; kubelet.py runs them. `moves` tells in which order.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from typing import Any, Self

from tests.peers.kube_api import KubeApi
from tests.peers.kube_generation import TEMPLATE_GENERATION
from tests.peers.kubelet import Kubelet

Object = dict[str, Any]

REVISION = "deployment.kubernetes.io/revision"
HASH = "pod-template-hash"
TICK = 0.02


class Workloads:
    """All workloads of one namespace. `speed` divides `minReadySeconds`."""

    def __init__(
        self,
        api: KubeApi,
        kubelet: Kubelet,
        *,
        nodes: Sequence[str],
        namespace: str = "kube-system",
        speed: float = 1.0,
    ) -> None:
        self.nodes = list(nodes)
        self.moves: list[str] = []
        """`start POD`, `ready POD`, `stop POD`, `gone POD`, as they happened."""
        self.made = 0
        """Pods so far; the name of each ends with its number."""
        self.most_away = 0
        """Nodes without an available agent of a DaemonSet that once had one, at most."""
        self._api = api
        self._kubelet = kubelet
        self._root = f"/apis/apps/v1/namespaces/{namespace}"
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._speed = speed
        self._ready_since: dict[str, float] = {}
        self._stopping: dict[str, asyncio.Task[None]] = {}
        self._known: dict[str, Object] = {}
        self._served: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._api.log_of = self._log
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})
        for task in self._stopping.values():
            task.cancel()
        if self._stopping:
            await asyncio.wait(self._stopping.values())
        if not self._task.cancelled():
            self._task.result()

    @property
    def pods(self) -> list[Object]:
        """All pods, in the order of their making."""
        found = self._api.items(self._pods)
        return sorted(found, key=lambda pod: int(pod["metadata"]["name"].rpartition("-")[2]))

    def _log(self, name: str, lines: int) -> str:
        pod = self._known.get(name)
        return self._kubelet.log(pod, lines) if pod else ""

    async def _run(self) -> None:
        while True:
            await self._run_pods()
            for daemons in self._api.items(f"{self._root}/daemonsets"):
                await self._keep_daemons(daemons)
            for deployment in self._api.items(f"{self._root}/deployments"):
                await self._keep_deployment(deployment)
            await self._collect()
            await asyncio.sleep(TICK)

    # Kubelets

    async def _run_pods(self) -> None:
        there = {pod["metadata"]["name"]: pod for pod in self.pods}
        for name in self._known.keys() - there.keys() - self._stopping.keys():
            self._begin_to_stop(self._known[name])  # deleted by somebody, at once
        for name, pod in there.items():
            if pod["metadata"].get("deletionTimestamp"):
                if name not in self._stopping:
                    self._begin_to_stop(pod)
                continue
            state = await self._kubelet.state(pod)
            self._note_ready(pod, state)
            self._put(pod, state)

    def _note_ready(self, pod: Object, state: Object) -> None:
        name = pod["metadata"]["name"]
        ready = any(
            each["type"] == "Ready" and each["status"] == "True" for each in state["conditions"]
        )
        if ready and name not in self._ready_since:
            self._ready_since[name] = time.monotonic()
            self.moves.append(f"ready {name}")
        elif not ready:
            self._ready_since.pop(name, None)

    def _put(self, pod: Object, state: Object) -> None:
        if pod.get("status") != state:
            current = self._api.get(f"{self._pods}/{pod['metadata']['name']}")
            if current is not None:
                self._api.put(
                    f"{self._pods}/{pod['metadata']['name']}", current | {"status": state}
                )

    def _begin_to_stop(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        self.moves.append(f"stop {name}")
        self._ready_since.pop(name, None)
        self._stopping[name] = asyncio.create_task(self._stop(pod))

    async def _stop(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        await self._kubelet.stop(pod)
        self.moves.append(f"gone {name}")
        del self._known[name], self._stopping[name]
        if self._api.get(f"{self._pods}/{name}") is not None:
            self._api.remove(f"{self._pods}/{name}")

    # Pods

    async def _make(self, owner: Object, template: Object, node: str, **labels: str) -> None:
        self.made += 1
        name = f"{owner['metadata']['name']}-{self.made}"
        meta = {
            "name": name,
            "creationTimestamp": _now(),
            "labels": {**template["metadata"]["labels"], **labels},
            "ownerReferences": [_reference(owner)],
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": meta,
            "spec": {**template["spec"], "nodeName": node},
        }
        pod = self._api.put(f"{self._pods}/{name}", pod)
        self._known[name] = pod
        self.moves.append(f"start {name}")
        await self._kubelet.start(pod)

    def _dismiss(self, pod: Object) -> None:
        """Ask a pod to go."""
        pod["metadata"]["deletionTimestamp"] = _now()
        self._api.put(f"{self._pods}/{pod['metadata']['name']}", pod)

    def _owned(self, owner: Object) -> list[Object]:
        uid = owner["metadata"]["uid"]
        return [pod for pod in self.pods if pod["metadata"]["ownerReferences"][0]["uid"] == uid]

    def _is_available(self, pod: Object, owner: Object) -> bool:
        since = self._ready_since.get(pod["metadata"]["name"])
        wait = owner["spec"].get("minReadySeconds", 0) / self._speed
        return since is not None and time.monotonic() - since >= wait

    # DaemonSets

    async def _keep_daemons(self, daemons: Object) -> None:
        spec, meta = daemons["spec"], daemons["metadata"]
        generation = meta["annotations"][TEMPLATE_GENERATION]
        pods = self._owned(daemons)
        by_node = {pod["spec"]["nodeName"]: pod for pod in pods}
        for node in self.nodes:
            if node not in by_node:
                labels = {"pod-template-generation": generation}
                await self._make(daemons, spec["template"], node, **labels)
        for node in by_node.keys() - set(self.nodes):
            self._dismiss_once([by_node[node]])
        live = _staying(pods)
        available = [pod for pod in live if self._is_available(pod, daemons)]
        self._served |= {pod["spec"]["nodeName"] for pod in available}
        away = self._served - {pod["spec"]["nodeName"] for pod in available}
        self.most_away = max(self.most_away, len(away))
        new = [pod for pod in live if _label(pod, "pod-template-generation") == generation]
        if spec.get("updateStrategy", {}).get("type") != "OnDelete":
            self._roll_daemons(daemons, [pod for pod in live if pod not in new], available)
        self._put_status(
            f"{self._root}/daemonsets/{meta['name']}",
            {
                "observedGeneration": meta["generation"],
                "desiredNumberScheduled": len(self.nodes),
                "currentNumberScheduled": len(live),
                "updatedNumberScheduled": len(new),
                "numberReady": sum(pod["metadata"]["name"] in self._ready_since for pod in live),
                "numberAvailable": len(available),
            },
        )

    def _roll_daemons(self, daemons: Object, old: list[Object], available: list[Object]) -> None:
        rolling = daemons["spec"].get("updateStrategy", {}).get("rollingUpdate") or {}
        room = rolling.get("maxUnavailable", 1) - (len(self.nodes) - len(available))
        dead = [pod for pod in old if pod not in available]
        working = [pod for pod in old if pod in available]
        self._dismiss_once([*dead, *working[: max(0, room)]])

    # Deployments

    async def _keep_deployment(self, deployment: Object) -> None:
        spec, meta = deployment["spec"], deployment["metadata"]
        sets = [
            each
            for each in self._api.items(f"{self._root}/replicasets")
            if each["metadata"]["ownerReferences"][0]["uid"] == meta["uid"]
        ]
        current = next((s for s in sets if s["spec"]["template"] == spec["template"]), None)
        if current is None and not (spec.get("paused") and sets):
            current = self._make_set(deployment, len(sets) + 1)
            sets.append(current)
        pods = [pod for each in sets for pod in self._owned(each)]
        live = _staying(pods)
        new = [pod for pod in live if current and _owner(pod) == current["metadata"]["uid"]]
        available = [pod for pod in live if self._is_available(pod, deployment)]
        wanted = spec.get("replicas", 1)
        if spec.get("paused"):
            base = current if new or current is None else sets[0]
            await self._scale(base or sets[-1], live, wanted)
        elif current is not None:
            await self._roll_deployment(deployment, current, live, new, available)
        live = [pod for pod in live if "deletionTimestamp" not in pod["metadata"]]
        self._put_status(
            f"{self._root}/deployments/{meta['name']}",
            {
                "observedGeneration": meta["generation"],
                "replicas": len(live),
                "updatedReplicas": sum(pod in live for pod in new),
                "availableReplicas": sum(pod in live for pod in available),
            },
        )

    async def _roll_deployment(
        self,
        deployment: Object,
        current: Object,
        live: list[Object],
        new: list[Object],
        available: list[Object],
    ) -> None:
        rolling = deployment["spec"].get("strategy", {}).get("rollingUpdate") or {}
        wanted = deployment["spec"].get("replicas", 1)
        old = [pod for pod in live if pod not in new]
        surge, away = rolling.get("maxSurge", 1), rolling.get("maxUnavailable", 0)
        if len(new) > wanted:
            self._dismiss_once(new[wanted:])
        elif len(new) < wanted and len(live) < wanted + surge:
            await self._make_of(current, live)
        if old:
            dead = [pod for pod in old if pod not in available]
            working = [pod for pod in old if pod in available]
            room = max(0, len(available) - (wanted - away))
            self._dismiss_once([*dead, *working[:room]] if len(live) > wanted - away else [])

    async def _scale(self, of: Object, live: list[Object], wanted: int) -> None:
        if len(live) < wanted:
            await self._make_of(of, live)
        self._dismiss_once(live[wanted:])

    async def _make_of(self, replica_set: Object, live: Iterable[Object]) -> None:
        taken = [pod["spec"]["nodeName"] for pod in live]
        node = min(self.nodes, key=taken.count)
        mark = {HASH: replica_set["metadata"]["labels"][HASH]}
        await self._make(replica_set, replica_set["spec"]["template"], node, **mark)

    def _make_set(self, deployment: Object, revision: int) -> Object:
        spec, meta = deployment["spec"], deployment["metadata"]
        text = json.dumps(spec["template"], sort_keys=True).encode()
        mark = hashlib.sha256(text).hexdigest()[:10]
        path = f"{self._root}/deployments/{meta['name']}"
        item = self._api.get(path) or deployment
        item["metadata"].setdefault("annotations", {})[REVISION] = str(revision)
        self._api.put(path, item)
        name = f"{meta['name']}-{mark}"
        return self._api.put(
            f"{self._root}/replicasets/{name}",
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": {
                    "name": name,
                    "labels": {**spec["template"]["metadata"]["labels"], HASH: mark},
                    "annotations": {REVISION: str(revision)},
                    "ownerReferences": [_reference(deployment)],
                },
                "spec": {"template": spec["template"]},
            },
        )

    # Both

    def _dismiss_once(self, pods: Iterable[Object]) -> None:
        for pod in pods:
            if "deletionTimestamp" not in pod["metadata"]:
                self._dismiss(pod)

    def _put_status(self, path: str, status: Object) -> None:
        item = self._api.get(path)
        if item is not None and item.get("status") != status:
            self._api.put(path, item | {"status": status})

    async def _collect(self) -> None:
        """The garbage collector: what has lost its owner goes."""
        for kind in ("replicasets", "pods"):
            root = self._pods if kind == "pods" else f"{self._root}/{kind}"
            for item in self._api.items(root):
                uid = item["metadata"]["ownerReferences"][0]["uid"]
                if uid in self._uids():
                    continue
                if kind == "pods":
                    self._dismiss_once([item])
                else:
                    self._api.remove(f"{root}/{item['metadata']['name']}")

    def _uids(self) -> set[str]:
        kinds = ("daemonsets", "deployments", "replicasets")
        found = (item for kind in kinds for item in self._api.items(f"{self._root}/{kind}"))
        return {item["metadata"]["uid"] for item in found}


def _staying(pods: Iterable[Object]) -> list[Object]:
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def _label(pod: Object, name: str) -> str:
    return str(pod["metadata"]["labels"].get(name))


def _owner(pod: Object) -> str:
    return str(pod["metadata"]["ownerReferences"][0]["uid"])


def _reference(owner: Object) -> Object:
    return {"kind": owner.get("kind", ""), "name": owner["metadata"]["name"]} | {
        "uid": owner["metadata"]["uid"]
    }


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
