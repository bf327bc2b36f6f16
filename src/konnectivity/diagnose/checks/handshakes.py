"""2xx: how agents and servers meet: TLS, ALPN, certificates, tokens, keepalive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from konnectivity.diagnose.attempt import Attempt, Cause
from konnectivity.diagnose.case import Case, host_of, moment
from konnectivity.diagnose.check import About, Check, Finding, Layer, Severity, Source
from konnectivity.diagnose.checks.network import WAY, attempted, said_by
from konnectivity.gotext import one_line

MOST: Final = 20
"""Errors of one server that are told one by one."""

_ALPN: Final = {
    Cause.NO_ALPN: (
        "TLS is up, and HTTP/2 is not agreed on: a balancer of layer 7 without it stands between",
        "pass TCP through to the servers (layer 4), or switch HTTP/2 on in the balancer",
    ),
    Cause.PLAIN_HTTP: (
        "something answers in plain HTTP: a proxy, or another service has this port",
        "correct host and port, or take the proxy out of the way to {target}",
    ),
    Cause.NOT_TLS: (
        "what answers there does not speak TLS",
        "correct host and port: {target} is not the servers' port for agents",
    ),
    Cause.INTERCEPTED: (
        "TLS is intercepted: what answers makes certificates for any name",
        "except {target} from TLS inspection; the agents trust the servers' CA alone, rightly",
    ),
    Cause.SILENT: (
        "the connection is made, and what answers it says nothing",
        "look at the balancer between, and at the server's load: konnectivity status --servers",
    ),
}
_TLS: Final = {
    Cause.UNTRUSTED: (
        "the server's certificate is of a CA that the agent does not trust",
        "give the agents the CA of the servers' certificate: --ca-bundle of the specification, "
        "--ca-cert of the agent; after a rotation both CAs",
    ),
    Cause.EXPIRED: (
        "the server's certificate, or that of its CA, has expired",
        "renew it: konnectivity certs rotate; the server takes the new file over by itself",
    ),
    Cause.NOT_YET_VALID: (
        "the server's certificate is not valid yet, by the agent's clock",
        "compare `date -u` on both machines and set the clocks right (NTP), else issue it anew",
    ),
    Cause.WRONG_NAME: (
        "the server's certificate does not have the name that agents use",
        "issue it with that name: konnectivity certs issue --role=server --names=... --replace",
    ),
    Cause.OURS_REFUSED: (
        "the server does not accept the agent's certificate",
        "let --cluster-ca-cert of the server have the CA of the agents' certificates, and renew "
        "the agents' certificate: konnectivity certs show",
    ),
}
_CERTIFICATE: Final[About] = ("certificate", "server")
_CLOCK: Final[About] = ("clock",)


def _finding(case: Case, attempt: Attempt, words: tuple[str, str], *under: About) -> Finding:
    notes = "".join(f"; {each}" for each in attempt.notes)
    return Finding(
        subject=str(attempt),
        evidence=f"{words[0]}{notes}",
        said_by=said_by(case, attempt),
        remedy=words[1].replace("{target}", attempt.target),
        about=attempt.hop,
        under=(*under, *((attempt.origin, each) for each in attempt.addresses)),
    )


def _alpn(case: Case) -> Iterator[Finding]:
    return (_finding(case, each, _ALPN[each.cause]) for each in attempted(case, *_ALPN))


def _tls(case: Case) -> Iterator[Finding]:
    for each in attempted(case, *_TLS):
        timely = each.cause in (Cause.EXPIRED, Cause.NOT_YET_VALID)
        under = (_CERTIFICATE, _CLOCK, (*_CLOCK, each.origin)) if timely else ()
        yield _finding(case, each, _TLS[each.cause], *under)
    yield from _unclaimed(case, "handshake_failed")


def _tokens(case: Case) -> Iterator[Finding]:
    for each in attempted(case, Cause.TOKEN, Cause.TOKEN_UNREVIEWED):
        yield _finding(case, each, _token_words(each.error), ("token",), _CLOCK)
    yield from _unclaimed(case, "agent_refused")


def _token_words(error: str) -> tuple[str, str]:
    text = error.lower()
    if "audience" in text:
        return (
            "the agent's token is for another audience",
            "give --audience of the specification what --authentication-audience of the server has",
        )
    if "expired" in text:
        return (
            "the agent's token has expired",
            "let the kubelet renew it (a projected token), and compare the clocks of both machines",
        )
    if "namespace" in text or ("service account" in text and "expected" in text):
        return (
            "the token is another account's",
            "let --agent-namespace and --agent-service-account of the server name the right one",
        )
    if "identifiers " in text or "bound to a node" in text:
        return (
            "the agent claims identifiers that are not its node's",
            "let --agent-identifiers have host=$(NODE_NAME) alone, as rendered manifests do",
        )
    if "failed to authenticate" in text:
        return (
            "the server could not have the token reviewed",
            "look whether the server reaches the Kubernetes API, and at its rights (KNC104)",
        )
    return (
        "the server refuses the agent's token",
        "compare issuer and audience: kubectl create token konnectivity-agent -n kube-system "
        "--audience=system:konnectivity-server, and the API's --service-account-issuer",
    )


def _unclaimed(case: Case, kind: str) -> Iterator[Finding]:
    """What servers saw fail of peers that do not tell themselves, the last of each error.

    Of agents that tell, it is evidence of theirs already.
    """
    failed = [each for each in case.attempts if not each.worked]
    if any(not each.sources for each in failed):
        return  # it may be any of them
    told = {host_of(source) for each in failed for source in each.sources}
    for server in case.facts.servers:
        last = {
            str(event.facts.get("error")): event
            for event in server.events
            if event.kind == kind
            and case.is_recent(event.time)
            and host_of(str(event.facts.get("address") or "")) not in told
        }
        for error, event in list(last.items())[:MOST]:
            address = str(event.facts.get("address") or "")
            who = one_line(str(event.facts.get("agent") or "") or address)
            words = (
                _token_words(error)
                if kind == "agent_refused"
                else (
                    "a TLS handshake failed at the server",
                    "find out who that is; of an agent: konnectivity doctor --node on its node",
                )
            )
            unavailable = event.facts.get("reason") == "unavailable"
            yield Finding(
                subject=f"{who} → server {server.name}",
                evidence=one_line(f"{words[0]}: {error}"),
                said_by=(
                    f"server {server.name}: at {moment(event.time)}, from {one_line(address)}",
                ),
                remedy=words[1],
                about=(who, server.name),
                under=(("token",), _CLOCK) if unavailable or kind == "agent_refused" else (_CLOCK,),
                # Port scanners and health checks of balancers fail so, too.
                severity=Severity.WARNING if kind == "handshake_failed" else None,
            )


def _pings(case: Case) -> Iterator[Finding]:
    for each in attempted(case, Cause.PINGS):
        yield _finding(case, each, _PINGS)
    for server, _ in case.statuses:
        ends = [
            event
            for event in server.events
            if event.kind == "agent_disconnected"
            and case.is_recent(event.time)
            and "too many pings" in str(event.facts.get("cause")).replace("_", " ")
        ]
        for agent, count in Counter(str(each.facts.get("agent")) for each in ends).items():
            yield Finding(
                subject=one_line(f"{agent} → server {server.name}"),
                evidence=_PINGS[0],
                said_by=(f"server {server.name}: closed {count} connections, too_many_pings",),
                remedy=_PINGS[1],
                about=(agent, server.name),
            )


_PINGS: Final = (
    "the agent pings more often than the other end allows (too_many_pings)",
    "raise --keepalive-time of the agents, or look at the balancer's limit for HTTP/2 pings",
)


ANY: Final = (Source.ATTEMPTS, Source.AGENTS, Source.SERVERS)

CHECKS: Final = (
    Check(
        code="KNC205",
        title="Nothing between agent and server takes TLS or HTTP/2 apart",
        layer=Layer.MESH,
        needs=(Source.ATTEMPTS, Source.AGENTS),
        evaluate=_alpn,
        blocked_by=WAY,
    ),
    Check(
        code="KNC203",
        title="Agents and servers accept each other's certificates",
        layer=Layer.MESH,
        needs=ANY,
        evaluate=_tls,
        blocked_by=(*WAY, "KNC603", "KNC601", "KNC205"),
        unknown=Case.server_silence,
    ),
    Check(
        code="KNC204",
        title="Servers accept the agents' tokens",
        layer=Layer.MESH,
        needs=ANY,
        evaluate=_tokens,
        blocked_by=("KNC104", *WAY, "KNC205", "KNC203", "KNC603"),
        unknown=Case.server_silence,
    ),
    Check(
        code="KNC207",
        title="Keepalive pings are accepted",
        layer=Layer.MESH,
        needs=ANY,
        severity=Severity.WARNING,
        evaluate=_pings,
        blocked_by=(*WAY, "KNC205", "KNC203", "KNC204"),
        unknown=Case.server_silence,
    ),
)
