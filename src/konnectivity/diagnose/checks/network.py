"""3xx: the network between an agent and the servers' port: names, TCP, proxies, MTU, policies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from konnectivity.diagnose.attempt import Attempt, Cause
from konnectivity.diagnose.case import Case
from konnectivity.diagnose.check import Check, Finding, Layer, Severity, Source
from konnectivity.diagnose.checks import egress_policy

LIKENESS: Final = 0.05
"""Connections whose lifetimes differ by less than this part of them are cut by the same rule."""
CUTS: Final = 3
"""So many equal lifetimes are no accident."""

_TCP: Final = {
    Cause.REFUSED: (
        "nothing listens there: the server is down, or this is not its port",
        "start the server, or correct --proxy-server-host and --proxy-server-port of the agent; "
        "on the server's machine: ss -ltnp",
    ),
    Cause.TIMED_OUT: (
        "packets are dropped on the way: a firewall, a security group, or no way back",
        "allow TCP from the node to {target} in firewalls and security groups, both ways",
    ),
    Cause.UNREACHABLE: (
        "there is no route",
        "on the node: ip route get {address}; give it a route, or correct the address",
    ),
    Cause.PROHIBITED: (
        "the node itself forbids it: a local firewall rule, or a route of the kind prohibit or "
        "blackhole",
        "on the node: ip route get {address}; nft list ruleset",
    ),
    Cause.RESET: (
        "the connection is made and then reset: a firewall, or a balancer without a server behind",
        "look at the health of the balancer's targets, and at rules that reject by TCP reset",
    ),
}


def attempted(case: Case, *causes: Cause) -> Iterator[Attempt]:
    """Failed attempts, those at one address of a name told once for each address."""
    seen = set[tuple[str, str, str, Cause]]()
    for each in case.failed(*causes):
        key = (*each.hop, each.address, each.cause)
        if key not in seen:
            seen.add(key)
            yield each


def said_by(case: Case, attempt: Attempt) -> tuple[str, ...]:
    """Both ends' words."""
    times = f" ({attempt.times} times)" if attempt.times > 1 else ""
    return (f"{attempt.witness}: {attempt.error}{times}", *case.sights(attempt))


def _about(case: Case, attempt: Attempt, evidence: str, remedy: str) -> Finding:
    address = (attempt.address or attempt.target).rpartition(":")[0].strip("[]")
    notes = "".join(f"; {each}" for each in attempt.notes)
    return Finding(
        subject=str(attempt),
        evidence=f"{evidence}{notes}",
        said_by=said_by(case, attempt),
        remedy=remedy.format(target=attempt.address or attempt.target, address=address),
        about=attempt.hop,
        under=tuple((attempt.origin, each) for each in attempt.addresses),
    )


def _names(case: Case) -> Iterator[Finding]:
    for each in attempted(case, Cause.NO_SUCH_NAME, Cause.NO_NAME_SERVER):
        host = each.target.rpartition(":")[0]
        if each.cause is Cause.NO_SUCH_NAME:
            evidence = f"the name {host} has no address"
        else:
            evidence = f"no name server answered about {host}"
        remedy = (
            f"on the node: getent ahosts {host}; correct DNS or dnsPolicy of the pods, or give the "
            "addresses in --server-addresses of the specification"
        )
        yield _about(case, each, evidence, remedy)


def _tcp(case: Case) -> Iterator[Finding]:
    for each in attempted(case, *_TCP):
        evidence, remedy = _TCP[each.cause]
        if each.cause is Cause.TIMED_OUT and case.saw_nothing(each):
            evidence = (
                "the packets never arrived: the agent dialled, and no server saw it; a firewall, "
                "security group or route between them drops them"
            )
        yield _about(case, each, f"{each.cause}: {evidence}", remedy)


