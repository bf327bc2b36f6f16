"""A cluster of two nodes whose agents run as a test says, and are replaced in turn."""

from __future__ import annotations

from typing import Any

from tests.peers.kube_api import KubeApi
from tests.peers.kubelet import ToldKubelet, status
from tests.peers.workloads import Workloads

NODES = ("node-1", "node-2")


class Rollouts(Workloads):
    """What takes seconds in a cluster takes a moment."""

    def __init__(self, api: KubeApi) -> None:
        self.kubelet = ToldKubelet()
        super().__init__(api, self.kubelet, nodes=NODES, speed=1000)

    @property
    def names(self) -> list[str]:
        """The agents that have not been told to go."""
        return [
            pod["metadata"]["name"]
            for pod in self.pods
            if "deletionTimestamp" not in pod["metadata"]
        ]

    def new_pods_wait(self, reason: str, message: str) -> None:
        """From now on no new pod starts."""
        old = set(self.names)
        waiting = {"reason": reason, "message": message}

        def judge(pod: dict[str, Any]) -> dict[str, Any]:
            if pod["metadata"]["name"] in old:
                return status(ready=True)
            return status(ready=False, waiting=waiting)

        self.kubelet.judge = judge
