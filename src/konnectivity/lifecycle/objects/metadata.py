"""Names and labels that all objects share."""

from __future__ import annotations

from typing import Any, Final

from konnectivity.lifecycle.specification.spec import AgentSpec, pairs

Object = dict[str, Any]
"""A Kubernetes object, or part of one, as plain JSON."""


PART_OF: Final = {"app.kubernetes.io/part-of": "konnectivity"}


def labels(spec: AgentSpec) -> dict[str, str]:
    """Labels of every object: both that published commands select by, and the user's own."""
    return {**pairs(spec.labels), "app": spec.name, "k8s-app": spec.name, **PART_OF}


def shared_labels(spec: AgentSpec) -> dict[str, str]:
    """Labels of what agents of several names may share: nothing that they would quarrel about."""
    return {**pairs(spec.labels), **PART_OF}


def pod_labels(spec: AgentSpec) -> dict[str, str]:
    """Labels of the agents' pods; the workload's selector is among them."""
    return labels(spec) | dict(spec.selector_labels)


def metadata(spec: AgentSpec, *, name: str = "", namespace: str | None = None) -> Object:
    """Metadata of an object; by default with the agents' name, in the agents' namespace.

    An empty `namespace` is that of an object that has none.
    """
    where = spec.namespace if namespace is None else namespace
    found: Object = {"name": name or spec.name}
    if where:
        found["namespace"] = where
    return found | {"labels": labels(spec)}
