"""The server's metrics: upstream's under upstream's names, and ours beside them.

Source: upstream `pkg/server/metrics/metrics.go`. Vectors appear once they are touched, as there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from konnectivity import __version__
from konnectivity.net.certificate import CertificateFacts, expiries
from konnectivity.observe import process
from konnectivity.observe.exposition import Catalogue, Family
from konnectivity.observe.histogram import TUNNEL_BOUNDS
from konnectivity.server.counters import LEASE_BOUNDS, PACKET_BOUNDS, ServerCounters
from konnectivity.server.exchange import Exchange
from konnectivity.server.tally import Tally
from konnectivity.wire import packet

SERVER: Final = Catalogue("konnectivity_network_proxy_server_")

# Dials and tunnels

_DIAL_SECONDS = SERVER.histogram(
    "dial_duration_seconds", "How long successful dials took.", bounds=PACKET_BOUNDS
)
_DIAL_FAILURES = SERVER.counter(
    "dial_failure_count",
    "Failed dials by reason.",
    "reason",
    note="`limit`, `duplicate` and `shutdown` are ours; `send_rsp` cannot happen.",
)
_PENDING = SERVER.gauge("pending_backend_dials", "Dials that no agent has answered yet.")
_ESTABLISHED = SERVER.gauge("established_connections", "Open tunnels.")
_TUNNEL_SECONDS = SERVER.histogram(
    "connection_duration_seconds",
    "How long tunnels lasted that are over.",
    bounds=TUNNEL_BOUNDS,
    note="Upstream leaves out those that the frontend ended.",
)
_RETRIES = SERVER.counter(
    "dial_retries_total", "Dials tried once more, on another agent.", ours=True
)
_ENDED = SERVER.counter(
    "tunnels_ended_total", "Tunnels that ended, by reason.", "reason", ours=True
)
_BYTES = SERVER.counter(
    "tunnel_bytes_total",
    "Payload carried, in both modes.",
    "segment",
    ours=True,
    note="`to_agent` or `from_agent`.",
)

# Frontends and agents

_GRPC = SERVER.gauge(
    "grpc_connections",
    "gRPC calls under way by method.",
    "service_method",
    note="`Proxy`, and `Connect` of agents that were let in.",
)
_HTTP = SERVER.gauge("http_connections", "CONNECT requests under way, tunnels included.")
_WRITES = SERVER.histogram(
    "frontend_write_duration_seconds",
    "How long packets of agents waited because their frontend was slow; nearly all do not at all.",
    bounds=PACKET_BOUNDS,
    note="Writing never blocks here. A packet that fills its frontend's buffer counts with the "
    "time until the buffer has room again, every other one with 0.",
)
_FULL = SERVER.gauge(
    "full_receive_channels",
    "Tunnels of which one side is not read because the other is slow.",
    "service_method",
    note="`Proxy`: a frontend is not read, its agent is slow. `Connect`: an agent's data is held "
    "or held back, its frontend is slow.",
)
_PAUSES = SERVER.counter(
    "pauses_total",
    "How often one side of a tunnel was too slow for the other.",
    "service_method",
    ours=True,
    note="As `full_receive_channels`.",
)
_HELD = SERVER.gauge("held_bytes", "Bytes held for frontends that read slowly.", ours=True)
_OVERFLOWS = SERVER.counter(
    "overflows_total", "Tunnels ended because their frontend read too slowly.", ours=True
)
_WAITING = SERVER.gauge("waiting_bytes", "Bytes of tunnels that wait for agents.", ours=True)
_AGENTS = SERVER.gauge(
    "ready_backend_connections",
    "Connected agents.",
    note="Deprecated. Upstream: the size of whichever table changed last.",
)
_BACKENDS = SERVER.gauge(
    "ready_backends",
    "Agents that dials can be given to, by strategy.",
    "proxy_strategy",
    note="Upstream counts identifiers under `destHost`.",
)
_AUTHENTICATIONS = SERVER.counter(
    "agent_authentications_total",
    "Agents that wanted to connect, by outcome.",
    "outcome",
    ours=True,
)

# Packets

_PACKETS = SERVER.counter(
    "stream_packets_total",
    "Packets by segment and type.",
    *("segment", "packet_type"),
    note="All types unknown to upstream and to us count as `unknown`; `CREDIT` is ours.",
)
_ERRORS = SERVER.counter(
    "stream_errors_total",
    "gRPC calls that ended with an error.",
    *("segment", "code", "packet_type"),
    note="A lost connection is `Unavailable`; upstream's server says `Canceled`. Sending cannot "
    "fail here but for a frontend that is too slow: `to_client`, `ResourceExhausted`.",
)

# Leases

_CULLED = SERVER.counter("culled_leases_count", "Expired server leases that were deleted.")
_DELETES = SERVER.counter(
    "lease_delete_total", "Deletions of leases by answer.", "http_status_code", "reason"
)
_DELETE_SECONDS = SERVER.histogram(
    "lease_delete_latency_seconds", "How long they took.", "http_status_code", bounds=LEASE_BOUNDS
)
_LISTS = SERVER.counter(
    "lease_list_total", "Lists of leases by answer.", "http_status_code", "reason"
)
_LIST_SECONDS = SERVER.histogram(
    "lease_list_latency_seconds", "How long they took.", "http_status_code", bounds=LEASE_BOUNDS
)

# By agent

_AGENT_NOTE = "For 200 agents; all further ones are `other`."
_AGENT_TUNNELS = SERVER.gauge(
    "agent_tunnels", "Open tunnels by agent.", "agent", ours=True, note=_AGENT_NOTE
)
_AGENT_DIALS = SERVER.counter(
    "agent_dials_total", "Dials by agent.", "agent", ours=True, note=_AGENT_NOTE
)
_AGENT_FAILURES = SERVER.counter(
    "agent_dial_failures_total", "Failed dials by agent.", "agent", ours=True, note=_AGENT_NOTE
)
_AGENT_BYTES = SERVER.counter(
    "agent_bytes_total",
    "Payload carried by agent.",
    "agent",
    "segment",
    ours=True,
    note=_AGENT_NOTE,
)
_EXPIRY = SERVER.gauge(
    "certificate_expiry_timestamp_seconds",
    "When certificates stop being valid, in seconds since 1970.",
    *("file", "state"),
    ours=True,
    note="`file` is the name of the flag, `state` is `in_use` or `on_disk`.",
)
_BUILD = SERVER.gauge("build_info", "This program's version; the value is 1.", "version", ours=True)
_WORKERS = SERVER.gauge("workers", "Workers that are up (`--workers`).", ours=True)
_WORKER_RESTARTS = SERVER.counter(
    "worker_restarts_total", "How often a worker had to be started again.", ours=True
)


def of_workers(*, up: int, restarts: int) -> list[Family]:
    """What only a server of several processes has."""
    return [_WORKERS.value(up), _WORKER_RESTARTS.value(restarts)]


def families(exchange: Exchange, certificates: Iterable[CertificateFacts] = ()) -> list[Family]:
    """All metrics as of now."""
    tally, counters = Tally(exchange), exchange.counters
    return [
        *_dials(tally, counters),
        *_sides(tally, exchange),
        *_packets(tally, counters),
        *_leases(counters),
        *_by_agent(tally),
        _EXPIRY.each(expiries(certificates)),
        _BUILD.each({__version__: 1}),
        *process.families(),
    ]


def _dials(tally: Tally, counters: ServerCounters) -> Iterator[Family]:
    yield _DIAL_SECONDS.durations(counters.dial_seconds)
    unrecognized = {"unrecognized_response": tally.unrecognized} if tally.unrecognized else {}
    yield _DIAL_FAILURES.each({**counters.dial_failures, **unrecognized})
    if counters.dials:
        yield _PENDING.value(tally.pending)
    if counters.dial_seconds.total:
        yield _ESTABLISHED.value(tally.established)
    yield _TUNNEL_SECONDS.durations(counters.tunnel_seconds)
    yield _RETRIES.value(counters.dial_retries)
    yield _ENDED.each(counters.tunnels_ended)
    yield _BYTES.each({"to_agent": tally.bytes_to_agents, "from_agent": tally.bytes_from_agents})


def _sides(tally: Tally, exchange: Exchange) -> Iterator[Family]:
    counters, waits, budget = exchange.counters, exchange.counters.waits, exchange.budget
    yield _GRPC.each(counters.open_calls)
    yield _HTTP.value(counters.http_connections)
    at_once = max(0, tally.packets_for_frontends - waits.begun)
    yield _WRITES.durations(waits.seconds.with_zeros(at_once))
    pauses = {"Proxy": tally.pauses, "Connect": waits.begun}
    full = {"Proxy": tally.paused, "Connect": waits.begun - waits.seconds.total}
    yield _FULL.each({method: full[method] for method, times in pauses.items() if times})
    yield _PAUSES.each(pauses)
    yield _HELD.value(budget.held)
    yield _OVERFLOWS.value(budget.overflows)
    yield _WAITING.value(tally.waiting)
    yield _AGENTS.value(len(exchange.backends))
    yield _BACKENDS.each(exchange.backends.counts())
    yield _AUTHENTICATIONS.each(counters.authentications)


def _packets(tally: Tally, counters: ServerCounters) -> Iterator[Family]:
    yield _PACKETS.each(
        {
            (segment, packet.NAMES.get(kind, "unknown")): count
            for segment, counts in (
                ("from_client", counters.packets_from_clients),
                ("to_client", counters.packets_to_clients),
                ("from_agent", tally.from_agents),
                ("to_agent", tally.to_agents),
            )
            for kind, count in counts.items()
            if count
        }
    )
    yield _ERRORS.each(counters.stream_errors)


def _leases(counters: ServerCounters) -> Iterator[Family]:
    yield _CULLED.value(counters.leases_culled)
    yield _DELETES.each(counters.lease_deletes.total)
    yield _DELETE_SECONDS.durations_each(counters.lease_deletes.seconds)
    yield _LISTS.each(counters.lease_lists.total)
    yield _LIST_SECONDS.durations_each(counters.lease_lists.seconds)


def _by_agent(tally: Tally) -> Iterator[Family]:
    agents = tally.agents
    yield _AGENT_TUNNELS.each({key: each.tunnels for key, each in agents.items()})
    yield _AGENT_DIALS.each({key: each.dials for key, each in agents.items()})
    yield _AGENT_FAILURES.each({key: each.failures for key, each in agents.items()})
    to_agents = {(key, "to_agent"): each.bytes_to_agent for key, each in agents.items()}
    from_agents = {(key, "from_agent"): each.bytes_from_agent for key, each in agents.items()}
    yield _AGENT_BYTES.each({**to_agents, **from_agents})
