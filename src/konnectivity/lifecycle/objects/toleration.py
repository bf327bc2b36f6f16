"""Tolerations: as they are written in a specification, and what suits each mode."""

from __future__ import annotations

import re
from typing import Final

from konnectivity.lifecycle.objects.metadata import Object
from konnectivity.lifecycle.specification.spec import AgentSpec

EVERYTHING: Final = ("*",)
"""For a DaemonSet: an agent helps most on the node that is broken."""
CHOSEN: Final = (
    "node.kubernetes.io/not-ready:NoExecute@30",
    "node.kubernetes.io/unreachable:NoExecute@30",
    "node-role.kubernetes.io/control-plane:NoSchedule",
    "node-role.kubernetes.io/master:NoSchedule",
    "CriticalAddonsOnly",
)
"""For a Deployment. Not `unschedulable`: a cordoned node would attract the pod it just evicted."""

_WRITTEN = re.compile(
    r"(?P<key>\*|[\w./-]+)(=(?P<value>[\w.-]*))?"
    r"(:(?P<effect>NoSchedule|PreferNoSchedule|NoExecute))?(@(?P<seconds>\d+))?"
)


def tolerations(spec: AgentSpec) -> list[Object]:
    """Those of the pods."""
    return [parse(each) for each in spec.tolerations or _usual(spec)]


def parse(text: str) -> Object:
    """A toleration from `key`, `key:Effect`, `key=value:Effect`, `*`, each perhaps with `@seconds`.

    Raises:
        ValueError: it is written in another way, or gives seconds to an effect that has none.
    """
    found = _WRITTEN.fullmatch(text)
    if not found or (found["key"] == "*" and found["value"] is not None):
        raise ValueError("expected key, key:Effect, key=value:Effect or *")
    toleration: Object = {}
    if found["key"] != "*":
        toleration["key"] = found["key"]
    if found["value"] is None:
        toleration["operator"] = "Exists"
    else:
        toleration |= {"operator": "Equal", "value": found["value"]}
    if found["effect"]:
        toleration["effect"] = found["effect"]
    if found["seconds"]:
        if found["effect"] != "NoExecute":
            raise ValueError("@seconds is for the effect NoExecute")
        toleration["tolerationSeconds"] = int(found["seconds"])
    return toleration


def _usual(spec: AgentSpec) -> tuple[str, ...]:
    return EVERYTHING if spec.is_daemonset else CHOSEN
