"""What an agent says of itself through the Kubernetes API: a Lease with a small JSON document.

    lease = heartbeat.lease_of(beat, name="konnectivity-agent-x7k2p", interval=60.0)
    beat = heartbeat.read(lease)

It is there for those who diagnose: nobody of the data path reads it. Whoever may write leases in
the namespace may write anything, so reading checks and bounds all of it. Why a Lease, and why in
a namespace of their own: docs/decisions/heartbeat.md.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from konnectivity.kube.leases import format_time, is_object_name, parse_time
from konnectivity.observe.journal import printable
from konnectivity.observe.status import Time
from konnectivity.observe.status_json import from_plain, to_plain

LABEL: Final = "konnectivity/heartbeat"
SELECTOR: Final = f"{LABEL}=agent"
ANNOTATION: Final = "konnectivity/status"
NAMESPACE: Final = "konnectivity-heartbeats"
SCHEMA: Final = "v1"
LARGEST: Final = 8 << 10
"""Bytes of the document."""
MOST_SERVERS: Final = 32
MOST_FAILURES: Final = 16
MOST_KEYS: Final = 32
LONGEST_ERROR: Final = 240  # characters
LONGEST_NAME: Final = 253
UNKNOWN_DURATION: Final = 180.0
MISSED: Final = 3
"""So many heartbeats may be missing before their agent counts as silent."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A server that the agent is connected to. `round_trip` in seconds, None before the first."""

    id: str
    address: str
    version: str
    since: Time
    round_trip: float | None
    tunnels: int


@dataclass(frozen=True, slots=True)
class Failure:
    """The last failed attempt at one target, and how many there were since one succeeded.

    `target` is `host:port` as it was dialled, `stage` as in `LinkError`: name, tcp, proxy, tls,
    alpn, http2, stream, headers, token.
    """

    target: str
    stage: str
    error: str
    at: Time
    times: int


@dataclass(frozen=True, slots=True)
class CertificateFile:
    """A certificate file, named after its flag. `disk_not_after` is None if none can be read."""

    name: str
    not_after: Time
    disk_not_after: Time | None
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """One agent, as it saw itself at `updated_at`. `node` and `pod` are empty where unknown.

    `met_again` counts attempts that led to a server that was connected already: many of them,
    with servers missing, are a load balancer's doing. The mappings are by reason and stage, as the
    metrics name them.
    """

    agent: str
    version: str
    node: str = ""
    namespace: str = ""
    pod: str = ""
    started_at: Time
    updated_at: Time
    state: str
    servers_wanted: int
    servers: tuple[Connection, ...] = ()
    failures: tuple[Failure, ...] = ()
    connection_failures: Mapping[str, int] = field(default_factory=dict)
    met_again: int = 0
    tunnels: int = 0
    dials: int = 0
    dials_failed: Mapping[str, int] = field(default_factory=dict)
    tunnels_ended: Mapping[str, int] = field(default_factory=dict)
    certificates: tuple[CertificateFile, ...] = ()


def lease_name(agent_id: str) -> str:
    """The name of an agent's lease: its id if the API takes that for a name, else a hash of it."""
    if is_object_name(agent_id):
        return agent_id
    return f"agent-{hashlib.sha256(agent_id.encode(errors='replace')).hexdigest()[:32]}"


def lease_of(
    beat: Heartbeat, *, name: str, interval: float, owner: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The lease that tells `beat`, for server-side apply. `interval` is between two, in seconds.

    `owner` is the pod as an owner reference, for a lease in the namespace of the pod.
    """
    metadata: dict[str, Any] = {
        "name": name,
        "labels": {LABEL: "agent"},
        "annotations": {ANNOTATION: encode(beat)},
    }
    if owner:
        metadata["ownerReferences"] = [dict(owner)]
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata,
        "spec": {
            "holderIdentity": beat.agent[:LONGEST_NAME],
            "leaseDurationSeconds": math.ceil(interval * MISSED),
            "renewTime": format_time(beat.updated_at),
        },
    }


def encode(beat: Heartbeat) -> str:
    """The document, `LARGEST` bytes at most: long texts are cut, what is oldest is left out."""
    beat = dataclasses.replace(
        beat,
        agent=beat.agent[:LONGEST_NAME],
        servers=tuple(
            dataclasses.replace(each, id=each.id[:LONGEST_NAME])
            for each in beat.servers[:MOST_SERVERS]
        ),
        failures=tuple(
            dataclasses.replace(
                each,
                target=each.target[:LONGEST_NAME],
                error=printable(each.error, LONGEST_ERROR),
            )
            for each in beat.failures[:MOST_FAILURES]
        ),
    )
    while len(text := _dump(beat)) > LARGEST and (beat.failures or beat.servers):
        longer = "failures" if beat.failures else "servers"
        beat = dataclasses.replace(beat, **{longer: getattr(beat, longer)[:-1]})
    return text


def _dump(beat: Heartbeat) -> str:
    plain = {"schema": SCHEMA, **to_plain(beat)}
    return json.dumps(plain, separators=(",", ":"), allow_nan=False)


def decode(text: str) -> Heartbeat:
    """The heartbeat of a document.

    Raises:
        ValueError: too long, no JSON, of another schema, or a field is missing or of a wrong type.
    """
    if len(text) > LARGEST:
        raise ValueError(f"the document has {len(text)} characters, {LARGEST} are read")
    try:
        plain = json.loads(text)
    except RecursionError:
        raise ValueError("the document is nested too deeply") from None
    if not isinstance(plain, dict) or plain.get("schema") != SCHEMA:
        raise ValueError(f"the document's schema is not {SCHEMA}")
    beat = from_plain(Heartbeat, plain)
    return dataclasses.replace(
        beat,
        servers=beat.servers[:MOST_SERVERS],
        failures=beat.failures[:MOST_FAILURES],
        connection_failures=_bounded(beat.connection_failures),
        dials_failed=_bounded(beat.dials_failed),
        tunnels_ended=_bounded(beat.tunnels_ended),
    )


def read(lease: Mapping[str, Any]) -> Heartbeat:
    """The heartbeat of a lease.

    Raises:
        ValueError: as `decode`; or it has none.
    """
    metadata = lease.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    text = annotations.get(ANNOTATION) if isinstance(annotations, Mapping) else None
    if not isinstance(text, str):
        raise ValueError(f"it has no annotation {ANNOTATION}")  # noqa: TRY004 - not of ours
    return decode(text)


def renewed_at(lease: Mapping[str, Any]) -> float | None:
    """When a lease was written, in Unix seconds by the agent's clock; None if it does not say."""
    spec = lease.get("spec")
    return parse_time(spec.get("renewTime")) if isinstance(spec, Mapping) else None


def duration(lease: Mapping[str, Any]) -> float:
    """Seconds after which a lease that was not written again counts as silent."""
    spec = lease.get("spec")
    found = spec.get("leaseDurationSeconds") if isinstance(spec, Mapping) else None
    if not isinstance(found, int) or isinstance(found, bool) or found <= 0:
        return UNKNOWN_DURATION
    return float(min(found, 86400))


def _bounded(counts: Mapping[str, int]) -> Mapping[str, int]:
    return dict(list(counts.items())[:MOST_KEYS])
