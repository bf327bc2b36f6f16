"""How far a rollout of the agents is: from the workload's status alone. Pure.

Source: Kubernetes `kubectl rollout status` (`polymorphichelpers/rollout_status.go`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Progress:
    """Numbers of agents. `seen`: whether the workload's controller knows what is wanted now."""

    seen: bool
    wanted: int
    updated: int
    available: int
    """Old ones among them."""
    left: int = 0
    """Old ones that a Deployment has still."""

    @property
    def replacing(self) -> bool:
        """Whether there are old agents still, or new ones to come."""
        return not self.seen or self.updated < self.wanted or bool(self.left)

    @property
    def done(self) -> bool:
        """Whether all agents are new and available."""
        return not self.replacing and self.available >= self.wanted


def progress(workload: Mapping[str, Any]) -> Progress:
    """That of a DaemonSet or Deployment as the API has it."""
    meta, spec, status = (workload.get(part) or {} for part in ("metadata", "spec", "status"))
    generation = _count(meta.get("generation"))
    seen = "observedGeneration" in status and _count(status["observedGeneration"]) >= generation
    if workload.get("kind") == "DaemonSet" or "updateStrategy" in spec:
        return Progress(
            seen,
            _count(status.get("desiredNumberScheduled")),
            _count(status.get("updatedNumberScheduled")),
            _count(status.get("numberAvailable")),
        )
    updated = _count(status.get("updatedReplicas"))
    return Progress(
        seen,
        _count(spec.get("replicas", 1)),
        updated,
        _count(status.get("availableReplicas")),
        left=max(0, _count(status.get("replicas")) - updated),
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
