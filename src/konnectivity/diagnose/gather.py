"""Asks all sources at once and puts their answers together: `gather(sources) -> Facts`.

It takes as long as the slowest answer, never longer than the time limit of one question and a
little, and it never fails as a whole.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from konnectivity.diagnose.admin_client import AdminClient, Silence, tls_context
from konnectivity.diagnose.agents import combine
from konnectivity.diagnose.cluster import open_cluster, opening_problem, read_cluster
from konnectivity.diagnose.facts import ClusterFacts, Facts, Problem, Sample, ServerFacts
from konnectivity.diagnose.samples import parse
from konnectivity.diagnose.sources import ServerSource, Sources
from konnectivity.errors import ConfigError
from konnectivity.observe.status import AgentStatus, Event, ServerStatus

REMEDIES: Final[Mapping[str, str]] = {
    "unauthorized": "give its token by --server-token-file",
    "tls": "see --server-ca, --server-cert and --server-key",
    "refused": "is the server running, and does --admin-bind-address let us reach it?",
}


async def gather(sources: Sources) -> Facts:
    """What all sources tell, as of now."""
    taken = time.time()
    answers, (cluster, leases, problems) = await asyncio.gather(
        asyncio.gather(*(_ask(each, sources) for each in sources.servers)),
        _cluster(sources),
    )
    servers, agents, silent = [], [], []
    for source, answer in zip(sources.servers, answers, strict=True):
        if isinstance(answer, AgentStatus):
            agents.append(answer)
            continue
        if answer.error:
            silent.append(_problem(source, answer))
        for what, reason in answer.unread.items():
            silent.append(Problem(source.url, what, "unreadable", reason))
        if answer.answers or not source.guessed:
            servers.append(answer)
    found, odd = combine(servers, agents, leases, cluster.pods if cluster else (), now=taken)
    return Facts(
        taken_at=taken,
        servers=tuple(servers),
        agents=tuple(found),
        cluster=cluster,
        problems=(*silent, *problems, *odd),
    )


def _problem(source: ServerSource, answer: ServerFacts) -> Problem:
    trouble = answer.trouble or "unreadable"
    if source.guessed and trouble == "refused":
        reason = "no server is named, and none answers on this machine"
        return Problem(source.url, "the servers' view", "missing", reason, "name them by --server")
    return Problem(source.url, "the status", trouble, answer.error, REMEDIES.get(trouble, ""))


# Servers


async def _ask(source: ServerSource, sources: Sources) -> ServerFacts | AgentStatus:
    """One admin address; a stock server answers with metrics alone."""
    name = _place(source.url)
    try:
        context = await asyncio.to_thread(tls_context, source)
        client = AdminClient(source, context, timeout=sources.timeout)
        started, begun = time.time(), time.monotonic()
        status = await client.status(tunnels=sources.tunnels)
    except Silence as silence:
        samples: tuple[Sample, ...] = ()
        if silence.status == 404:
            samples = await _samples(client, {})
        return ServerFacts(
            name, source.url, error=str(silence), trouble=silence.trouble, samples=samples
        )
    seconds = time.monotonic() - begun
    if isinstance(status, AgentStatus):
        return status
    unread: dict[str, str] = {}
    events, samples = await asyncio.gather(
        _events(client, status, unread) if sources.events else _none(),
        _samples(client, unread) if sources.metrics else _none(),
    )
    return ServerFacts(
        name=status.server.id or name,
        url=source.url,
        status=status,
        seconds=seconds,
        skew=status.generated_at - (started + seconds / 2),
        samples=samples,
        events=events,
        unread=unread,
    )


async def _samples(client: AdminClient, unread: dict[str, str]) -> tuple[Sample, ...]:
    try:
        return tuple(parse(await client.metrics()))
    except Silence as silence:
        unread["metrics"] = str(silence)
        return ()


async def _events(
    client: AdminClient, status: ServerStatus, unread: dict[str, str]
) -> tuple[Event, ...]:
    try:
        return await client.events(last=status.last_event)
    except Silence as silence:
        unread["events"] = str(silence)
        return ()


async def _none() -> tuple[()]:
    return ()


def _place(url: str) -> str:
    """How to call a server whose id nobody knows."""
    return url if url.startswith("unix:") else urlsplit(url).netloc


# The cluster


async def _cluster(
    sources: Sources,
) -> tuple[ClusterFacts | None, list[dict[str, Any]], list[Problem]]:
    """What the cluster tells, leases with heartbeats, and what could not be learned."""
    source = sources.cluster
    if source is None:
        return None, [], []
    try:
        async with open_cluster(source, limit=sources.timeout) as reader:
            facts, leases = await read_cluster(reader, source, nodes=sources.nodes)
            return facts, leases, reader.problems
    except ConfigError as error:
        return None, [], [opening_problem(error)]
