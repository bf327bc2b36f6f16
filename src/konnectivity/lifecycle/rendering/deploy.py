"""The folder `deploy/`: Helm chart, kustomizations, the control plane's files, alerts, dashboards.

`python -m konnectivity.lifecycle.rendering.deploy [FOLDER]` writes it anew, `deploy` by default.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from konnectivity import __version__
from konnectivity.lifecycle.rendering import alerts, control_plane, dashboards
from konnectivity.lifecycle.rendering.chart import chart
from konnectivity.lifecycle.rendering.kustomize import kustomizations
from konnectivity.lifecycle.rendering.yaml_text import to_yaml
from konnectivity.lifecycle.specification.control_plane_spec import ControlPlaneSpec
from konnectivity.lifecycle.specification.spec import AgentSpec

EXAMPLE: Final = AgentSpec(
    server="konnectivity.example.com:8091",
    image=f"registry.example.com/konnectivity:{__version__}",
    destinations=("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
)
"""What the kustomizations and the control plane's files are made for; to be patched."""
FOLDERS: Final = ("helm/konnectivity-agent", "kustomize", "control-plane", "prometheus", "grafana")


def files() -> dict[str, str]:
    """All texts by path within the folder."""
    made = (
        chart(),
        kustomizations(EXAMPLE),
        control_plane.files(EXAMPLE, ControlPlaneSpec()),
        {"rules.yaml": to_yaml([alerts.rule_file()])},
        dashboards.files(),
    )
    return {
        f"{folder}/{name}": text
        for folder, texts in zip(FOLDERS, made, strict=True)
        for name, text in texts.items()
    }


def present(root: Path) -> dict[str, str]:
    """What is there, in the folders that are ours."""
    return {
        str(path.relative_to(root)): path.read_text()
        for folder in FOLDERS
        for path in (root / folder).rglob("*")
        if path.is_file()
    }


def write(root: Path) -> None:
    """Make the folder's files what they should be, and remove others of ours."""
    wanted = files()
    for name in present(root).keys() - wanted.keys():
        (root / name).unlink()
    for name, text in wanted.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


if __name__ == "__main__":
    write(Path(*sys.argv[1:2] or ["deploy"]))
