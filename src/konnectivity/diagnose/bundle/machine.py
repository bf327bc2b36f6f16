"""What this machine tells: versions, the way out and the resolver, certificates that lie here."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import ssl
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from konnectivity import __version__
from konnectivity.diagnose.bundle.archive import File, Found, Miss, file_name
from konnectivity.diagnose.bundle.redaction import PROXIES
from konnectivity.diagnose.facts import Facts
from konnectivity.observe.protection import LOOPBACK
from konnectivity.observe.status import Certificate
from konnectivity.observe.status_json import to_plain

RESOLVER: Final = Path("/etc/resolv.conf")
LARGEST: Final = 1 << 20
"""Bytes of a file that are read."""
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----\n?")


def versions(facts: Facts) -> list[Found]:
    """Ours, those of servers and agents, the cluster's."""
    cluster = facts.cluster
    content = {
        "konnectivity": __version__,
        "python": sys.version,
        "openssl": ssl.OPENSSL_VERSION,
        "system": platform.platform(),
        "kubernetes": cluster.version if cluster else None,
        "servers": {
            each.name: each.status.server.version if each.status else None for each in facts.servers
        },
        "agents": {each.id: each.version for each in facts.agents},
    }
    return [File("versions.json", content)]


def environment(environ: Mapping[str, str]) -> list[Found]:
    """Proxies and resolver of this machine; those of the agents are in their pods."""
    proxies = {name: value for name, value in environ.items() if name.lower() in PROXIES}
    found: list[Found] = [File("environment/proxies.json", proxies)]
    try:
        found.append(File("environment/resolv.conf", _read(RESOLVER).decode(errors="replace")))
    except OSError as error:
        found.append(Miss("environment/resolv.conf", _line(error)))
    return found


async def certificates(facts: Facts, *, public_parts: bool) -> list[Found]:
    """What servers say of their files; and the files, of servers that run on this machine.

    Certificates hold addresses in a form in which they cannot be masked: `public_parts` says
    whether they may go in.
    """
    told: dict[str, Any] = {}
    files: list[Found] = []
    for server in facts.servers:
        if server.status is None:
            files.append(Miss(server.name, server.error or "it has no status"))
            continue
        records = server.status.server.certificates
        told[server.name] = [to_plain(each) for each in records]
        if not public_parts:
            why = "they hold addresses that cannot be masked"
            files.append(Miss(f"certificate files of {server.name}", why))
        elif _is_here(server.url):
            files += await asyncio.to_thread(_chains, file_name(server.name), records)
    shown = {
        each.id: to_plain(each.certificate) for each in facts.agents if each.certificate is not None
    }
    return [File("certificates/in-use.json", {"servers": told, "agents": shown}), *files]


def _is_here(url: str) -> bool:
    return url.startswith("unix:") or urlsplit(url).hostname in LOOPBACK


def _chains(folder: str, records: Iterable[Certificate]) -> list[Found]:
    """The certificates of each file, and nothing else of it."""
    found: list[Found] = []
    for record in records:
        path = f"certificates/{folder}/{file_name(record.name)}.pem"
        try:
            blocks = _CERTIFICATE.findall(_read(Path(record.path)))
        except OSError as error:
            found.append(Miss(path, _line(error)))
            continue
        text = b"".join(blocks).decode("ascii", errors="replace")
        found.append(File(path, text) if blocks else Miss(path, "the file has no certificate"))
    return found


def _read(path: Path) -> bytes:
    """The beginning of a file; never of a pipe, which could have us wait."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        return file.read(LARGEST) or b""


def _line(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
