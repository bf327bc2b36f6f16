"""Keeps a directory in order for a program that looks at it again and again.

What `konnectivity certs` does when people ask for it: the directory is made when there is none,
its certificates are renewed when they are due or damaged. And what agents need of it is read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from konnectivity.errors import CertificateError
from konnectivity.net.certificate import Certificate
from konnectivity.pki import files
from konnectivity.pki.authority import KeyPair
from konnectivity.pki.directory import BUNDLE, CERTIFICATE, KEY, STATE, Directory
from konnectivity.pki.inspection import Report, examine, examine_leaf, reason_to_renew
from konnectivity.pki.issuing import Tell, add, initialise, new_authority, settle
from konnectivity.pki.renewal import renew_at
from konnectivity.pki.role import Leaf, Role
from konnectivity.pki.state import State

AGENT: Final = Leaf("agent", Role.AGENT)
SERVER: Final = "server"
TRIES: Final = 3
"""Looks at a pair of files that do not fit together: somebody may be replacing them."""
BETWEEN: Final = 0.05  # seconds from one look to the next

Stamp: TypeAlias = tuple[tuple[str, int, int, int], ...]
"""Tells whether a directory's files are the ones that were looked at before."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What agents get of a directory: their certificate, its key, and the CAs to trust.

    `ends` are the ends of validity of all its certificates, in Unix seconds by role, of several
    with one role the first; `due` is when the first of the leaves should be renewed.
    """

    pair: KeyPair
    certificate: Certificate
    bundle: bytes
    ends: Mapping[str, float]
    due: float


def stamp(path: Path) -> Stamp:
    """What to compare for a change of files. Raises OSError."""
    folders = sorted(each.path for each in os.scandir(path) if each.is_dir())
    names = [f"{each}/{name}" for each in folders for name in (CERTIFICATE, KEY, BUNDLE)]
    found = []
    for name in (f"{path}/{STATE}", f"{path}/{BUNDLE}", *names):
        with suppress(FileNotFoundError):
            stat = os.stat(name)  # noqa: PTH116 - many, and often
            found.append((name, stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(found)


def is_made(path: Path) -> bool:
    """Whether there is such a directory. Raises OSError if that cannot be seen."""
    try:
        return bool((path / STATE).stat())
    except (FileNotFoundError, NotADirectoryError):
        return False


def make(path: Path, hosts: tuple[str, ...], *, now: float, tell: Tell) -> None:
    """Make a directory with a CA of its own, for agents and for servers called `hosts`.

    Raises:
        CertificateError: it cannot be written; nothing of it is left.
        ConfigError: there are other files in it, or a host cannot be one.
    """
    leaves = (Leaf(SERVER, Role.SERVER, hosts), AGENT)
    initialise(path, State(leaves), authority=new_authority(now=now), now=now, tell=tell)
    tell(f"{path}: made, with a CA of its own; servers get their certificate from {path / SERVER}")


def renew(path: Path, *, now: float, tell: Tell, agents: bool = False) -> int:
    """Renew what is due or damaged, and the agents' certificate if asked to.

    Nothing is written when nothing needs it. Returns how many certificates were issued.

    Raises:
        CertificateError, ConfigError: as `settle`.
    """
    if not agents and not _wants(Directory(path), now):
        return 0
    issued: list[str] = []

    def told(line: str) -> None:
        issued.append(line.partition(":")[0])
        tell(line)

    with Directory.changing(path) as directory:
        settle(directory, now=now, tell=told)
        leaf = directory.state.agent
        if leaf is None:
            add(directory, AGENT, now=now, tell=told, replacing=False)
        elif agents and leaf.name not in issued:
            add(directory, leaf, now=now, tell=told, replacing=True)
    return len(issued)


def read(path: Path, *, now: float, pause: Callable[[float], None] = time.sleep) -> Holding:
    """What agents get.

    Raises:
        CertificateError: their certificate is damaged, or of a CA that is not trusted; or a file
            cannot be read.
        ConfigError: there is no such directory, or a file of a CA is damaged.
    """
    for _ in range(TRIES - 1):
        try:
            return _read(Directory(path), now)
        except CertificateError:
            pause(BETWEEN)
    return _read(Directory(path), now)


def _read(directory: Directory, now: float) -> Holding:
    leaf = directory.state.agent
    if leaf is None:
        raise CertificateError(f"{directory.path}: has no certificate with the role agent")
    report, pair = _look(directory, leaf, now)
    faults = _faults(report, now)
    if not faults and report.issuer not in directory.state.trusted:
        faults = [f"is of CA {report.issuer}, which is not trusted"]
    if faults:
        raise CertificateError(f"{directory.folder(leaf)}: {'; '.join(faults)}")
    return _holding(directory, report, pair, now)


def _look(directory: Directory, leaf: Leaf, now: float) -> tuple[Report, KeyPair]:
    """What is wrong with a leaf, and its files; none of them was replaced in between."""
    folder = directory.folder(leaf)
    pair = KeyPair(files.read(folder / CERTIFICATE), files.read(folder / KEY))
    report = examine_leaf(directory, leaf, now=now)
    if pair != KeyPair(files.read(folder / CERTIFICATE), files.read(folder / KEY)):
        return Report(leaf.name, leaf.role, problems=("is being replaced",)), pair
    return report, pair


def _faults(report: Report, now: float) -> list[str]:
    """Problems but for its time: who keeps an old certificate loses nothing by that."""
    late = report.certificate.fault_at(now) if report.certificate else ""
    return [each for each in report.problems if each != late]


def _holding(directory: Directory, report: Report, pair: KeyPair, now: float) -> Holding:
    assert report.certificate is not None  # noqa: S101 - else there were problems
    findings = examine(directory, now=now)
    ends: dict[str, float] = {}
    trusted = directory.state.trusted
    numbered = zip(directory.state.known, findings.authorities, strict=True)
    kept = [each for number, each in numbered if number in trusted]
    for each in (*kept, *findings.leaves):
        if each.certificate is not None:
            end = each.certificate.not_after
            ends[each.role] = min(end, ends.get(each.role, end))
    due = min(_due(directory, each, now) for each in directory.state.leaves)
    return Holding(pair, report.certificate, directory.bundle(), ends, due)


def _due(directory: Directory, leaf: Leaf, now: float) -> float:
    certificate = examine_leaf(directory, leaf, now=now).certificate
    if certificate is None or reason_to_renew(directory, leaf, now=now):
        return now
    return renew_at(certificate)


def _wants(directory: Directory, now: float) -> bool:
    """Whether something is to be written."""
    state = directory.state
    interrupted = state.rotation is not None and not state.rotation.since
    return (
        interrupted
        or directory.state.agent is None
        or any(reason_to_renew(directory, leaf, now=now) for leaf in state.leaves)
        or any(_differs(each, directory.bundle()) for each in directory.bundle_paths())
    )


def _differs(path: Path, wanted: bytes) -> bool:
    return not path.is_file() or files.read(path) != wanted
