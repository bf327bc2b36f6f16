"""KNC107: kube-apiserver's egress selector file, and whether its doors answer.

Source: apiserver.k8s.io EgressSelectorConfiguration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from konnectivity.diagnose.case import Case, Egress
from konnectivity.diagnose.check import Finding
from konnectivity.diagnose.surroundings import mappings

KIND: Final = "EgressSelectorConfiguration"
PROTOCOLS: Final = {"GRPC": "grpc", "HTTPConnect": "http-connect", "Direct": ""}


def evaluate(case: Case) -> Iterator[Finding]:
    """What is wrong with the file, with each door, and with what it is spoken to with."""
    for dial in [each for each in case.dials if each.stage == "frontend"][:1]:
        yield Finding(
            subject=dial.frontend,
            evidence=f"the server's frontend does not answer: {dial.error}",
            said_by=(f"dial through {dial.frontend}", *_modes(case)),
            remedy="start the server, or correct --frontend and --frontend-mode",
            about=("egress",),
        )
    egress = case.egress
    if egress is None:
        return
    for evidence, remedy in faults(egress, case):
        yield Finding(
            subject=egress.path,
            evidence=evidence,
            said_by=(f"file {egress.path}", *_modes(case)),
            remedy=remedy,
            about=("egress",),
        )


def faults(egress: Egress, case: Case) -> Iterator[tuple[str, str]]:
    """What is wrong with the file, and what to do about it."""
    manual = "see docs/how-to/kube-apiserver.md"
    content = egress.content
    if egress.error or not isinstance(content, Mapping):
        why = egress.error or "it is no mapping"
        yield f"it cannot be read: {why}; kube-apiserver dials directly or does not start", manual
        return
    if content.get("kind") != KIND:
        yield f"its kind is {content.get('kind')!r}, not {KIND}", manual
        return
    selections = {str(each.get("name")): each for each in mappings(content.get("egressSelections"))}
    cluster = selections.get("cluster")
    if cluster is None:
        yield (
            "there is no selection `cluster`, so kube-apiserver dials nodes, pods and services "
            "directly",
            f"add one; {manual}",
        )
        return
    connection = cluster.get("connection") or {}
    protocol = str(connection.get("proxyProtocol"))
    if protocol not in PROTOCOLS:
        yield f"proxyProtocol {protocol!r} is none of {', '.join(PROTOCOLS)}", manual
        return
    if protocol == "Direct":
        yield "selection `cluster` is Direct: the tunnel is not used", manual
        return
    for door, why in egress.doors.items():
        if why:
            yield f"{door} does not answer: {why}", "start the server, or correct its --uds-name"
    wanted = PROTOCOLS[protocol]
    modes = {mode for _, status in case.statuses for mode in status.server.modes}
    if modes and wanted not in modes:
        yield (
            f"proxyProtocol is {protocol}, the servers serve {', '.join(sorted(modes))}",
            f"start the servers with --mode={wanted}, or grpc,http-connect for both",
        )


def _modes(case: Case) -> list[str]:
    return [
        f"server {server.name}: mode {', '.join(status.server.modes)}"
        for server, status in case.statuses
    ]


def doors_of(content: Any) -> list[str]:
    """Sockets and URLs that a file names: `unix:/path` or `host:port`."""
    found = []
    selections = content.get("egressSelections") if isinstance(content, Mapping) else None
    for each in mappings(selections):
        transport = ((each.get("connection") or {}).get("transport")) or {}
        uds = (
            (transport.get("uds") or {}).get("udsName") if isinstance(transport, Mapping) else None
        )
        tcp = (transport.get("tcp") or {}).get("url") if isinstance(transport, Mapping) else None
        if uds:
            found.append(f"unix:{uds}")
        if tcp:
            found.append(str(tcp).partition("://")[2] or str(tcp))
    return list(dict.fromkeys(found))
