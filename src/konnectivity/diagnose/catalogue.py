"""All checks, in the order of asking, and the codes that nothing here checks."""

from __future__ import annotations

from typing import Final

from konnectivity.diagnose.check import Check
from konnectivity.diagnose.checks import (
    certificates,
    disruption,
    handshakes,
    installation,
    lifecycle,
    load,
    mesh,
    network,
    targets,
)

CHECKS: Final[tuple[Check, ...]] = (
    *installation.CHECKS,
    *network.CHECKS,
    *certificates.CHECKS,
    *handshakes.CHECKS,
    *mesh.CHECKS,
    *targets.CHECKS,
    *load.CHECKS,
    *lifecycle.CHECKS,
    *disruption.CHECKS,
)

NOT_CHECKED: Final = {
    "KNC506": ("Throughput and round trip of a tunnel", "`make bench`, `konnectivity demo`"),
    "KNC602": ("Progress of a CA rotation", "`konnectivity certs rotate --ca --status`"),
}
"""Reserved codes: what they are about, and what tells it meanwhile."""

CODES: Final = frozenset(each.code for each in CHECKS)
