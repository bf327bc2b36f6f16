"""Whether the API server reaches the cluster's nodes: it is asked for a log of an agent's pod.

That request goes the way of every `kubectl logs`: through server, agent and kubelet. So it says
of the whole path that it works, and when it does not, in whose words.

Source: HyperShift's condition of its data plane is found in the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from konnectivity.kube.client import describe, failures
from konnectivity.kube.collection import Collection, status_of
from konnectivity.kube.resources import collection_path, rule
from konnectivity.lifecycle.reconciling.conditions import Condition
from konnectivity.net.backoff import lengthened

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
    answer = await log_of(client, workload, name)
    if answer.read:
        message = f"log of pod {name} was read"
        return Condition(TYPE, status=True, reason="LogRead", message=message)
    message = f"log of pod {name}: {answer.error}"
    if answer.failed:
        return Condition(TYPE, status=False, reason="LogFailed", message=message)
    return Condition(TYPE, status=None, reason="CannotAsk", message=message)


async def keep_probing(
    client: AsyncClient,
    workload: Callable[[], Mapping[str, Any] | None],
    *,
    tell: Callable[[Condition], None],
    interval: float,
) -> None:
    """Probe until cancelled, each `interval`; sooner as long as there is no workload."""
    while True:
        item = workload()
        if item is not None:
            tell(await probe(client, item))
        await asyncio.sleep(lengthened(interval if item is not None else 1.0, 0.1))


@dataclass(frozen=True, slots=True)
class LogAnswer:
    """What asking for a pod's log has brought. Neither `read` nor `failed`: it cannot be asked."""

    read: bool = False
    failed: bool = False
    text: str = ""
    error: str = ""


async def log_of(
    client: AsyncClient,
    workload: Mapping[str, Any],
    name: str,
    *,
    lines: int = 1,
    limit: float | None = None,
) -> LogAnswer:
    """The last lines of the log of the agents' pod `name`; `limit` seconds at most."""
    namespace = workload["metadata"].get("namespace") or "default"
    pods = Collection(client, collection_path("v1", "Pod", namespace))
    query = {"tailLines": str(lines), "container": _container(workload)}
    try:
        async with asyncio.timeout(limit):
            text = await pods.text(f"{name}/log", query)
    except TimeoutError:
        return LogAnswer(failed=True, error=f"no answer within {limit:g} s")
    except failures() as error:
        status = status_of(error)
        if status is not None and status[0] not in (401, FORBIDDEN, 404, 429):
            return LogAnswer(failed=True, error=describe(error))
        remedy = f"; allow get on pods/log in namespace {namespace} (RBAC)"
        hint = remedy if status and status[0] == FORBIDDEN else ""
        return LogAnswer(error=f"{describe(error)}{hint}")
    return LogAnswer(read=True, text=text)


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
