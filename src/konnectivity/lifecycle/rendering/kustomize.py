"""The kustomizations in `deploy/kustomize`: both modes, and components to add to either."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from konnectivity.lifecycle.objects.metadata import Object
from konnectivity.lifecycle.rendering.render import render
from konnectivity.lifecycle.rendering.yaml_text import to_yaml
from konnectivity.lifecycle.specification.spec import AgentSpec

API: Final = "kustomize.config.k8s.io"
MONITORING: Final = ("Service", "PodMonitor", "PrometheusRule")


def kustomizations(spec: AgentSpec) -> dict[str, str]:
    """Texts by path, of an example specification.

    `spec` gives server, image and destinations; the rest is as by default.
    """
    found: dict[str, str] = {}
    for mode in ("daemonset", "deployment"):
        objects = render(dataclasses.replace(spec, mode=mode))
        found |= _folder(mode, objects, kind="Kustomization", version="v1beta1")
    everything = render(dataclasses.replace(spec, monitoring=True, network_policy=True))
    for name, kinds in (("network-policy", ("NetworkPolicy",)), ("monitoring", MONITORING)):
        objects = [each for each in everything if each["kind"] in kinds]
        found |= _folder(f"components/{name}", objects, kind="Component", version="v1alpha1")
    return found


def file_name(item: Object) -> str:
    """Where an object stands: its kind and its name, as far as file names go."""
    return f"{item['kind']}-{item['metadata']['name']}.yaml".lower().replace(":", "-")


def _folder(folder: str, objects: Sequence[Object], *, kind: str, version: str) -> dict[str, str]:
    index: Object = {
        "apiVersion": f"{API}/{version}",
        "kind": kind,
        "resources": [file_name(each) for each in objects],
    }
    files = {f"{folder}/{file_name(each)}": to_yaml([each]) for each in objects}
    return {f"{folder}/kustomization.yaml": to_yaml([index])} | files
