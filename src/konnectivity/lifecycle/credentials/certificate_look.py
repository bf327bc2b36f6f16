"""One look at a directory of certificates, off the event loop: it is kept, and then read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from konnectivity.errors import CertificateError, ConfigError, DirectoryBusy
from konnectivity.pki import upkeep
from konnectivity.pki.upkeep import Holding, Stamp


@dataclass(frozen=True, slots=True)
class Order:
    """What one look at the directory may do.

    `make` it when there is none, and issue `agents` a certificate though none is due. `there` says
    whether the cluster has one; `hosts` are what agents call the servers.
    """

    write: bool = False
    make: bool = False
    agents: bool = False
    there: bool = False
    hosts: tuple[str, ...] = ()


@dataclass(slots=True)
class Look:
    """What came of it. `trouble` is why not all was done or could be read; `told` is for a log."""

    holding: Holding | None = None
    stamp: Stamp | None = None
    issued: int = 0
    trouble: str = ""
    busy: bool = False
    """Whether somebody else is just changing the directory."""
    told: list[str] = field(default_factory=list)


def take_look(path: Path, order: Order, *, now: float) -> Look:
    """Keep a directory, and read it. Blocks."""
    look = Look()
    try:
        if order.write:
            _keep(path, order, now, look)
    except DirectoryBusy:
        look.busy = True
    except (CertificateError, ConfigError, OSError) as error:
        look.trouble = str(error)
    try:
        if upkeep.is_made(path):
            look.stamp = upkeep.stamp(path)
            look.holding = upkeep.read(path, now=now)
    except (CertificateError, ConfigError, OSError) as error:
        look.trouble = look.trouble or str(error)
    return look


def _keep(path: Path, order: Order, now: float, look: Look) -> None:
    if upkeep.is_made(path):
        look.issued = upkeep.renew(path, now=now, tell=look.told.append, agents=order.agents)
    elif order.make:
        upkeep.make(path, order.hosts, now=now, tell=look.told.append)
    elif order.there:
        raise CertificateError(
            f"{path}: holds no CA, but agents in the cluster have a certificate already: bring "
            "back the directory that it is from, or make one with konnectivity certs init"
        )
