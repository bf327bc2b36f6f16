"""`konnectivity install` and `upgrade`: agents into a cluster, once, and waited for.

Both do the same from different specifications: an install from a file and flags, an upgrade from
what is installed, with what the flags change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from konnectivity.cli import cluster, spec
from konnectivity.cli.cluster import ClusterOptions, Connection, on_cluster
from konnectivity.cli.progress import Progress, print_json
from konnectivity.cli.run import FAILED, OK, Description, complain
from konnectivity.errors import ClusterError
from konnectivity.flag import flag
from konnectivity.kube.collection import Object
from konnectivity.lifecycle.installing import access
from konnectivity.lifecycle.installing.installation import Installation, Outcome
from konnectivity.lifecycle.managing import standing
from konnectivity.lifecycle.reconciling.plan import Key, Reason, key_of
from konnectivity.lifecycle.reconciling.preview import Preview, examine
from konnectivity.lifecycle.rendering.render import render
from konnectivity.lifecycle.rollouts.availability import workloads_of
from konnectivity.lifecycle.specification import stored_spec

INSTALL: Final = Description(
    name="konnectivity install",
    about=(
        "Install the agents of a cluster once, or make them as specified again: says what will be "
        "done, does it, and waits until all agents are available. An install of another tool "
        "is taken over. For a cluster that is to be kept so there is konnectivity manager."
    ),
    examples=(
        "# what would be done",
        "konnectivity diff --spec=agents.toml",
        "",
        "# do it, in the cluster of the kubeconfig's current context",
        "{command} --spec=agents.toml",
        "",
        "# without a file",
        "{command} --server=konnectivity.example.com:8091 --image=registry.example.com/k:1.0",
    ),
)
UPGRADE: Final = Description(
    name="konnectivity upgrade",
    about=(
        "Change the agents of a cluster: what the flags say is changed, all else stays as it was "
        "installed. With --spec the file is the whole specification instead. Follows the rollout "
        "to its end, and says on what it waits."
    ),
    examples=(
        "# another image",
        "{command} --image=registry.example.com/konnectivity:1.1",
        "",
        "# back to the specification before",
        "{command} --rollback",
    ),
)
EXAMINING: Final = 20.0
"""Seconds that reading the cluster may take."""


@dataclass(frozen=True)
class InstallOptions(spec.SpecOptions, ClusterOptions):
    """All flags of `install`."""

    flags_title = "Flags"

    wait: bool = flag(True, "Wait until all agents are available, as specified.")
    timeout: float = flag(300.0, "How long all of it may take.")
    force: bool = flag(False, "Go on although a manager keeps the cluster.")


@dataclass(frozen=True)
class UpgradeOptions(InstallOptions):
    """All flags of `upgrade`."""

    flags_title = "Flags"

    rollback: bool = flag(False, "Go back to the specification before the last change.")


def install(argv: Sequence[str]) -> int:
    """Run `konnectivity install`; return the exit status."""
    return spec.run(
        INSTALL,
        InstallOptions,
        argv,
        lambda options: on_cluster(options, lambda found: _bring_about(found, options)),
        check=lambda options: list(cluster.problems(options)),
    )


def upgrade(argv: Sequence[str]) -> int:
    """Run `konnectivity upgrade`; return the exit status."""
    return spec.run(
        UPGRADE,
        UpgradeOptions,
        argv,
        lambda options: on_cluster(options, lambda found: _upgrade(found, options)),
        check=_upgrade_problems,
        stored=lambda options: on_cluster(options, lambda found: _stored(found, options)),
    )


def _upgrade_problems(options: UpgradeOptions) -> list[str]:
    found = list(cluster.problems(options))
    if options.rollback and options.spec:
        found.append("rollback goes back to what the cluster has kept: leave spec out")
    return found


async def _stored(found: Connection, options: UpgradeOptions) -> Mapping[str, object]:
    """What is installed, or was before, by field."""
    there = await _installed(found, options)
    for _, item in there:
        values = stored_spec.stored(item, former=options.rollback)
        if values is not None:
            return values
    if options.rollback:
        raise ClusterError(f"{there[0][0]} keeps no specification from before: nothing to go to")
    raise ClusterError(
        f"{there[0][0]} was not installed by this command, so what it was made from is not known; "
        "give all of it with --spec"
    )


async def _upgrade(found: Connection, options: UpgradeOptions) -> int:
    await _installed(found, options)
    return await _bring_about(found, options)


async def _installed(found: Connection, options: UpgradeOptions) -> list[tuple[Key, Object]]:
    there = await workloads_of(found.client, name=options.name, namespace=options.namespace)
    if there:
        return there
    raise ClusterError(
        f"nothing to upgrade: there is neither a DaemonSet nor a Deployment {options.name} in "
        f"namespace {options.namespace}; konnectivity install makes one"
    )


async def _bring_about(found: Connection, options: InstallOptions) -> int:
    """Say what will be done, do it, and wait."""
    client, desired = found.client, render(options)
    lacking = await access.missing(client, access.to_write(map(key_of, desired)))
    if lacking:
        return _refuse(lacking)
    there = await workloads_of(client, name=options.name, namespace=options.namespace)
    keeper = await standing.keeper(client, options.namespace, [item for _, item in there])
    if keeper and not options.force:
        return _refuse([f"{_kept(keeper)}; --force goes on all the same"])
    seen = await examine(
        client,
        desired,
        overrides=options.overrides,
        limit=EXAMINING,
        former=stored_spec.former_objects(item for _, item in there),
    )
    going = [*seen.leftovers, *(each.key for each in seen.actions if each.recreate)]
    if lacking := await access.missing(client, access.to_remove(going)):
        return _refuse(lacking)
    wanted = {*map(key_of, desired), *seen.leftovers}
    strangers = [key for key, _ in there if key not in wanted]
    with Progress(quiet=options.output == "json") as progress:
        progress.say(f"Cluster {found.name}, namespace {options.namespace}:")
        progress.diff(seen.lines())
        if seen.blocked:
            return _refuse([f"{key}: {why}" for key, why in (seen.unknown | seen.refused).items()])
        for key in strangers:
            progress.say(
                f"! {key} was made by somebody else and stays: delete it once the new agents run",
                style="yellow",
            )
        if keeper:
            progress.say(f"! {_kept(keeper)}", style="yellow")
            for key, _ in there:
                await standing.dismiss(client, key)
        installation = Installation(client, spec.only(options), tell=progress.now)
        outcome = await installation.run(
            leftovers=seen.leftovers, wait=options.wait, limit=options.timeout
        )
        progress.rest()
        progress.diff(_end(outcome, seen, options))
    if options.output == "json":
        print_json(_as_json(outcome, seen, keeper))
    return OK


def _kept(keeper: str) -> str:
    return (
        f"{keeper} keeps this cluster by a specification of its own, and will undo what differs "
        "from that: change it there, or stop the manager"
    )


def _refuse(reasons: Iterable[str]) -> int:
    for reason in reasons:
        complain(reason, status=FAILED)
    return complain("nothing was changed", status=FAILED)


def _end(outcome: Outcome, seen: Preview, options: InstallOptions) -> list[str]:
    """What was reached, and what to do next."""
    lines = []
    if outcome.availability is not None:
        lines.append(f"Done: {outcome.availability}.")
    else:
        lines.append("Written; the agents are not waited for.")
        lines += [
            f"! {key} is left, and goes with the next install that waits" for key in seen.leftovers
        ]
    if not outcome.stored:
        lines.append("! The specification is too long to be kept: upgrades need --spec.")
    return [
        *lines,
        "Next:",
        f"  kubectl get pods -n {options.namespace} -l app={options.name}",
        f"  kubectl logs -n {options.namespace} -l app={options.name}",
        f"  konnectivity upgrade --namespace={options.namespace} --image=...",
    ]


def _as_json(outcome: Outcome, seen: Preview, keeper: str) -> dict[str, object]:
    found = outcome.availability
    agents = found and {
        "wanted": found.progress.wanted,
        "updated": found.progress.updated,
        "available": found.progress.available,
    }
    return {
        **seen.as_json(),
        "adopted": [str(each.key) for each in seen.actions if each.reason is Reason.ADOPT],
        "manager": keeper,
        "specification_kept": outcome.stored,
        "agents": agents,
    }
