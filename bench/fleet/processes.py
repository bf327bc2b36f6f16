"""The processes of a simulation: API servers and one manager, started, told, measured, ended."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
SPEC = """\
server = "konnectivity.example.com:8091"
image = "registry.example.com/konnectivity:1.0"
mode = "deployment"
replicas = 2
network-policy = true
destinations = ["10.0.0.0/8"]
monitoring = true
heartbeats = false
"""
OBJECTS = 8
"""What a manager makes of it."""


class Usage(NamedTuple):
    """What a process has used so far: seconds of CPU, bytes of memory, by the clock `at`."""

    cpu: float
    memory: int
    at: float


@dataclass(frozen=True, slots=True)
class Api:
    """A process with API servers."""

    process: asyncio.subprocess.Process

    async def ask(self, name: str, **options: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([name, options]).encode() + b"\n")
        return await self.answer()

    async def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError("a process of API servers has ended")
        found: dict[str, Any] = json.loads(line)
        return found


@asynccontextmanager
async def api_process(*arguments: str) -> AsyncIterator[Api]:
    """API servers in a process of their own, which is up."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.fleet.apis", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 26,
    )
    api = Api(process)
    try:
        await api.answer()
        yield api
    finally:
        await _end(process)


@asynccontextmanager
async def manager_process(folder: Path, *flags: str) -> AsyncIterator[int]:
    """A manager of the clusters in `folder`; its process id. Its log is beside them."""
    spec = folder / "agents.spec"
    spec.write_text(SPEC)
    with (folder / "manager.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "konnectivity", "manager"),
            *(f"--spec={spec}", f"--clusters={folder}", "--health-server-host=127.0.0.1"),
            *flags,
            stderr=log,
        )
        try:
            yield process.pid
        finally:
            await _end(process)


def usage(pid: int) -> Usage:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Usage(
        (int(fields[11]) + int(fields[12])) / CLOCK_TICKS,
        resident * os.sysconf("SC_PAGE_SIZE"),
        time.monotonic(),
    )


def share(before: Usage, after: Usage) -> float:
    """The part of one core that was used between the two."""
    return (after.cpu - before.cpu) / (after.at - before.at)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
    await process.wait()
