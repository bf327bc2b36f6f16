"""All samples of a run: rounds of rows, the pairs one after the other in alternating order."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import bare, certificate, generator, relay, usage
from bench.certificate import Certificates
from bench.error import BenchError
from bench.pair import Pair, PairSpec, running
from bench.row import CONNECT, DIRECT, IDLE_TUNNELS, Row, chosen

SETTLE = 1.0  # seconds before memory is read
OPEN_FILES = 2 * IDLE_TUNNELS + 200  # the generator holds both ends of each idle tunnel
LIMITS: Mapping[str, Callable[[Certificates], AbstractContextManager[Pair]]] = {
    relay.NAME: relay.relaying,
    bare.NAME: bare.serving,
}
"""Practical limits, which stand beside the pairs in `http-connect`."""
LIMIT_ROWS = "download-*,upload-*,echo-*,dial-*,busy"
"""Memory says nothing of them: they keep no tunnels."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `seconds` and `warmup` are those of each row; `limits`: names of `LIMITS`."""

    pairs: Sequence[PairSpec]
    modes: Sequence[str]
    rows: Sequence[Row]
    rounds: int
    seconds: float
    warmup: float
    limits: Sequence[str] = ()

    def rows_of(self, mode: str) -> list[Row]:
        """Return the rows that say something in `mode`."""
        return [row for row in self.rows if mode != DIRECT or not row.needs_pair]

    def names_of(self, mode: str, row: Row) -> list[str]:
        """Return who is measured: the pairs, and the practical limits where they can be."""
        if mode == DIRECT:
            return [DIRECT]
        names = [spec.name for spec in self.pairs]
        if mode == CONNECT and row in chosen(LIMIT_ROWS):
            names += self.limits
        return names

    @property
    def samples(self) -> int:
        """How many samples the run will take."""
        return self.rounds * sum(
            len(self.names_of(mode, row)) for mode in self.modes for row in self.rows_of(mode)
        )


@dataclass(frozen=True, slots=True)
class Taken:
    """One row, once, through one pair. `error` is empty if all was as it should be."""

    mode: str
    row: str
    pair: str
    round: int
    values: dict[str, float]
    errors: int
    error: str


def run(plan: Plan, tell: Callable[[str], None]) -> list[Taken]:
    """Take all samples in order; `tell` hears of each just before it is taken.

    Every round starts fresh pairs. Both pairs stay up for the whole round, so that a row is
    measured on one right after the other and a change of the machine's mood hits both alike.
    """
    program = generator.build()
    raise_file_limit(OPEN_FILES if any(row.name == "idle" for row in plan.rows) else 0)
    taken: list[Taken] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        certificates = certificate.issue(Path(directory))
        for number in range(plan.rounds):
            for mode in plan.modes:
                with ExitStack() as stack:
                    pairs = _start(plan, mode, certificates, stack)
                    for row in plan.rows_of(mode):
                        for name in plan.names_of(mode, row)[:: -1 if number % 2 else 1]:
                            pair = pairs.get(name)
                            tell(f"round {number + 1}/{plan.rounds}, {mode}, {row.name}, {name}")
                            values = _sample(plan, program, mode, row, pair)
                            errors, error = int(values.pop("errors")), values.pop("first_error")
                            taken.append(Taken(mode, row.name, name, number, values, errors, error))
    return taken


def _start(plan: Plan, mode: str, certificates: Certificates, stack: ExitStack) -> dict[str, Pair]:
    """Start all that is measured in `mode`, by name; it ends with `stack`."""
    if mode == DIRECT:
        return {}
    pairs: list[AbstractContextManager[Pair]]
    pairs = [running(spec, mode, certificates) for spec in plan.pairs]
    wanted = {name for row in plan.rows for name in plan.names_of(mode, row)}
    pairs += [start(certificates) for name, start in LIMITS.items() if name in wanted]
    return {pair.name: pair for pair in map(stack.enter_context, pairs)}


def _sample(plan: Plan, program: Path, mode: str, row: Row, pair: Pair | None) -> generator.Report:
    speaks = (pair.speaks if pair else "") or mode
    arguments = [f"--mode={speaks}", f"--seconds={plan.seconds}", f"--warmup={plan.warmup}"]
    if pair and pair.endpoint_port:
        arguments.append(f"--endpoint-port={pair.endpoint_port}")
    if pair is None:
        return generator.run(program, [*arguments, *row.load])
    memory: dict[str, float] = {}
    if not row.load:
        _read_memory(pair, memory)
        return {"errors": 0, "first_error": "", **memory}
    before = usage.cpu_seconds(pair.server), usage.cpu_seconds(pair.agent)
    report = generator.run(
        program,
        [*arguments, f"--uds={pair.uds}", *row.load],
        while_idle=(lambda: _read_memory(pair, memory)) if row.needs_pair else None,
    )
    report["server_cpu"] = usage.cpu_seconds(pair.server) - before[0]
    report["agent_cpu"] = usage.cpu_seconds(pair.agent) - before[1]
    return report | memory


def _read_memory(pair: Pair, into: dict[str, float]) -> None:
    time.sleep(SETTLE)
    for role, pid in (("server", pair.server), ("agent", pair.agent)):
        now = usage.memory(pid)
        into[f"{role}_rss"], into[f"{role}_pss"] = now.rss, now.pss


def raise_file_limit(wanted: int) -> None:
    """Let this process and those it starts have as many files open as they may.

    Raises:
        BenchError: that is fewer than `wanted`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise BenchError(
            f"{wanted} open files are needed and the hard limit is {hard}: raise it (ulimit -Hn), "
            "or leave out what needs them (row idle: --rows)"
        )
    if soft != hard:
        most = wanted if hard == resource.RLIM_INFINITY else hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
