"""Child processes with an owner: started, watched for an early end, gone when the owner leaves."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from konnectivity.errors import KonnectivityError

READY_TIMEOUT: Final = 20.0
"""Seconds for a process to be ready; an interpreter's start on a busy machine included."""
STOP_PATIENCE: Final = (0.3, 5.0)
"""Seconds after the first SIGTERM and after the second; an agent takes the first one as drain."""
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)

_libc: Final = ctypes.CDLL(None, use_errno=True)


class ProcessError(KonnectivityError):
    """A process of the demo did not start, or ended while it was needed."""


class Process:
    """A running child; what it writes on stderr goes to the file `log`."""

    def __init__(self, name: str, child: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.pid = child.pid
        self._child = child
        self._log = log

    def expect_alive(self) -> None:
        """Raise ProcessError, with the last line of its log, when the process has ended."""
        if self._child.returncode is not None:
            status = self._child.returncode
            how = f"signal {-status}" if status < 0 else f"status {status}"
            raise ProcessError(f"{self.name} ended with {how}: {self.last_words()}")

    async def read_line(self) -> str:
        """The next line from its stdout; for a process that says when it is ready.

        Raises:
            ProcessError: it ended instead, or took longer than READY_TIMEOUT.
        """
        assert self._child.stdout is not None  # noqa: S101 - opened as a pipe below
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                line = await self._child.stdout.readline()
        except TimeoutError:
            raise ProcessError(f"{self.name} was not ready after {READY_TIMEOUT:g} s") from None
        if not line:
            await self._child.wait()
            self.expect_alive()
        return line.decode().strip()

    def last_words(self) -> str:
        """The last line of its log."""
        lines = self._log.read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


@contextlib.asynccontextmanager
async def running(
    name: str, argv: Sequence[str], *, log: Path, announces: bool = False
) -> AsyncIterator[Process]:
    """Run `argv` for as long as the context lasts; SIGTERM ends it, or else SIGKILL.

    With `announces`, stdout is for `read_line`; otherwise it goes to `log` like stderr. The child
    has its own session, so that a terminal's Ctrl-C reaches only the demo, and dies with the demo
    even when that is killed. Its stdin is a pipe that ends with the context.

    Raises:
        ProcessError: the program cannot be started.
    """
    with log.open("wb") as stderr:
        try:
            child = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE if announces else stderr,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        except OSError as error:
            raise ProcessError(f"cannot start {name}: {argv[0]}: {error.strerror}") from error
    try:
        yield Process(name, child, log)
    finally:
        await _stop(child)


async def output_of(*argv: str, stdin: str = "") -> str:
    """Run a short command to its end and return what it wrote on stdout.

    Raises:
        ProcessError: it is missing, or it failed; with its own words.
    """
    try:
        child = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise ProcessError(f"{argv[0]}: {error.strerror}") from error
    stdout, stderr = await child.communicate(stdin.encode())
    if child.returncode:
        words = " ".join(stderr.decode(errors="replace").split()) or f"status {child.returncode}"
        raise ProcessError(words)
    return stdout.decode()


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


async def _stop(child: asyncio.subprocess.Process) -> None:
    for patience in STOP_PATIENCE:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await child.wait()
                return
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    await child.wait()
