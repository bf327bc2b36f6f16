"""`konnectivity uninstall`: takes the agents out of a cluster, once somebody has agreed to it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from konnectivity.cli import cluster
from konnectivity.cli.cluster import ClusterOptions, Connection, on_cluster
from konnectivity.cli.plain import run
from konnectivity.cli.progress import Progress, print_json
from konnectivity.cli.run import FAILED, MISUSED, OK, Description, complain
from konnectivity.errors import ClusterError
from konnectivity.flag import flag
from konnectivity.gotext import format_duration
from konnectivity.lifecycle.installing import access
from konnectivity.lifecycle.installing.dependants import Dependants, dependants
from konnectivity.lifecycle.installing.removal import Found, find, remaining, remove, spaces_of
from konnectivity.lifecycle.rollouts.availability import workloads_of
from konnectivity.lifecycle.specification.spec import AGENT

COMMAND: Final = Description(
    name="konnectivity uninstall",
    about=(
        "Take the agents out of a cluster: says what will be deleted and what stops working "
        "with it, asks, deletes what is ours, and waits until all of it is gone."
    ),
    examples=(
        "# look, then answer the question",
        "{command} --context=staging",
        "",
        "# without a question",
        "{command} --context=staging --yes",
    ),
)


@dataclass(frozen=True)
class UninstallOptions(ClusterOptions):
    """All flags of the command."""

    flags_title = "Flags"

    namespace: str = flag("kube-system", "Namespace of the agents.", short="n")
    name: str = flag(AGENT, "Name of the agents.")
    yes: bool = flag(False, "Do not ask.")
    timeout: float = flag(300.0, "How long all of it may take, the question aside.")


@dataclass(frozen=True, slots=True)
class _Seen:
    cluster: str
    found: Found
    stopping: Dependants
    reasons: tuple[str, ...]
    """Why nothing can be deleted."""


def main(argv: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    return run(COMMAND, UninstallOptions, argv, _start, check=cluster.problems)


def _start(options: UninstallOptions) -> int:
    if not options.yes and not sys.stdin.isatty():
        text = "it asks before it deletes, and there is no terminal to ask on; give --yes"
        return complain(text, status=MISUSED)
    # The question stands between two connections, where a signal ends it.
    seen = on_cluster(options, lambda connection: _look(connection, options))
    for reason in seen.reasons:
        complain(reason, status=FAILED)
    if seen.reasons:
        return complain("nothing was deleted", status=FAILED)
    quiet = options.output == "json"
    with Progress(quiet=quiet and options.yes) as progress:
        for line in _announcement(seen):
            progress.say(line)
        if seen.found.objects:
            if not options.yes and not _agrees(seen.cluster):
                return complain("nothing was deleted", status=FAILED)
            on_cluster(options, lambda each: _remove(each, seen.found, options, progress))
            progress.say("All of it is gone.")
    if quiet:
        print_json(_as_json(seen))
    return OK


async def _look(connection: Connection, options: UninstallOptions) -> _Seen:
    client = connection.client
    spaces = await _namespaces(connection, options)
    found = await find(client, name=options.name, namespaces=spaces)
    lacking = await access.missing(client, access.to_remove(found.keys))
    stopping = await dependants(client)
    return _Seen(connection.name, found, stopping, (*lacking, *found.unreadable))


async def _namespaces(connection: Connection, options: UninstallOptions) -> list[str]:
    """Where the objects are: leases, heartbeats and the rights to them may be elsewhere."""
    there = await workloads_of(connection.client, name=options.name, namespace=options.namespace)
    return [options.namespace, *spaces_of(item for _, item in there)]


def _announcement(seen: _Seen) -> Iterator[str]:
    found = seen.found
    if not found.objects:
        yield f"Nothing of ours is in cluster {seen.cluster}."
    else:
        yield f"From cluster {seen.cluster} will be deleted:"
        yield from (f"  {key}" for key in found.keys)
        yield "Through the agents go, and stop unless there are others:"
        yield from (f"  {each}" for each in seen.stopping.stopping)
        yield from (f"  (not known: {each})" for each in seen.stopping.unknown)
    for each in found.foreign:
        yield f"Stays, for it is not ours: {each}"
    if found.manager and found.objects:
        yield f"! This cluster is kept by {found.manager}, which will put all back: stop it."


def _agrees(name: str) -> bool:
    """Whether the cluster's name, or yes, was typed."""
    try:
        answer = input(f"Type {name}, or yes, to delete all of this: ")
    except EOFError:
        return False
    return answer.strip() in (name, "yes")


async def _remove(
    connection: Connection, found: Found, options: UninstallOptions, progress: Progress
) -> None:
    latest = ""
    try:
        async with (
            asyncio.timeout(options.timeout),
            aclosing(remove(connection.client, found)) as gone,
        ):
            async for latest in gone:
                progress.now(latest)
    except TimeoutError as error:
        span = format_duration(options.timeout)
        raise ClusterError(f"not all is gone within {span}; {latest}") from error
    finally:
        progress.rest()
    if back := await remaining(connection.client, found):
        raise ClusterError(f"deleted, and there again: {'; '.join(back)}")


def _as_json(seen: _Seen) -> dict[str, object]:
    return {
        "deleted": [str(key) for key in seen.found.keys],
        "kept": list(seen.found.foreign),
        "stopped": list(seen.stopping.stopping),
        "unknown": list(seen.stopping.unknown),
        "manager": seen.found.manager,
    }
