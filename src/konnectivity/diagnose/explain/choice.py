"""Which agent a server would take for an address, and why: asked of the server's own strategies.

Source: `tunnel/strategies.py`, with what the server's status tells of its agents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import urlencode

from konnectivity.observe.status import Peer, ServerStatus
from konnectivity.tunnel.carrier import Backend
from konnectivity.tunnel.destination import Host, host_of
from konnectivity.tunnel.identifiers import Identifiers, Network
from konnectivity.tunnel.routing import Backends
from konnectivity.tunnel.strategies import STRATEGIES

EVERYTHING: Final = ("default",)
"""What a server uses that names no strategy."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What becomes of a dial. `agents` are those among which one is taken, by id; none: refused.

    `why` is what makes them eligible; `passed` are strategies that had nobody, in their order.
    """

    strategy: str = ""
    agents: tuple[str, ...] = ()
    why: str = ""
    passed: tuple[str, ...] = ()


@dataclass(eq=False, slots=True)
class _Stream:
    """What strategies look at of an agent's stream."""

    agent_id: str
    identifiers: Identifiers
    draining: bool
    load: int
    silence: None = None
    parallel: int = 1

    def probe(self) -> None:
        """Nobody to ask."""


def choose(status: ServerStatus, address: str) -> Choice:
    """The first strategy that has an agent for the address, and its agents."""
    streams = [_stream(each) for each in sorted(status.agents, key=lambda it: it.connected_since)]
    host, passed = host_of(address), []
    for name in status.server.strategies or EVERYTHING:
        if name not in STRATEGIES:
            passed.append(f"{name} (unknown here)")
            continue
        backends = Backends(lambda _: 0, strategies=(name,))
        for each in streams:
            backends.add(cast(Backend, each))
        chosen = backends.choose(address)
        if chosen is None:
            passed.append(name)
            continue
        why, alike = _eligible(name, host, chosen.identifiers, streams)
        found = [each for each in alike if each.draining == chosen.draining]
        agents = dict.fromkeys([chosen.agent_id, *(each.agent_id for each in found)])
        if chosen.draining:
            why += "; it drains, and there is no other"
        return Choice(name, tuple(agents), why, tuple(passed))
    return Choice(passed=tuple(passed))


def _eligible(
    name: str, host: Host, chosen: Identifiers, streams: Iterable[_Stream]
) -> tuple[str, list[_Stream]]:
    """Why the strategy takes an agent, and the others that it could take as well."""
    if name == "destHost":
        found = [each for each in streams if host in _hosts(each.identifiers)]
        return f"it announces {host}", found
    if name == "destCIDR":
        nearest = _nearest(chosen, host)
        found = (
            [
                each
                for each in streams
                if (own := _nearest(each.identifiers, host)) and own.prefixlen == nearest.prefixlen
            ]
            if nearest
            else []
        )
        return f"it announces {nearest}, the smallest network around {host}", found
    if name == "defaultRoute":
        found = [each for each in streams if each.identifiers.default_route]
        return "it announces default-route=true", found
    return "any agent will do", list(streams)


def _hosts(identifiers: Identifiers) -> set[Host]:
    return {*identifiers.hosts, *identifiers.addresses}


def _nearest(identifiers: Identifiers, host: Host) -> Network | None:
    """The smallest of its networks that has the address."""
    if isinstance(host, str):
        return None
    around = [each for each in identifiers.networks if host in each]
    return max(around, key=lambda each: each.prefixlen, default=None)


def _stream(peer: Peer) -> _Stream:
    return _Stream(
        agent_id=peer.id,
        identifiers=_identifiers(peer.identifiers),
        draining=peer.draining,
        load=peer.tunnels.open + peer.tunnels.dialing,
    )


def _identifiers(told: Mapping[str, tuple[str, ...]]) -> Identifiers:
    try:
        return Identifiers.parse(urlencode([(key, each) for key in told for each in told[key]]))
    except ValueError:
        return Identifiers()
