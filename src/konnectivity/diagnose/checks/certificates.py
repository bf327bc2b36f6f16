"""6xx: certificates in use and on disk, rotation, and the clocks that judge them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from konnectivity.diagnose.case import Case, moment, name_of
from konnectivity.diagnose.check import Check, Finding, Layer, Severity, Source
from konnectivity.gotext import one_line

SOON: Final = 14 * 86400.0
"""Seconds before its end from which a certificate is worth a warning."""
SKEW: Final = 10.0
"""Seconds by which clocks may differ: leases of 30 s and fresh tokens still work."""
GREAT_SKEW: Final = 60.0


def _clocks(case: Case) -> Iterator[Finding]:
    here = f"this machine: {moment(case.now)}"
    for server in case.facts.servers:
        if server.skew is None or abs(server.skew) < SKEW + server.seconds:
            continue
        yield _skewed(f"server {server.name}", server.skew, server.name, here)
    for who, skew in case.clocks.items():
        if abs(skew) >= SKEW:
            yield _skewed(who, skew, who, here)
    for agent in case.agents:
        beat = agent.heartbeat
        if beat is not None and beat.updated_at - case.now > SKEW:
            skew = beat.updated_at - case.now
            yield _skewed(f"agent {name_of(agent)}", skew, name_of(agent), here)


def _skewed(who: str, skew: float, name: str, here: str) -> Finding:
    direction = "ahead of" if skew > 0 else "behind"
    return Finding(
        subject=one_line(who),
        evidence=f"its clock is {abs(skew):.0f} s {direction} ours: tokens, leases and "
        "certificates are judged by it",
        said_by=(one_line(f"{who}: its answer's time"), here),
        remedy="compare `date -u` on both machines; chronyc tracking or timedatectl tells whether "
        "the clock is kept",
        about=("clock", name),
        explains=(("clock",),),
        severity=Severity.ERROR if abs(skew) >= GREAT_SKEW else Severity.WARNING,
    )


def _expiry(case: Case) -> Iterator[Finding]:
    for server, status in case.statuses:
        for each in status.server.certificates:
            yield from _file(
                case,
                f"server {server.name}",
                each.name,
                each.not_after,
                each.disk_not_after,
                each.error,
                # Another certificate lies on the disk for a while after each renewal.
                differs=each.disk_fingerprint_sha256 not in (None, each.fingerprint_sha256),
                settled=case.now - each.loaded_at > 600,
            )
    for agent in case.agents:
        if agent.heartbeat is not None:
            for file in agent.heartbeat.certificates:
                yield from _file(
                    case,
                    f"agent {name_of(agent)}",
                    file.name,
                    file.not_after,
                    file.disk_not_after,
                    file.error,
                )
        elif (shown := agent.certificate) is not None:
            who = f"agent {name_of(agent)}"
            yield from _file(case, who, "client certificate", shown.not_after, None, "")


def _file(
    case: Case,
    who: str,
    name: str,
    not_after: float,
    on_disk: float | None,
    error: str,
    *,
    differs: bool = False,
    settled: bool = False,
) -> Iterator[Finding]:
    left = not_after - case.now
    newer = on_disk is not None and on_disk > not_after + 1
    if error:
        evidence = f"the file on the disk is not in use: {error}"
        remedy = f"put a certificate that fits its key in the place of --{name}"
    elif left < SOON and newer:
        evidence = "a newer one lies on the disk and is not in use"
        remedy = "wait for --certificate-reload-interval, else restart the program"
    elif left < SOON:
        evidence = "nothing newer lies on the disk" if on_disk else "renew it"
        remedy = "konnectivity certs rotate; the programs take the new files over by themselves"
    elif differs and settled and newer:
        evidence = "another one lies on the disk and is not in use"
        remedy = "look at the log of the program for the reason"
    else:
        return
    ends = f"expired at {moment(not_after)}" if left <= 0 else f"expires at {moment(not_after)}"
    yield Finding(
        subject=one_line(f"{who}: {name}"),
        evidence=one_line(f"in use {ends}; {evidence}"),
        said_by=(one_line(f"{who}: its certificates"),),
        remedy=remedy,
        about=(
            "certificate",
            *(("server",) if who.startswith("server ") and left <= 0 else (who, name)),
        ),
        severity=Severity.ERROR if left <= 0 else None,
    )


CHECKS: Final = (
    Check(
        code="KNC603",
        title="Clocks agree",
        layer=Layer.CERTIFICATES,
        needs=(Source.SERVERS, Source.AGENTS, Source.CLOCKS),
        evaluate=_clocks,
        unknown=Case.server_silence,
    ),
    Check(
        code="KNC601",
        title="Certificates in use are valid, and those on the disk are in use",
        layer=Layer.CERTIFICATES,
        needs=(Source.SERVERS, Source.AGENTS),
        severity=Severity.WARNING,
        evaluate=_expiry,
        unknown=Case.server_silence,
    ),
)
