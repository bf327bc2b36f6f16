"""A server and an agent as processes, started alike whoever wrote them: upstream's flags only."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.certificate import Certificates
from bench.error import BenchError

READY_LIMIT = 30.0  # seconds from start to both processes ready
STOP_LIMIT = 5.0  # seconds from SIGTERM to SIGKILL
# Upstream takes no port of the ephemeral range (49152 and up), and the kernel hands out its own
# from 32768.
PORTS = range(20000, 32000)

Command = tuple[str, ...]
OURS: dict[str, Command] = {
    role: (sys.executable, "-m", "konnectivity", role) for role in ("server", "agent")
}


@dataclass(frozen=True, slots=True)
class PairSpec:
    """Which programs make up a pair; `name` is `ours`, `ref` or server+agent, as `ours+ref`."""

    name: str
    server: Command
    agent: Command


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair that serves: the path of its frontend socket and its process ids, 0 for none.

    `speaks` is the load generator's mode if it is not that of the row; `endpoint_port` is where
    the pair leads to if it cannot be told.
    """

    name: str
    uds: Path
    server: int
    agent: int
    speaks: str = ""
    endpoint_port: int = 0


def reference() -> dict[str, Command]:
    """Return the reference programs by role, as REF_SERVER and REF_AGENT name them."""
    found: dict[str, Command] = {}
    for role, variable in (("server", "REF_SERVER"), ("agent", "REF_AGENT")):
        if path := os.environ.get(variable):
            if not os.access(path, os.X_OK) or Path(path).is_dir():
                raise BenchError(f"{variable} is {path!r}: it must be a program that can be run")
            found[role] = (path,)
    return found


def pair_spec(name: str) -> PairSpec:
    """Return what `name` stands for.

    Raises:
        BenchError: the name is unknown, or its reference program is not in the environment.
    """
    known = {"ours": OURS, "ref": reference()}
    server, _, agent = name.partition("+")
    commands = []
    for role, origin in (("server", server), ("agent", agent or server)):
        if origin not in known:
            raise BenchError(f"pair {name!r}: use ours, ref, ours+ref or ref+ours")
        if role not in known[origin]:
            raise BenchError(f"pair {name!r} needs REF_{role.upper()} in the environment")
        commands.append(known[origin][role])
    return PairSpec(name, commands[0], commands[1])


def free_ports(count: int) -> list[int]:
    """Return `count` ports of `PORTS` that nobody listens on."""
    found: list[int] = []
    for port in random.sample(PORTS, 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise BenchError(f"no {count} free ports in {PORTS.start} to {PORTS.stop}")


@dataclass(frozen=True, slots=True)
class Server:
    """A server that serves: its frontend socket, the ports of agents and health, its process."""

    uds: Path
    agent_port: int
    health_port: int
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def running(spec: PairSpec, mode: str, certificates: Certificates) -> Iterator[Pair]:
    """Start a pair in `mode`, hand it out once both are ready, and stop it.

    Raises:
        BenchError: a process ended or did not become ready; with the last line of its log.
    """
    with ExitStack() as stack:
        server = stack.enter_context(serving(spec, mode, certificates))
        agent_health, agent_admin = free_ports(2)
        log = server.log.with_name("agent.log")
        agent = stack.enter_context(
            started(
                (
                    *spec.agent,
                    f"--ca-cert={certificates.ca}",
                    f"--agent-cert={certificates.agent_cert}",
                    f"--agent-key={certificates.agent_key}",
                    "--proxy-server-host=127.0.0.1",
                    f"--proxy-server-port={server.agent_port}",
                    "--health-server-host=127.0.0.1",
                    f"--health-server-port={agent_health}",
                    "--admin-bind-address=127.0.0.1",
                    f"--admin-server-port={agent_admin}",
                    "--agent-id=bench-agent",
                    "-v=0",
                    "--logtostderr",
                ),
                log,
            )
        )
        ready = f"http://127.0.0.1:{agent_health}/readyz"
        await_ready(partial(_answers, ready), agent, log, f"{spec.name} agent")
        both = f"http://127.0.0.1:{server.health_port}/readyz"
        await_ready(partial(_answers, both), server.process, server.log, f"{spec.name} server")
        yield Pair(spec.name, server.uds, server.process.pid, agent.pid)


@contextmanager
def serving(spec: PairSpec, mode: str, certificates: Certificates) -> Iterator[Server]:
    """Start the server of a pair alone, hand it out once it listens, and stop it.

    Raises:
        BenchError: it ended or did not answer; with the last line of its log.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        agent_port, health, admin = free_ports(3)
        uds, log = Path(directory) / "frontend.sock", Path(directory) / "server.log"
        command = (
            *spec.server,
            f"--mode={mode}",
            f"--uds-name={uds}",
            "--server-port=0",
            f"--cluster-cert={certificates.server_cert}",
            f"--cluster-key={certificates.server_key}",
            f"--cluster-ca-cert={certificates.ca}",
            "--agent-bind-address=127.0.0.1",
            f"--agent-port={agent_port}",
            "--health-bind-address=127.0.0.1",
            f"--health-port={health}",
            "--admin-bind-address=127.0.0.1",
            f"--admin-port={admin}",
            "--server-id=bench-server",
            "-v=0",
            "--logtostderr",
        )
        with started(command, log) as process:
            healthy = f"http://127.0.0.1:{health}/healthz"
            await_ready(partial(_answers, healthy), process, log, f"{spec.name} server")
            yield Server(uds, agent_port, health, process, log)


@contextmanager
def started(command: Command, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program that writes to `log`, and end it."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        # Twice: upstream's agent takes the first as a wish to drain, and stays.
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_ready(
    is_ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, who: str
) -> None:
    """Wait until a program that was started is ready.

    Raises:
        BenchError: it ended, or is not ready in time; with the last line of its log.
    """
    deadline = time.monotonic() + READY_LIMIT
    while not is_ready():
        if process.poll() is not None:
            raise BenchError(f"{who} ended with status {process.returncode}: {last_line(log)}")
        if time.monotonic() > deadline:
            raise BenchError(f"{who} not ready in {READY_LIMIT:.0f} s: {last_line(log)}")
        time.sleep(0.05)


def listens(where: Path | int) -> bool:
    """Whether a connection is accepted at a Unix socket or at a port of the loopback."""
    local = isinstance(where, Path)
    with socket.socket(socket.AF_UNIX if local else socket.AF_INET) as probe:
        return probe.connect_ex(str(where) if local else ("127.0.0.1", where)) == 0


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never via a proxy
    try:
        with opener.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def last_line(log: Path) -> str:
    """Return what a program said last."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "its log is empty")
