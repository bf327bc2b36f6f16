"""How the API server numbers the templates of DaemonSets, which their pods' labels refer to."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"


def number_template(old: Object | None, new: Object) -> None:
    """Bring the number of a DaemonSet that is about to be stored up to date."""
    if new.get("kind") != "DaemonSet":
        return
    before = (old or {}).get("metadata", {}).get("annotations") or {}
    last = int(before.get(TEMPLATE_GENERATION) or 0)
    same = old is not None and _template(old) == _template(new)
    annotations = dict(new["metadata"].get("annotations") or {})
    new["metadata"]["annotations"] = annotations | {TEMPLATE_GENERATION: str(last + (not same))}


def _template(item: Object) -> Any:
    return (item.get("spec") or {}).get("template")
