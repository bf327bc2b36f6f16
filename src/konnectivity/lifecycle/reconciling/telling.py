"""The words in which a manager tells what it did: reasons and messages of its Events."""

from __future__ import annotations

from typing import Final

from konnectivity.lifecycle.reconciling.plan import Action, Reason

EVENTS: Final = {
    Reason.INSTALL: "Installed",
    Reason.ADOPT: "Installed",
    Reason.RESTORE: "Restored",
    Reason.DRIFT: "DriftReverted",
    Reason.UPGRADE: "Upgraded",
    Reason.ROLLOUT: "PaceChanged",
    Reason.REMOVE: "Removed",
}


def event(action: Action) -> str:
    """The reason of the Event; a Secret of ours changes with its certificate."""
    rotated = action.key.kind == "Secret" and action.reason is Reason.UPGRADE
    return "Rotated" if rotated else EVENTS[action.reason]


def message(action: Action, seconds: float | None) -> str:
    """What was done; `seconds` if it is known since when the object was damaged."""
    within = "" if seconds is None else f" {seconds:.3f} s after it was noticed"
    match action.reason:
        case Reason.INSTALL:
            return "Created"
        case Reason.ADOPT:
            return f"Adopted; changed {'; '.join(action.lines()) or 'nothing'}"
        case Reason.RESTORE:
            return f"Restored{within}"
        case Reason.DRIFT:
            fields, by = "; ".join(action.lines()), ", ".join(action.writers)
            return f"Reverted{within}: {fields}. Written by: {by}"
        case Reason.UPGRADE if action.key.kind == "Secret":
            return f"Another certificate: {'; '.join(action.lines())}"
        case Reason.UPGRADE:
            return f"Changed to the new specification: {'; '.join(action.lines())}"
        case Reason.ROLLOUT:
            return f"Changed for the rollout: {'; '.join(action.lines())}"
        case Reason.REMOVE:
            return "Removed: the specification does not want it any more"
