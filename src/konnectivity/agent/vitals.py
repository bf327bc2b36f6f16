"""What the heartbeat of an agent says, from its connections, counters and certificates."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from konnectivity import __version__
from konnectivity.agent.connections import Connections
from konnectivity.agent.counters import AgentCounters
from konnectivity.agent.link import ServerLink
from konnectivity.kube.heartbeat import CertificateFile, Connection, Failure, Heartbeat
from konnectivity.net.certificate import CertificateFacts
from konnectivity.observe.status import Time


@dataclass(slots=True)
class Vitals:
    """What heartbeats are taken from. `environ` may tell of the pod: POD_NAME, NODE_NAME..."""

    agent_id: str
    connections: Connections
    counters: AgentCounters
    certificates: Callable[[], Sequence[CertificateFacts]]
    environ: Mapping[str, str]
    started_at: float

    def take(self) -> Heartbeat:
        """The heartbeat as of now."""
        connections, counters = self.connections, self.counters
        return Heartbeat(
            agent=self.agent_id,
            version=__version__,
            node=self.environ.get("NODE_NAME", ""),
            namespace=self.environ.get("POD_NAMESPACE", ""),
            pod=self.environ.get("POD_NAME", ""),
            started_at=Time(self.started_at),
            updated_at=Time(time.time()),
            state="draining" if connections.draining else "running",
            servers_wanted=counters.known_servers,
            servers=tuple(self._connection(links[0]) for links in connections.servers.values()),
            failures=tuple(
                Failure(each.target, each.stage, each.error, Time(each.at), each.times)
                for each in connections.attempts.failed
            ),
            connection_failures=dict(counters.link_failures),
            met_again=connections.attempts.met_again,
            tunnels=connections.tunnels,
            dials=counters.dial_seconds.total + counters.dial_failures.total(),
            dials_failed=dict(counters.dial_failures),
            tunnels_ended=dict(counters.tunnels_ended),
            certificates=tuple(map(_certificate, self.certificates())),
        )

    def _connection(self, link: ServerLink) -> Connection:
        record = self.connections.endpoints.journal.peers[link.packets]
        return Connection(
            id=record.id,
            address=record.address,
            version=record.version,
            since=Time(record.since),
            round_trip=record.measure(),
            tunnels=link.tunnels,
        )


def _certificate(facts: CertificateFacts) -> CertificateFile:
    on_disk = facts.on_disk
    return CertificateFile(
        name=facts.name,
        not_after=Time(facts.in_use.not_after),
        disk_not_after=Time(on_disk.not_after) if on_disk else None,
        error=facts.error,
    )
