"""The project's programs as processes: started, watched, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from tests.peers.streams import PATIENCE


class Program:
    """A running process; `lines` is what it wrote to standard error so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.lines: list[str] = []
        self.pid = process.pid
        self._process = process
        self._news = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            async with self._news:
                self.lines.append(line.decode().rstrip("\n"))
                self._news.notify_all()

    async def line(self, text: str) -> str:
        """The first line that contains `text`, waiting for it."""
        async with asyncio.timeout(PATIENCE), self._news:
            while True:
                for line in self.lines:
                    if text in line:
                        return line
                await self._news.wait()

    async def status(self) -> int:
        """The exit status, waiting for the end."""
        async with asyncio.timeout(PATIENCE):
            await self._reader
            return await self._process.wait()

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self._process.returncode is not None

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def kill(self) -> None:
        """End it now, whatever its state."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reader
        # uvloop and asyncio keep the pipes until the transport is closed.
        self._process._transport.close()  # type: ignore[attr-defined]


@asynccontextmanager
async def running(
    *argv: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Program]:
    """`konnectivity <argv>`, with `environment` added; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "konnectivity",
        *argv,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    program = Program(process)
    try:
        yield program
    finally:
        await program.kill()


def flags(**options: object) -> Sequence[str]:
    """`server_port=0` as `--server-port=0`."""
    shown = {True: "true", False: "false"}
    return [
        f"--{name.replace('_', '-')}={shown[value] if isinstance(value, bool) else value}"
        for name, value in options.items()
    ]
