"""What a cluster's agents are in, in a few words that can be alerted on. Pure.

Only what the Kubernetes API tells is here. `None` as a status is "Unknown", as in Kubernetes.

Source: Kubernetes API conventions, "Typical status properties".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from konnectivity.lifecycle.reconciling.plan import WORKLOADS, Key


@dataclass(frozen=True, slots=True)
class Condition:
    """One statement. `reason` is a word for machines, `message` a line for people."""

    type: str
    status: bool | None
    reason: str
    message: str = ""

    @property
    def word(self) -> str:
        """`True`, `False` or `Unknown`."""
        return "Unknown" if self.status is None else str(self.status)


@dataclass(frozen=True, slots=True)
class Facts:
    """What conditions are made of."""

    desired: Collection[Key]
    observed: Mapping[Key, Mapping[str, Any] | None]
    silence: str = ""
    """Why the API does not answer; empty if it does."""
    troubles: Mapping[Key, str] | None = None
    """Why objects cannot be followed."""
    failing: Mapping[Key, str] | None = None
    """Why objects cannot be written."""
    paused: bool = False
    rollout: Condition | None = None
    """How far the agents' rollout is."""


def conditions(facts: Facts) -> list[Condition]:
    """All conditions that follow from `facts`, in a fixed order."""
    found = [_reachable(facts), _installed(facts), _available(facts), _paused(facts)]
    return [*found, *([facts.rollout] if facts.rollout else [])]


def _reachable(facts: Facts) -> Condition:
    if facts.silence:
        return Condition("ApiReachable", status=False, reason="NoAnswer", message=facts.silence)
    if not facts.observed and not facts.troubles:
        return Condition("ApiReachable", status=None, reason="Connecting")
    return Condition("ApiReachable", status=True, reason="Answers")


def _installed(facts: Facts) -> Condition:
    failing = {**(facts.troubles or {}), **(facts.failing or {})}
    if wrong := [f"{key}: {failing[key]}" for key in facts.desired if key in failing]:
        status = None if facts.silence else False
        reason = "ApiUnreachable" if facts.silence else "Refused"
        return Condition("Installed", status=status, reason=reason, message="; ".join(wrong[:3]))
    if unknown := [str(key) for key in facts.desired if key not in facts.observed]:
        message = f"not yet listed: {', '.join(unknown)}"
        return Condition("Installed", status=None, reason="Unknown", message=message)
    missing = [str(key) for key in facts.desired if facts.observed[key] is None]
    if missing:
        message = f"missing: {', '.join(missing)}"
        return Condition("Installed", status=False, reason="Missing", message=message)
    return Condition("Installed", status=True, reason="Complete")


def _available(facts: Facts) -> Condition:
    workload = next((key for key in facts.desired if key.kind in WORKLOADS), None)
    item = facts.observed.get(workload) if workload else None
    if item is None:
        return Condition("Available", status=None, reason="NoWorkload")
    status = item.get("status") or {}
    if workload is not None and workload.kind == "DaemonSet":
        ready, wanted = status.get("numberAvailable"), status.get("desiredNumberScheduled")
    else:
        ready, wanted = status.get("availableReplicas"), (item.get("spec") or {}).get("replicas", 1)
    ready, wanted = _count(ready), _count(wanted)
    message = f"{ready} of {wanted} agents are available"
    if not status:
        return Condition("Available", status=None, reason="NoStatus", message="no status yet")
    if ready == 0:
        reason = "NoNodes" if wanted == 0 else "NoAgents"
        return Condition("Available", status=False, reason=reason, message=message)
    reason = "AgentsAvailable" if ready >= wanted else "SomeAgentsAvailable"
    return Condition("Available", status=True, reason=reason, message=message)


def _paused(facts: Facts) -> Condition:
    reason = "Annotation" if facts.paused else "NotPaused"
    return Condition("Paused", status=facts.paused, reason=reason)


class Conditions:
    """The conditions as they are now, and since when."""

    def __init__(self) -> None:
        self.current: dict[str, Condition] = {}
        self.since: dict[str, float] = {}

    def update(self, found: Iterable[Condition], now: float) -> list[Condition]:
        """Take in `found`; return those whose status or reason is another than before."""
        news = []
        for each in found:
            before = self.current.get(each.type)
            if before is None or before.status != each.status:
                self.since[each.type] = now
            if before is None or (before.status, before.reason) != (each.status, each.reason):
                news.append(each)
            self.current[each.type] = each
        return news


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
