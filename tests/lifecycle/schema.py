"""Kubernetes' own schema of objects, offline: lightkube's models, which are generated from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pkgutil import resolve_name
from typing import Any

import msgspec

MODULES = {
    "v1": "core_v1",
    "apps/v1": "apps_v1",
    "policy/v1": "policy_v1",
    "networking.k8s.io/v1": "networking_v1",
    "rbac.authorization.k8s.io/v1": "rbac_v1",
}
CUSTOM = "monitoring.coreos.com/v1"
"""Kinds of the Prometheus operator, which Kubernetes has no schema of."""


def problems(item: Mapping[str, Any]) -> list[str]:
    """Fields that Kubernetes does not have, or has with another type."""
    model = resolve_name(f"lightkube.models.{MODULES[item['apiVersion']]}:{item['kind']}")
    try:
        read = msgspec.convert(item, model)
    except msgspec.ValidationError as error:
        return [str(error)]
    return list(_lost(item, msgspec.to_builtins(read), item["kind"]))


def _lost(given: Any, read: Any, path: str) -> Iterator[str]:
    if isinstance(given, Mapping) and isinstance(read, Mapping):
        for name, value in given.items():
            yield from _lost(value, read.get(name), f"{path}.{name}")
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        for index, (one, other) in enumerate(zip(given, read, strict=True)):
            yield from _lost(one, other, f"{path}[{index}]")
    elif given != read:
        yield f"{path}: {given!r} is read as {read!r}"
