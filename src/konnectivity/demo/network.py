"""Where the cluster lives: its own network namespace where the machine allows one, else loopback.

Isolated, the control plane and the cluster are two namespaces joined by one wire. Its control
plane end has a route to the wire and nothing else; the node's address is inside the cluster:

    control plane 192.0.2.1 ---- wire ---- 192.0.2.2 cluster | node 10.0.0.10

Namespaces have no names here: they end with their last process, and the wire with them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from konnectivity.demo.process import ProcessError, output_of, running

SERVER_HOST: Final = "192.0.2.1"  # RFC 5737: free in every network, and this one is new
WIRE_HOST: Final = "192.0.2.2"
NODE_HOST: Final = "10.0.0.10"
KUBELET_PORT: Final = 10250

_FLAGS: Final = {
    "root": ["--net"],
    "user": ["--user", "--map-root-user", "--net"],
}
_DESCRIPTIONS: Final = {
    "root": "its own network namespace, made as root",
    "user": "its own network namespace, made in an unprivileged user namespace",
    "loopback": "loopback, not isolated",
}
_TRIAL: Final = "ip link add wire type veth peer name end && unshare --net true"


@dataclass(frozen=True, slots=True)
class Network:
    """Addresses of one demo. `enter` goes before a command that is to run in the cluster."""

    kind: str
    server_host: str
    node_host: str
    kubelet_port: int
    enter: tuple[str, ...] = ()

    @property
    def is_isolated(self) -> bool:
        """Whether the control plane has no route into the cluster."""
        return self.kind != "loopback"

    @property
    def description(self) -> str:
        """Where the cluster lives, for people."""
        return _DESCRIPTIONS[self.kind]


@dataclass(frozen=True, slots=True)
class Isolation:
    """What the machine allows: `root`, `user`, or `loopback` and the reason why no better."""

    kind: str
    reason: str = ""

    def enter(self, argv: Sequence[str]) -> None:
        """Replace this process by `argv` inside a namespace of its own, the control plane's."""
        command = ["unshare", *_FLAGS[self.kind], "--", *argv]
        os.execvp("unshare", command)  # noqa: S606, S607 - PATH knows where util-linux is


def find_isolation() -> Isolation:
    """Try, in namespaces that are gone at once, whether both ends and the wire can be made."""
    for program in ("unshare", "nsenter", "ip"):
        if shutil.which(program) is None:
            package = "iproute2" if program == "ip" else "util-linux"
            return Isolation("loopback", f"the program `{program}` (package {package}) is missing")
    reason = ""
    for kind in ("root", "user") if os.geteuid() == 0 else ("user",):
        trial = subprocess.run(  # noqa: S603 - our own words
            ["unshare", *_FLAGS[kind], "--", "sh", "-c", _TRIAL],  # noqa: S607 - as above
            capture_output=True,
            text=True,
            check=False,
        )
        if trial.returncode == 0:
            return Isolation(kind)
        reason = reason or " ".join(trial.stderr.split()) or f"status {trial.returncode}"
    return Isolation("loopback", reason)


@contextlib.asynccontextmanager
async def cluster_network(kind: str, *, directory: Path) -> AsyncIterator[Network]:
    """Lay the network of this `kind`; the process must have entered its isolation before.

    Raises:
        ProcessError: a step failed; with the words of the command that did.
    """
    if kind == "loopback":
        yield Network(kind, "127.0.0.1", "127.0.0.1", 0)
        return
    holder = ("unshare", "--net", "--", "sh", "-c", "echo made; exec cat")
    log = directory / "namespace.log"
    async with running("the cluster's namespace", holder, log=log, announces=True) as process:
        await process.read_line()
        enter = ("nsenter", f"--net=/proc/{process.pid}/ns/net", "--")
        await _configure(
            (),
            "link set lo up",
            f"link add wire type veth peer name wire netns {process.pid}",
            f"address add {SERVER_HOST}/30 dev wire",
            "link set wire up",
        )
        await _configure(
            enter,
            "link set lo up",
            f"address add {NODE_HOST}/32 dev lo",
            f"address add {WIRE_HOST}/30 dev wire",
            "link set wire up",
        )
        yield Network(kind, SERVER_HOST, NODE_HOST, KUBELET_PORT, enter)


async def _configure(enter: Sequence[str], *commands: str) -> None:
    try:
        await output_of(*enter, "ip", "-batch", "-", stdin="\n".join(commands) + "\n")
    except ProcessError as error:
        raise ProcessError(f"cannot lay the cluster's network: {error}") from error
