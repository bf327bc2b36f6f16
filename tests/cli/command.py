"""`konnectivity <command>` in this process, as a process of its own, or on a terminal."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

from konnectivity.cli.main import command

PATIENCE = 30.0


class Done(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


class Commands:
    """Runs commands on the cluster of one kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self.environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "NO_COLOR": "1"}

    async def run(self, *argv: str) -> Done:
        """Run in a thread of this process, which is quicker; it can read nothing."""
        out, err = io.StringIO(), io.StringIO()
        line = [argv[0], f"--kubeconfig={self._kubeconfig}", *argv[1:]]
        with redirect_stdout(out), redirect_stderr(err):
            async with asyncio.timeout(PATIENCE):
                status = await asyncio.to_thread(command, line)
        return Done(status, out.getvalue(), err.getvalue())

    async def process(self, *argv: str) -> Done:
        """Run as a process with pipes, which finds its cluster by KUBECONFIG."""
        process = await asyncio.create_subprocess_exec(
            *_command(argv),
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(PATIENCE):
                out, err = await process.communicate()
        finally:
            await _end(process)
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())

    async def on_terminal(self, *argv: str, question: str = "", answer: str = "") -> Done:
        """Run on a terminal; once `question` was shown `answer` is typed."""
        ours, theirs = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *_command(argv),
            env=self.environment | {"TERM": "xterm", "COLUMNS": "200"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        os.set_blocking(ours, False)
        try:
            async with asyncio.timeout(PATIENCE):
                shown = await _talk(ours, question, answer)
                status = await process.wait()
        finally:
            os.close(ours)
            await _end(process)
        return Done(status, shown.replace("\r\n", "\n"), "")


def _command(argv: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "konnectivity", *argv]


async def _talk(terminal: int, question: str, answer: str) -> str:
    """All that is shown until the other side closes."""
    loop, shown, asked = asyncio.get_running_loop(), b"", not question
    while True:
        readable = asyncio.Event()
        loop.add_reader(terminal, readable.set)
        try:
            await readable.wait()
            piece = os.read(terminal, 65536)
        except OSError:  # the last one on the other side has closed it
            return shown.decode()
        finally:
            loop.remove_reader(terminal)
        if not piece:
            return shown.decode()
        shown += piece
        if not asked and question.encode() in shown:
            asked = True
            os.write(terminal, f"{answer}\n".encode())


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()
    process._transport.close()  # type: ignore[attr-defined]
