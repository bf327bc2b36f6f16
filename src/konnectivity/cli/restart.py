"""`konnectivity restart`: new agents for old ones, one after another, and waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from konnectivity.cli import cluster
from konnectivity.cli.cluster import ClusterOptions, Connection, on_cluster
from konnectivity.cli.plain import run
from konnectivity.cli.progress import Progress, print_json
from konnectivity.cli.run import OK, Description
from konnectivity.errors import ClusterError
from konnectivity.flag import flag
from konnectivity.gotext import format_duration
from konnectivity.kube.collection import Object
from konnectivity.lifecycle.installing import access
from konnectivity.lifecycle.installing.access import Right
from konnectivity.lifecycle.reconciling.plan import Key
from konnectivity.lifecycle.rollouts import restart
from konnectivity.lifecycle.rollouts.availability import Availability, follow, pods_of, workloads_of
from konnectivity.lifecycle.specification.spec import AGENT

COMMAND: Final = Description(
    name="konnectivity restart",
    about=(
        "Restart the agents of a cluster one after another, by the rollout of their DaemonSet or "
        "Deployment, where kubectl delete pod -l app=konnectivity-agent would end all at once. "
        "Or one of them."
    ),
    examples=(
        "# all, in turn",
        "{command}",
        "",
        "# the one of a node",
        "{command} --node=node-7",
    ),
)


@dataclass(frozen=True)
class RestartOptions(ClusterOptions):
    """All flags of the command."""

    flags_title = "Flags"

    namespace: str = flag("kube-system", "Namespace of the agents.", short="n")
    name: str = flag(AGENT, "Name of the agents.")
    pod: str = flag("", "Restart this pod alone.")
    node: str = flag("", "Restart the agents of this node alone.")
    wait: bool = flag(True, "Wait until all agents are available.")
    timeout: float = flag(600.0, "How long all of it may take.")


def main(argv: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    return run(COMMAND, RestartOptions, argv, _start, check=_problems)


def _start(options: RestartOptions) -> int:
    return on_cluster(options, lambda found: _restart(found, options))


def _problems(options: RestartOptions) -> Iterator[str]:
    yield from cluster.problems(options)
    if options.pod and options.node:
        yield "pod and node are one or the other"


async def _restart(connection: Connection, options: RestartOptions) -> int:
    there = await workloads_of(connection.client, name=options.name, namespace=options.namespace)
    if not there:
        raise ClusterError(
            f"nothing to restart: there is neither a DaemonSet nor a Deployment {options.name} in "
            f"namespace {options.namespace}"
        )
    key, item = there[0]
    if lacking := await access.missing(connection.client, _rights(key, options)):
        raise ClusterError("; ".join(lacking))
    with Progress(quiet=options.output == "json") as progress:
        work = _Restart(connection, key, item, progress)
        try:
            async with asyncio.timeout(options.timeout):
                await work.run(options)
        except TimeoutError as error:
            span = format_duration(options.timeout)
            raise ClusterError(f"not over within {span}: {work.latest}") from error
        progress.rest()
        last = work.last
        progress.say(f"Done: {last}." if last else "Begun; the agents are not waited for.")
    if options.output == "json":
        available = last and last.progress.available
        print_json({"restarted": work.begun, "available": available})
    return OK


class _Restart:
    """One restart, and how far it is."""

    def __init__(self, connection: Connection, key: Key, item: Object, progress: Progress) -> None:
        self.begun: list[str] = []
        self.latest = "nothing was answered"
        self.last: Availability | None = None
        self._client = connection.client
        self._key = key
        self._item = item
        self._progress = progress

    async def run(self, options: RestartOptions) -> None:
        pods: list[Object] = []
        count = 0
        if options.pod or options.node:
            pods = await restart.chosen(
                self._client, self._item, pod=options.pod, node=options.node
            )
            count = len(await pods_of(self._client, self._item))
            await restart.delete(self._client, pods)
        else:
            await restart.restart(self._client, self._key)
        self.begun = [f"Pod {each['metadata']['name']}" for each in pods] or [str(self._key)]
        self._progress.say(f"Restarting {', '.join(self.begun)}")
        if not options.wait:
            return
        if pods:
            async for text in restart.replaced(self._client, self._item, pods, count=count):
                self._note(text)
        async for look in follow(self._client, self._key):
            self.last = look
            self._note(str(look))

    def _note(self, text: str) -> None:
        self.latest = text
        self._progress.now(text)


def _rights(key: Key, options: RestartOptions) -> list[Right]:
    pods = Right("list", "v1", "Pod", key.namespace)
    if options.pod or options.node:
        return [pods, Right("delete", "v1", "Pod", key.namespace)]
    return [pods, Right("patch", key.api_version, key.kind, key.namespace)]