def _proxies(case: Case) -> Iterator[Finding]:
    for each in attempted(case, Cause.PROXY_REFUSED, Cause.PROXY_AWAY):
        host = each.target.rpartition(":")[0].strip("[]")
        away = each.cause is Cause.PROXY_AWAY
        evidence = "the proxy of HTTPS_PROXY " + (
            "cannot be reached" if away else "does not connect to the server"
        )
        remedy = f"add {host} to NO_PROXY of the agents if there is a direct way, else " + (
            "correct HTTPS_PROXY" if away else f"let the proxy CONNECT to {each.target}"
        )
        yield _about(case, each, evidence, remedy)


def _mtu(case: Case) -> Iterator[Finding]:
    for each in attempted(case, Cause.LARGE_FRAMES):
        yield _about(
            case,
            each,
            "small packets pass and large ones do not: the path's MTU is lower than the "
            "interface's, and nobody says so",
            "let ICMP type 3 code 4 (IPv6: packet too big) pass, or lower the MTU of the nodes: "
            "ip link set dev eth0 mtu 1400; tracepath -n {address} finds the hop",
        )


def _idle(case: Case) -> Iterator[Finding]:
    """Connections that all die at the same age are cut by a timer between the ends."""
    for server, _ in case.statuses:
        ages = sorted(
            age
            for event in server.events
            if event.kind == "agent_disconnected"
            and isinstance(age := event.facts.get("seconds"), float)
            and age >= 30
        )
        run = next(
            (
                ages[at : at + CUTS]
                for at in range(len(ages) - CUTS + 1)
                if ages[at + CUTS - 1] - ages[at] <= LIKENESS * ages[at]
            ),
            None,
        )
        if run is not None:
            seconds = sum(run) / len(run)
            yield Finding(
                subject=f"agents → server {server.name}",
                evidence=f"connections end at the same age, {seconds:.0f} s, {len(run)} times",
                said_by=(
                    f"server {server.name}: lifetimes {', '.join(f'{a:.0f} s' for a in run)}",
                ),
                remedy=(
                    f"raise the idle or session timeout of the balancer or firewall above "
                    f"{seconds:.0f} s, or lower --keepalive-time of the agents below it"
                ),
                about=("server", server.name),
            )


HERE: Final = (Source.ATTEMPTS, Source.AGENTS)
WAY: Final = ("KNC305", "KNC303", "KNC301", "KNC302", "KNC304")
"""Codes of a way that leads to no server: what comes behind it cannot be judged."""

CHECKS: Final = (
    Check(
        code="KNC305",
        title="Network policies let agents reach servers and DNS",
        layer=Layer.NETWORK,
        needs=(Source.CLUSTER,),
        evaluate=egress_policy.evaluate,
        unknown=lambda case: case.unread("policies", "NetworkPolicy", "Namespace"),
        blocked_by=("KNC101",),
    ),
    Check(
        code="KNC303",
        title="The HTTP proxy connects to the servers",
        layer=Layer.NETWORK,
        needs=HERE,
        evaluate=_proxies,
        blocked_by=("KNC305",),
    ),
    Check(
        code="KNC301",
        title="The servers' name resolves",
        layer=Layer.NETWORK,
        needs=HERE,
        evaluate=_names,
        blocked_by=("KNC305", "KNC303"),
    ),
    Check(
        code="KNC302",
        title="TCP reaches each server",
        layer=Layer.NETWORK,
        needs=HERE,
        evaluate=_tcp,
        blocked_by=("KNC305", "KNC303", "KNC301"),
    ),
    Check(
        code="KNC304",
        title="Large packets pass",
        layer=Layer.NETWORK,
        needs=(Source.ATTEMPTS,),
        evaluate=_mtu,
        blocked_by=("KNC302",),
    ),
    Check(
        code="KNC306",
        title="Nothing cuts connections at a fixed age",
        layer=Layer.NETWORK,
        needs=(Source.SERVERS,),
        severity=Severity.WARNING,
        evaluate=_idle,
        unknown=Case.server_silence,
    ),
)
