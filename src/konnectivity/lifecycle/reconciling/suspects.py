"""Who may be deleting an object. The API does not say; what is known of the object often does.

A watch tells that an object is gone, not by whose request: only the API server's audit log has
that. But tools that prune mark what they think is theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from konnectivity.lifecycle.reconciling.plan import others

TOOLS: Final = {
    "k0s.k0sproject.io/stack": "k0s",
    "kamaji.clastix.io/name": "Kamaji",
    "argocd.argoproj.io/instance": "Argo CD",
    "argocd.argoproj.io/tracking-id": "Argo CD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
    "meta.helm.sh/release-name": "Helm",
    "objectset.rio.cattle.io/id": "a Rancher controller",
    "addonmanager.kubernetes.io/mode": "the addon manager",
}
"""Labels and annotations by which tools know their objects."""
UNKNOWN: Final = "unknown: nobody else has marked it; the API server's audit log has the request"


def suspects(item: Mapping[str, Any] | None) -> list[str]:
    """Those who have left a mark on an object as it last was; never empty."""
    return list(dict.fromkeys(_suspects(item))) if item and any(_suspects(item)) else [UNKNOWN]


def _suspects(item: Mapping[str, Any]) -> Iterator[str]:
    meta = item["metadata"]
    for mark in (*(meta.get("labels") or {}), *(meta.get("annotations") or {})):
        if mark in TOOLS:
            yield f"{TOOLS[mark]} ({mark})"
    for owner in meta.get("ownerReferences") or []:
        yield f"the garbage collector, for its owner {owner.get('kind')} {owner.get('name')}"
    for writer in others(item):
        yield str(writer)
