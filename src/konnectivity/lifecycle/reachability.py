"""Whether the API server reaches the cluster's nodes: it is asked for a log of an agent's pod.

That request goes the way of every `kubectl logs`: through server, agent and kubelet. So it says
of the whole path that it works, and when it does not, in whose words.

Source: HyperShift's condition of its data plane is found in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from konnectivity.kube.client import describe, failures
from konnectivity.kube.collection import Collection, status_of
from konnectivity.kube.resources import rule
from konnectivity.lifecycle.conditions import Condition

if TYPE_CHECKING:
    from lightkube import AsyncClient

TYPE: Final = "DataPlaneReachable"
INTERVAL: Final = 60.0  # seconds; one list of pods and one line of a log
FORBIDDEN: Final = 403


async def probe(client: AsyncClient, workload: Mapping[str, Any]) -> Condition:
    """The condition of the path, by way of one pod of the agents' `workload`."""
    namespace = workload["metadata"].get("namespace") or "default"
    labels = (workload["spec"].get("selector") or {}).get("matchLabels") or {}
    pods = Collection(client, f"api/v1/namespaces/{namespace}/pods")
    try:
        found, _ = await pods.list(",".join(f"{key}={value}" for key, value in labels.items()))
    except failures() as error:
        return _unknown("pods cannot be listed", error, rule(("list",), "v1", "Pod", namespace))
    running = [each for each in found if (each.get("status") or {}).get("phase") == "Running"]
    if not running:
        message = f"{len(found)} pods of agents, none is running"
        return Condition(TYPE, status=None, reason="NoRunningAgent", message=message)
    name = min(running, key=_restarts)["metadata"]["name"]
    try:
        await pods.text(f"{name}/log", {"tailLines": "1", "container": _container(workload)})
    except failures() as error:
        status = status_of(error)
        if status is None or status[0] in (401, FORBIDDEN, 404, 429):
            remedy = f"allow get on pods/log in namespace {namespace} (RBAC)"
            return _unknown(f"log of pod {name}", error, remedy)
        message = f"log of pod {name}: {describe(error)}"
        return Condition(TYPE, status=False, reason="LogFailed", message=message)
    return Condition(TYPE, status=True, reason="LogRead", message=f"log of pod {name} was read")


def _unknown(what: str, error: Exception, remedy: str) -> Condition:
    status = status_of(error)
    hint = f"; {remedy}" if status and status[0] == FORBIDDEN else ""
    message = f"{what}: {describe(error)}{hint}"
    return Condition(TYPE, status=None, reason="CannotAsk", message=message)


def _container(workload: Mapping[str, Any]) -> str:
    return str(workload["spec"]["template"]["spec"]["containers"][0]["name"])


def _restarts(pod: Mapping[str, Any]) -> int:
    """A pod that is up for long has the most telling log path."""
    states = (pod.get("status") or {}).get("containerStatuses") or []
    return sum(int(each.get("restartCount") or 0) for each in states)
