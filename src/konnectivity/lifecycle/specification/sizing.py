"""How many agents, and what each asks of its node: from the number of nodes and what was measured.

All nodes count, also those that take no pods at the moment: an upgrade that cordons half of a
cluster must not take agents away.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

FLOOR: Final = 2
FLOOR_WITH_ZONES: Final = 3
LADDER: Final = ((100, 2), (250, 3), (500, 4), (1000, 6), (2500, 8), (5000, 12))
"""Up to so many nodes, so many agents; beyond, `MOST`. One agent carries some 500 MB/s and 5 000
dials a second: more of them bound what is lost with one, not the throughput."""
MOST: Final = 16

MIB: Final = 2**20
AT_REST: Final = 31_000_000  # bytes resident of an agent without tunnels (docs/benchmarks.md)
KUBERNETES: Final = 9_000_000  # bytes more once it talks to the Kubernetes API
UNDER_WAY: Final = 16_000_000  # bytes in buffers while tunnels are busy
TUNNEL: Final = 1_900  # bytes of an idle tunnel
TUNNELS_PER_NODE: Final = 50  # kubelet, logs, exec and forwarded ports, generously
HELD: Final = 256 * MIB  # what an agent may hold for slow readers (TunnelLimits.process)
STEP: Final = 8 * MIB


@dataclass(frozen=True, slots=True)
class Size:
    """What one agent asks for, as Kubernetes quantities. There is no CPU limit: it only delays."""

    cpu: str
    memory: str
    memory_limit: str


def replicas(nodes: int, zones: int = 0) -> int:
    """Agents of a deployment for so many nodes and zones; 0 stands for few."""
    floor = FLOOR_WITH_ZONES if zones > 1 else FLOOR
    return max(floor, next((count for most, count in LADDER if nodes <= most), MOST))


def size(nodes: int, agents: int, *, kubernetes: bool = False) -> Size:
    """What each of `agents` asks for; `kubernetes` if it talks to the Kubernetes API.

    The limit leaves room for all that an agent may hold for slow readers, so that it ends one
    tunnel before the kernel ends all.
    """
    tunnels = math.ceil(max(nodes, 1) * TUNNELS_PER_NODE / max(agents, 1))
    used = AT_REST + UNDER_WAY + (KUBERNETES if kubernetes else 0) + TUNNEL * tunnels
    return Size(
        cpu=f"{min(500, 10 + 5 * (tunnels // 250))}m",
        memory=_mebibytes(used),
        memory_limit=_mebibytes(2 * used + HELD),
    )


def quantity(text: str) -> float:
    """What a Kubernetes quantity such as `50m` or `64Mi` amounts to.

    Raises:
        ValueError: it is none.
    """
    found = _QUANTITY.fullmatch(text)
    if not found:
        raise ValueError("not a quantity such as 50m or 64Mi")
    return float(found[1]) * _SUFFIXES[found[3] or ""]


_SUFFIXES: Final = {"": 1.0, "m": 1e-3, "k": 1e3} | {
    f"{letter}{binary}": float((1024 if binary else 1000) ** power)
    for power, letter in enumerate("KMGTPE", start=1)
    for binary in ("", "i")
    if letter + binary != "K"
}
_QUANTITY: Final = re.compile(r"(\d+(\.\d*)?|\.\d+)(m|k|Ki|[MGTPE]i?)?")


def _mebibytes(size: int) -> str:
    return f"{math.ceil(size / STEP) * STEP // MIB}Mi"
