"""What a server or an agent says of itself: one set of types for the API and all who read it.

    status = from_json(body)        # ServerStatus or AgentStatus
    body = b"".join([part async for part in render(status)])

Names are camelCase in JSON, times RFC 3339 in UTC; here times are Unix seconds. Sizes are bytes,
durations seconds. Readers ignore fields that they do not know, so new ones do no harm; what goes
away or changes its meaning changes `API_VERSION`. Reference: docs/reference/admin-api.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NewType

API_VERSION: Final = "v1"

Time = NewType("Time", float)
"""Unix seconds."""


@dataclass(frozen=True, slots=True)
class Listener:
    """An address that is listened on. `name`: frontend, agent, health, admin."""

    name: str
    address: str
    tls: bool


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound and how much of it is in use; `limit` None: there is none."""

    name: str
    used: int
    limit: int | None
    unit: Literal["count", "bytes"] = "count"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate file: what of it is in use, and what lies on the disk.

    `name` is that of its flag. `error` says why the file on the disk is not in use.
    """

    name: str
    path: str
    fingerprint_sha256: str
    not_before: Time
    not_after: Time
    loaded_at: Time
    disk_fingerprint_sha256: str | None
    disk_not_after: Time | None
    error: str


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """The certificate that a peer has shown."""

    subject: str
    not_after: Time


@dataclass(frozen=True, slots=True)
class TunnelCounts:
    """Tunnels by state. `closing`: one side asked for the end, the other has not answered."""

    dialing: int = 0
    open: int = 0
    closing: int = 0


@dataclass(frozen=True, slots=True)
class Traffic:
    """Payload in bytes, as seen from the frontend: up to endpoints, down from them."""

    up: int = 0
    down: int = 0


@dataclass(frozen=True, slots=True)
class Program:
    """The process that answers. `unready` is empty when it is ready.

    `modes`, `strategies` and `workers`, the processes of which it consists, are a server's.
    """

    id: str
    version: str
    started_at: Time
    state: Literal["running", "draining", "stopping"]
    ready: bool
    unready: str
    modes: tuple[str, ...]
    strategies: tuple[str, ...]
    listeners: tuple[Listener, ...]
    limits: tuple[Limit, ...]
    certificates: tuple[Certificate, ...]
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Peer:
    """One connection between a server and an agent, from either side.

    `software` is the peer's user agent, `version` what one of ours announces; both may be empty.
    `identifiers` are an agent's, by kind. `round_trip` is that of an HTTP/2 PING, None until one
    is answered. `dials` are those that ended, `dials_failed` are among them. `connections`
    are an agent's to all workers of a server, which are one peer.
    """

    id: str
    software: str
    version: str
    address: str
    connected_since: Time
    identifiers: Mapping[str, tuple[str, ...]]
    certificate: PeerCertificate | None
    round_trip: float | None
    draining: bool
    credit: bool
    tunnels: TunnelCounts
    traffic: Traffic
    dials: int
    dials_failed: int
    connections: int = 1
    streams: bool = False


@dataclass(frozen=True, slots=True)
class Dial:
    """A dial that ended. `result`: ok, or the reason of the failure as the metrics name it."""

    time: Time
    destination: str
    peer: str
    result: str
    seconds: float
    error: str


@dataclass(frozen=True, slots=True)
class Dials:
    """Dials since the start; the recent ones newest first, failed ones kept apart."""

    pending: int
    succeeded: int
    failed: Mapping[str, int]
    recent: tuple[Dial, ...]
    recent_failures: tuple[Dial, ...]


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One tunnel. `id` is unique in its process; `since` is when it came into its `state`.

    `mode` and `frontend` say how and from where it was asked for; only a server knows.
    """

    id: int
    peer: str
    destination: str
    mode: str
    frontend: str
    state: str
    since: Time
    traffic: Traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """A server as of `generated_at`, give or take some milliseconds.

    `tunnels` are at most as many as were asked for, oldest first; the counts are of all.
    `last_event` is where the stream of events goes on from here.
    """

    api_version: str = API_VERSION
    kind: Literal["ServerStatus"] = "ServerStatus"
    generated_at: Time
    last_event: str
    server: Program
    agents: tuple[Peer, ...]
    dials: Dials
    tunnel_counts: TunnelCounts
    tunnels_ended: Mapping[str, int]
    tunnels: tuple[Tunnel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStatus:
    """An agent, likewise. `servers_wanted` is how many servers it believes there are.

    `connection_failures` are failed attempts to reach one, by stage.
    """

    api_version: str = API_VERSION
    kind: Literal["AgentStatus"] = "AgentStatus"
    generated_at: Time
    last_event: str
    agent: Program
    servers: tuple[Peer, ...]
    servers_wanted: int
    connection_failures: Mapping[str, int]
    dials: Dials
    tunnel_counts: TunnelCounts
    tunnels_ended: Mapping[str, int]
    tunnels: tuple[Tunnel, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `id` grows with each; `facts` depend on the kind."""

    id: str
    kind: str
    time: Time
    facts: Mapping[str, str | int | float | bool | None]


Status = ServerStatus | AgentStatus
