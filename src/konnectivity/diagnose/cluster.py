"""Reads a cluster through the Kubernetes API: lists and nothing else, all of them at once.

Each list fails for itself: what cannot be read is a `Problem` that names the right that is missing
(`kube.resources.rule`), and the rest is there all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from konnectivity.diagnose.facts import ClusterFacts, Object, ObjectEvent, Problem, Trouble
from konnectivity.diagnose.pods import object_event, pod_facts, selects, workload_facts
from konnectivity.diagnose.sources import ClusterSource
from konnectivity.errors import ConfigError
from konnectivity.gotext import one_line
from konnectivity.kube import heartbeat
from konnectivity.kube.client import connect, describe, failures
from konnectivity.kube.collection import Collection, status_of
from konnectivity.kube.resources import collection_path, rule

if TYPE_CHECKING:
    from lightkube import AsyncClient

SOURCE: Final = "cluster"
LEASES: Final = "coordination.k8s.io/v1"
MOST_EVENTS: Final = 500
FIELDS: Final = ("pods", "workload", "policies", "leases", "events", "heartbeats", "nodes")
_TROUBLES: Final[Mapping[int, Trouble]] = {401: "unauthorized", 403: "forbidden", 404: "absent"}


class ClusterReader:
    """The API of one cluster, made by `open_cluster`. `problems` grows with what cannot be read."""

    def __init__(self, client: AsyncClient) -> None:
        self.problems: list[Problem] = []
        self._client = client
        self._unreachable = ""

    @property
    def url(self) -> str:
        """Where the API is."""
        config: Any = self._client.config
        return str(config.cluster.server)

    async def list(
        self, api_version: str, kind: str, namespace: str = "", *, selector: str = ""
    ) -> list[dict[str, Any]] | None:
        """The objects of a kind, of all namespaces without one; None: `problems` says why not."""
        path = collection_path(api_version, kind, namespace)
        try:
            items, _ = await Collection(self._client, path).list(selector)
        except failures() as error:
            self._miss(error, api_version, kind, namespace)
            return None
        return items

    async def version(self) -> str:
        """The cluster's version; empty if it does not say."""
        try:
            return one_line(
                str((await Collection(self._client, "version").get("")).get("gitVersion"))
            )
        except failures():
            return ""

    def _miss(self, error: Exception, api_version: str, kind: str, namespace: str) -> None:
        status = status_of(error)
        code = status[0] if status else 0
        reason = one_line(describe(error))
        where = f" in namespace {namespace}" if namespace else ""
        trouble: Trouble = _TROUBLES.get(code, "unreadable" if code else "silent")
        remedy = rule(("list",), api_version, kind, namespace) if code == 403 else ""
        if not code:  # the same is true of all that is asked
            if reason == self._unreachable:
                return
            self._unreachable = reason
        self.problems.append(Problem(SOURCE, f"{kind} objects{where}", trouble, reason, remedy))


@asynccontextmanager
async def open_cluster(source: ClusterSource, *, limit: float) -> AsyncIterator[ClusterReader]:
    """Read the kubeconfig; `limit` is for each request, in seconds.

    Raises:
        ConfigError: it is wrong.
    """
    # In a thread: modules and files. Many lists at once, and then no more: no rate limit.
    client = await asyncio.to_thread(connect, source.kubeconfig, qps=-1.0, timeout=limit)
    try:
        yield ClusterReader(client)
    finally:
        await client.close()


async def read_cluster(
    reader: ClusterReader, source: ClusterSource, *, nodes: bool = False
) -> tuple[ClusterFacts, list[dict[str, Any]]]:
    """What the cluster tells of the agents, and the leases with their heartbeats (raw)."""
    where, selector = source.namespace, source.selector
    asked = {
        "pods": reader.list("v1", "Pod", where, selector=selector),
        "workload": _workloads(reader, source),
        "policies": reader.list("networking.k8s.io/v1", "NetworkPolicy", where),
        "leases": reader.list(
            LEASES, "Lease", source.lease_namespace, selector=source.lease_selector
        ),
        "events": reader.list("v1", "Event", where),
        "heartbeats": reader.list(
            LEASES, "Lease", source.heartbeat_namespace, selector=heartbeat.SELECTOR
        ),
    } | ({"nodes": reader.list("v1", "Node")} if nodes else {})
    answers, version = await asyncio.gather(asyncio.gather(*asked.values()), reader.version())
    known = dict(zip(asked, answers, strict=True))
    found = {name: items or [] for name, items in known.items()}
    pods, workloads = found["pods"], found["workload"]
    facts = ClusterFacts(
        url=reader.url,
        version=version,
        namespace=where,
        selector=selector,
        workload=next(map(workload_facts, workloads), None),
        pods=tuple(sorted(map(pod_facts, pods), key=lambda each: each.name)),
        policies=tuple(_policies(found["policies"], pods, workloads)),
        leases=tuple(found["leases"]),
        nodes=tuple(found.get("nodes", ())),
        events=tuple(_events(found["events"], pods + workloads)),
        unknown=frozenset(name for name in FIELDS if known.get(name) is None),
    )
    return facts, found["heartbeats"]


async def _workloads(reader: ClusterReader, source: ClusterSource) -> list[dict[str, Any]] | None:
    """What makes the agents; None if it cannot be told, for one kind of it cannot be read."""
    sets, deployments = await asyncio.gather(
        reader.list("apps/v1", "DaemonSet", source.namespace, selector=source.selector),
        reader.list("apps/v1", "Deployment", source.namespace, selector=source.selector),
    )
    found = [
        {"kind": kind, **each}
        for kind, items in (("DaemonSet", sets), ("Deployment", deployments))
        for each in items or ()
    ]
    return found if found or (sets is not None and deployments is not None) else None


def _policies(
    policies: Iterable[Object], pods: Iterable[Object], workloads: Iterable[Object]
) -> Iterable[Object]:
    """Those that select the agents' pods, or would select them if there were any."""
    templates = ((each.get("spec") or {}).get("template") or {} for each in workloads)
    metas = [each.get("metadata") or {} for each in (*pods, *templates)]
    shown = {frozenset((meta.get("labels") or {}).items()) for meta in metas}
    return [each for each in policies if selects(each, map(dict, shown))]


def _events(items: Iterable[Object], about: Iterable[Object]) -> Iterable[ObjectEvent]:
    """Events of these objects, and what our manager has done; newest first."""
    ours = {str(each["metadata"]["name"]) for each in about}
    found = [
        each
        for each in map(object_event, items)
        if each.object.partition("/")[2] in ours or each.component.startswith("konnectivity")
    ]
    return sorted(found, key=lambda each: each.time or 0.0, reverse=True)[:MOST_EVENTS]


def opening_problem(error: ConfigError) -> Problem:
    """A kubeconfig that is wrong, as a problem."""
    return Problem(SOURCE, "the cluster", "missing", str(error))
