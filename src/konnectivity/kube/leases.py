"""What a server's lease says: name, labels, times, who holds it, and whether it still counts.

Facts about objects only, as plain JSON; requests are made elsewhere. A lease is written by whoever
may write to the namespace, so nothing about its content is taken for granted (W33).

Source: upstream `pkg/util/leases.go`, `cmd/server/app/server.go`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, TypeAlias

Object: TypeAlias = Mapping[str, Any]

PREFIX: Final = "konnectivity-proxy-server-"
DURATION: Final = 30
"""Seconds that a lease is valid without being renewed."""
ADDRESS: Final = "konnectivity/agent-address"
"""Annotation of ours: where agents reach this very server (`--advertise-agent-address`)."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LONGEST_NAME: Final = 253
_LATEST: Final = 253402300799.0  # the end of the year 9999, as far as these times go


class State(Enum):
    """What a lease is worth."""

    VALID = "valid"
    EXPIRED = "expired"
    ODD = "odd"
    """It cannot be judged: it does not count, and nobody but its owner deletes it."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """`reason` says what is wrong with a lease that is odd."""

    state: State
    reason: str = ""


def lease_name(server_id: str) -> str:
    """The name of a server's lease."""
    return PREFIX + server_id


def is_object_name(text: str) -> bool:
    """Whether the API takes `text` for an object's name (RFC 1123 subdomain)."""
    return len(text) <= _LONGEST_NAME and _NAME.fullmatch(text) is not None


def name_of(item: Object) -> str:
    """The object's name, or an empty string."""
    return _text(_mapping(item.get("metadata")).get("name"))


def server_of(item: Object) -> tuple[str, str]:
    """Id and advertised agent address of the server behind a lease; either may be empty."""
    meta = _mapping(item.get("metadata"))
    holder = _text(_mapping(item.get("spec")).get("holderIdentity"))
    name = _text(meta.get("name"))
    return (
        holder or (name.removeprefix(PREFIX) if name.startswith(PREFIX) else ""),
        _text(_mapping(meta.get("annotations")).get(ADDRESS)),
    )


def judge(item: Object, now: float) -> Judgement:
    """What a lease is worth at `now` (Unix seconds).

    It is valid for its duration after it was renewed or, if it never was, acquired; with neither
    time it has expired. differs: without a duration upstream crashes, here it is odd.

    Source: `IsLeaseValid`.
    """
    spec = item.get("spec")
    if not isinstance(spec, Mapping):
        return Judgement(State.ODD, "it has no spec")
    field = "renewTime" if spec.get("renewTime") is not None else "acquireTime"
    if spec.get(field) is None:
        return Judgement(State.EXPIRED)
    since = parse_time(spec[field])
    if since is None:
        return Judgement(State.ODD, f"its {field} is no time")
    duration = spec.get("leaseDurationSeconds")
    if duration is None:
        return Judgement(State.ODD, "it has no leaseDurationSeconds")
    if not isinstance(duration, int) or isinstance(duration, bool):
        return Judgement(State.ODD, "its leaseDurationSeconds is no integer")
    return Judgement(State.VALID if since + duration > now else State.EXPIRED)


class OddLeases:
    """Remembers which odd leases were reported, so that each is named once."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def news(self, odd: Mapping[str, str]) -> list[tuple[str, str]]:
        """Those of the odd leases, reason by name, that were not so the last time."""
        news = [(name, why) for name, why in odd.items() if self._known.get(name) != why]
        self._known = dict(odd)
        return news


def renewed(
    item: Object | None, *, server_id: str, labels: Mapping[str, str], address: str, now: float
) -> dict[str, Any]:
    """The lease of a server as of `now`, to be written over `item`, the last known one, if any.

    All labels are replaced, as upstream does. Annotations of others stay.
    """
    meta = dict(_mapping(item.get("metadata"))) if item else {}
    annotations = {
        key: value
        for key, value in _mapping(meta.pop("annotations", None)).items()
        if key != ADDRESS
    }
    if address:
        annotations[ADDRESS] = address
    if annotations:
        meta["annotations"] = annotations
    spec = _mapping(item.get("spec")) if item else {}
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {**meta, "name": lease_name(server_id), "labels": dict(labels)},
        "spec": {
            **spec,
            "holderIdentity": server_id,
            "leaseDurationSeconds": DURATION,
            "renewTime": format_time(now),
        },
    }


def format_time(seconds: float) -> str:
    """Unix seconds as Kubernetes' MicroTime: `2006-01-02T15:04:05.000000Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(value: object) -> float | None:
    """Unix seconds of an RFC 3339 time with any fraction, or None."""
    if not isinstance(value, str) or not re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", value):
        return None
    try:
        time = datetime.fromisoformat(value)
        return min(time.timestamp(), _LATEST) if time.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def parse_labels(text: str) -> dict[str, str]:
    """The labels of `--lease-label`: `key=value` pairs, blanks around keys and values ignored.

    Raises:
        ValueError: in upstream's words (`util.ParseLabels`).
    """
    if not text:
        raise ValueError("empty string provided")
    labels = {}
    for pair in text.split(","):
        if pair.count("=") != 1:
            raise ValueError(f"invalid label format: {pair}")
        key, _, value = pair.partition("=")
        labels[key.strip()] = value.strip()
    return labels


def selector(labels: Mapping[str, str]) -> str:
    """The label selector for exactly these labels, as upstream's collector sends it."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def access_rule(verbs: Iterable[str], namespace: str) -> str:
    """The remedy for a 403, in the words of RBAC."""
    return f"allow {', '.join(verbs)} on leases.coordination.k8s.io in namespace {namespace} (RBAC)"


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
