"""`konnectivity diff`: how a cluster differs from a specification; nothing is changed.

Without a file the specification is the one that the cluster was installed by, where it is kept:
what differs from that is drift.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from konnectivity.cli import cluster, spec
from konnectivity.cli.cluster import ClusterOptions, Connection, on_cluster
from konnectivity.cli.install import EXAMINING
from konnectivity.cli.progress import Progress, print_json
from konnectivity.cli.run import MISUSED, OK, Description
from konnectivity.errors import ClusterError, ConfigError
from konnectivity.flag import flag
from konnectivity.lifecycle.reconciling.preview import examine
from konnectivity.lifecycle.rendering.render import render
from konnectivity.lifecycle.rollouts.availability import workloads_of
from konnectivity.lifecycle.specification import stored_spec

COMMAND: Final = Description(
    name="konnectivity diff",
    about=(
        "Show how the agents of a cluster differ from a specification, and who wrote what "
        "differs. The API server is asked whether it would take each change; nothing is changed. "
        "The exit status is 0 without a difference, 1 with one, 2 when that cannot be told."
    ),
    examples=(
        "# what an install would change",
        "{command} --spec=agents.toml",
        "",
        "# what was changed since the install",
        "{command}",
        "",
        "# what an upgrade would change",
        "{command} --image=registry.example.com/konnectivity:1.1",
    ),
)
DIFFERENT: Final = 1


@dataclass(frozen=True)
class DiffOptions(spec.SpecOptions, ClusterOptions):
    """All flags of the command."""

    flags_title = "Flags"

    timeout: float = flag(EXAMINING, "How long reading the cluster may take.")


def main(argv: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    return spec.run(COMMAND, DiffOptions, argv, _diff, check=_problems, stored=_stored)


def _problems(options: DiffOptions) -> list[str]:
    return list(cluster.problems(options))


def _stored(options: DiffOptions) -> Mapping[str, object]:
    async def read(found: Connection) -> Mapping[str, object]:
        there = await workloads_of(found.client, name=options.name, namespace=options.namespace)
        kept = (stored_spec.stored(item) for _, item in there)
        return next((each for each in kept if each is not None), {})

    try:
        return on_cluster(options, read)
    except ClusterError as error:
        raise ConfigError(str(error)) from error  # it cannot be told


def _diff(options: DiffOptions) -> int:
    try:
        return on_cluster(options, lambda found: _show(found, options))
    except ClusterError as error:
        raise ConfigError(str(error)) from error


async def _show(found: Connection, options: DiffOptions) -> int:
    desired = render(options)
    there = await workloads_of(found.client, name=options.name, namespace=options.namespace)
    seen = await examine(
        found.client,
        desired,
        overrides=options.overrides,
        limit=options.timeout,
        former=stored_spec.former_objects(item for _, item in there),
    )
    if options.output == "json":
        print_json(seen.as_json())
    else:
        Progress().diff(seen.lines())
    return MISUSED if seen.blocked else DIFFERENT if seen.differs else OK
