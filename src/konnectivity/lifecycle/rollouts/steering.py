"""The pace at which agents are replaced or leave: written into the workload that is wanted.

A stopped rollout is Kubernetes' own: a Deployment is paused, a DaemonSet replaces pods only when
somebody deletes them. An annotation says why, so the stop outlives the manager. Fewer replicas
are wanted only after a while: nodes that come back need no agents that have just left.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Final

from konnectivity.kube.collection import Object
from konnectivity.lifecycle.reconciling.compare import compare, written_by_us
from konnectivity.lifecycle.reconciling.plan import with_selector_of

STOPPED: Final = "konnectivity/rollout-stopped"
"""Annotation of the workload with the cause, while its rollout is stopped."""
REPLICAS: Final = ("f:spec", "f:replicas")


class Steering:
    """The pace of one workload. Times are those of a monotonic clock, in seconds."""

    def __init__(self, hold: float) -> None:
        self.stopped = ""
        """Why the rollout is stopped; empty: it goes on."""
        self.chances = 0
        """How often a rollout has begun anew because something else was specified."""
        self.due: float | None = None
        """When fewer replicas may be wanted; None: no fewer are."""
        self.held = ""
        """What is kept until then."""
        self._hold = hold
        self._recovered = False

    def steer(
        self,
        body: Object,
        live: Mapping[str, Any] | None,
        now: float,
        *,
        overrides: Sequence[str] = (),
    ) -> Object:
        """The workload as it is to be applied now; `body` is what the specification wants."""
        if live is not None and not self._recovered:
            self._recovered = True
            self.stopped = self.stopped or _stopped_before(body, live, overrides)
        body = self._keep_replicas(body, live or {}, now)
        return stop(body, self.stopped) if self.stopped else body

    def changed(self, before: Object | None, after: Object | None) -> None:
        """The specification wants another workload: another template gets another chance."""
        if before is None or after is None or template(before) != template(after):
            self.stopped = ""
            self.chances += 1

    def _keep_replicas(self, body: Object, live: Mapping[str, Any], now: float) -> Object:
        wanted, have = (each.get("spec", {}).get("replicas") for each in (body, live))
        ours = written_by_us(live)
        fewer = wanted is not None and have is not None and wanted < have
        if not fewer or ours is None or not ours.owns(REPLICAS) or not self._hold:
            self.due, self.held = None, ""
            return body
        if self.due is None:
            self.due = now + self._hold
            self.held = f"{have} agents are kept for {self._hold:g} s, then {wanted} are wanted"
        if now >= self.due:
            self.held = ""
            return body
        return {**body, "spec": {**body["spec"], "replicas": have}}


def stop(body: Object, cause: str) -> Object:
    """A copy of a workload that replaces no further pods."""
    stopped = copy.deepcopy(body)
    stopped["metadata"].setdefault("annotations", {})[STOPPED] = cause
    if body["kind"] == "DaemonSet":
        stopped["spec"]["updateStrategy"] = {"type": "OnDelete"}
    else:
        stopped["spec"]["paused"] = True
    return stopped


def template(workload: Mapping[str, Any]) -> Any:
    """The template of its pods."""
    return workload["spec"].get("template")


def _stopped_before(body: Object, live: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """The cause for which a manager before us has stopped the rollout to this very template."""
    cause = (live["metadata"].get("annotations") or {}).get(STOPPED) or ""
    part = ("f:spec", "f:template")
    changes, _ = compare(with_selector_of(live, body), dict(live), overrides, {})
    return "" if any(each.path[:2] == part for each in changes) else str(cause)
