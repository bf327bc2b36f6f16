"""What agents and tunnels cost one server, measured with real processes on loopback.

Agents are those of `crowd.py`, a few thousand to a process; tunnels are held and dials are made by
the load generator. Everything is done in steps, so that what should not grow can be seen not to.

A dial through a server with many agents goes to one of them at random, as always, and so to memory
that no processor has looked at for a while. Another agent, which comes for that alone, has the
endpoint's address as an identifier: dials that all go to it show what the number itself costs.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from bench import generator, usage
from bench.certificate import Certificates
from bench.error import BenchError
from bench.pair import Server, pair_spec, running, serving

MODE = "http-connect"
CROWD = 2500  # agents in one process
HELD = 5000  # tunnels that one load generator holds, both ends of each
DIAL_SAMPLES = 3
READY_LIMIT = 180.0  # seconds for one crowd to be connected

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds for each look: before memory is read, at rest, and for each sample of dials."""

    settle: float = 1.0
    at_rest: float = 10.0
    warmup: float = 0.5
    dials: float = 2.0


DEFAULT = Pace()


@dataclass(frozen=True, slots=True)
class AgentsStep:
    """One server with `agents` connected.

    `connect_cpu` is the server's CPU seconds for each that came, `idle_cpu` its CPU seconds for
    each second and agent at rest; `dial` is the mean of a sequential dial and close, in seconds,
    `dial_same` that of dials which all go to one agent more.
    """

    agents: int
    rss: int
    connect_seconds: float
    connect_cpu: float
    idle_cpu: float
    dial: float
    dial_same: float


@dataclass(frozen=True, slots=True)
class TunnelsStep:
    """One pair with `tunnels` open and idle; bytes, and seconds of a dial as above."""

    tunnels: int
    server_rss: int
    agent_rss: int
    dial: float


def agents(
    counts: Sequence[int], certificates: Certificates, tell: Tell, *, pace: Pace = DEFAULT
) -> list[AgentsStep]:
    """Connect more and more agents to one server, and look at it at rest."""
    steps: list[AgentsStep] = []
    program = generator.build()
    ours = pair_spec("ours")
    spec = replace(ours, server=(*ours.server, "--proxy-strategies=destHost,default"))
    with ExitStack() as stack:
        server = stack.enter_context(serving(spec, MODE, certificates))
        pid = server.process.pid
        there = 0
        for count in counts:
            tell(f"{count} agents")
            begun, before = time.monotonic(), usage.cpu_seconds(pid)
            came = count - there
            while there < count:
                size = min(CROWD, count - there)
                stack.enter_context(_crowd(server, size, there, certificates))
                there += size
            took, cpu = time.monotonic() - begun, usage.cpu_seconds(pid) - before
            time.sleep(pace.settle)
            before = usage.cpu_seconds(pid)
            time.sleep(pace.at_rest)
            idle = (usage.cpu_seconds(pid) - before) / pace.at_rest / count
            rss = usage.memory(pid).rss
            dial = _dial(program, server.uds, pace)
            with _crowd(server, 1, there, certificates, identifiers="ipv4=127.0.0.1"):
                same = _dial(program, server.uds, pace)
            steps.append(AgentsStep(count, rss, took, cpu / came, idle, dial, same))
    return steps


def tunnels(
    counts: Sequence[int], certificates: Certificates, tell: Tell, *, pace: Pace = DEFAULT
) -> list[TunnelsStep]:
    """Hold more and more tunnels open through one pair."""
    steps: list[TunnelsStep] = []
    program = generator.build()
    with running(pair_spec("ours"), MODE, certificates) as pair, ExitStack() as stack:
        there = 0
        for count in counts:
            tell(f"{count} tunnels")
            while there < count:
                size = min(HELD, count - there)
                stack.enter_context(_held(program, pair.uds, size))
                there += size
            time.sleep(pace.settle)
            server, agent = usage.memory(pair.server).rss, usage.memory(pair.agent).rss
            steps.append(TunnelsStep(count, server, agent, _dial(program, pair.uds, pace)))
    return steps


@contextmanager
def _crowd(
    server: Server, count: int, first: int, certificates: Certificates, *, identifiers: str = ""
) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.scale.crowd", f"--identifiers={identifiers}"]
    command += [f"--port={server.agent_port}", f"--count={count}", f"--first={first}"]
    command += [f"--ca={certificates.ca}", f"--cert={certificates.agent_cert}"]
    with _started([*command, f"--key={certificates.agent_key}"], f"a crowd of {count} agents"):
        yield


@contextmanager
def _held(program: Path, uds: Path, count: int) -> Iterator[None]:
    """Tunnels that are idle until the end, when each must still echo."""
    command = [str(program), f"--mode={MODE}", f"--uds={uds}", f"--idles={count}"]
    with _started(command, f"the holder of {count} tunnels"):
        yield


@contextmanager
def _started(command: Sequence[str], who: str) -> Iterator[None]:
    """A process that says `ready` and ends well when its input does.

    Raises:
        BenchError: it does not.
    """
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise BenchError(f"{who} did not get ready")
            yield
            process.communicate(timeout=READY_LIMIT)
        finally:
            process.kill()
    if process.returncode != 0:
        raise BenchError(f"{who} ended with status {process.returncode}")


def _dial(program: Path, uds: Path, pace: Pace) -> float:
    """Seconds of a dial and close, the median of several runs of sequential ones."""
    arguments = [f"--mode={MODE}", f"--uds={uds}", "--dialers=1"]
    arguments += [f"--warmup={pace.warmup}", f"--seconds={pace.dials}"]
    found: list[float] = []
    for _ in range(DIAL_SAMPLES):
        report = generator.run(program, arguments)
        if report["errors"]:
            raise BenchError(f"a dial failed: {report['first_error']}")
        found.append(report["seconds"] / report["dials"])
    return median(found)
