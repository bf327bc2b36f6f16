"""Where objects of a kind are found in the API: paths, plural names, the words of RBAC.

For the kinds that we write; others follow the API's own habit of lower-case English plurals.

Source: Kubernetes API conventions ("Resources"), `meta.UnsafeGuessKindToResource`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

CLUSTER_SCOPED: Final = frozenset(
    [
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "Namespace",
        "PriorityClass",
    ]
)


def plural(kind: str) -> str:
    """The resource of a kind: `NetworkPolicy` is at `networkpolicies`."""
    word = kind.lower()
    if word.endswith("s"):
        return word if word == "endpoints" else f"{word}es"
    if re.search(r"[^aeiou]y$", word):
        return f"{word[:-1]}ies"
    return f"{word}s"


def collection_path(api_version: str, kind: str, namespace: str = "") -> str:
    """The path under the API server's address, without a slash in front."""
    root = f"apis/{api_version}" if "/" in api_version else f"api/{api_version}"
    scope = f"namespaces/{namespace}/" if namespace and kind not in CLUSTER_SCOPED else ""
    return f"{root}/{scope}{plural(kind)}"


def rule(verbs: Iterable[str], api_version: str, kind: str, namespace: str = "") -> str:
    """The remedy for a 403, in the words of RBAC."""
    group, slash, _ = api_version.partition("/")
    resource = f"{plural(kind)}.{group}" if slash else plural(kind)
    scoped = namespace and kind not in CLUSTER_SCOPED
    where = f"in namespace {namespace}" if scoped else "in the cluster"
    return f"allow {', '.join(verbs)} on {resource} {where} (RBAC)"
