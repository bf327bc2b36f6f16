"""`konnectivity manifests`: prints what a specification amounts to, and changes nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from konnectivity.cli import spec
from konnectivity.cli.run import OK, Description
from konnectivity.flag import flag
from konnectivity.gotext import quote
from konnectivity.lifecycle.rendering import control_plane
from konnectivity.lifecycle.rendering.render import render, to_yaml
from konnectivity.lifecycle.specification.control_plane_spec import ControlPlaneSpec

COMMAND: Final = Description(
    name="konnectivity manifests",
    about=(
        "Print the Kubernetes objects of the agents, for kubectl apply or a repository; or, with "
        "--control-plane, the files of the servers. Nothing is read but the specification, and "
        "nothing is changed."
    ),
    examples=(
        "# the objects of the agents, into the cluster",
        "{command} --server=konnectivity.example.com:8091 --image=... | kubectl apply -f -",
        "",
        "# the same from a file, with one thing changed",
        "{command} --spec=agents.toml --mode=deployment",
        "",
        "# the servers: static pod, sidecar or systemd unit; egress selector, kubeconfig",
        "{command} --spec=agents.toml --control-plane",
    ),
)
FORMATS: Final = ("yaml", "json")


@dataclass(frozen=True)
class ManifestsOptions(spec.SpecOptions, ControlPlaneSpec):
    """All flags of the command."""

    flags_title: ClassVar[str] = "Flags"

    control_plane: bool = flag(False, "Print the files of the control plane instead.")
    output: str = flag("yaml", "Format: yaml or json.", short="o")


def main(argv: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    return spec.run(COMMAND, ManifestsOptions, argv, _print, check=_problems)


def _problems(options: ManifestsOptions) -> list[str]:
    found = list(control_plane.problems(options))
    if options.output not in FORMATS:
        found.append(f"output must be {' or '.join(FORMATS)}, not {quote(options.output)}")
    return found


def _print(options: ManifestsOptions) -> int:
    """As YAML documents or files one after the other; as JSON a List, or texts by file name."""
    if options.control_plane:
        files = control_plane.files(options, options)
        text = json.dumps(files, indent=2) if options.output == "json" else _joined(files)
    else:
        objects = render(options)
        listed = {"apiVersion": "v1", "kind": "List", "items": objects}
        text = json.dumps(listed, indent=2) if options.output == "json" else to_yaml(objects)
    sys.stdout.write(text.rstrip() + "\n")
    return OK


def _joined(files: dict[str, str]) -> str:
    return "\n".join(f"# ==> {name}\n{text}" for name, text in files.items())
