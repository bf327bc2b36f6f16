"""Child processes end with their owner, and say why when they end before."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from konnectivity.demo.process import Process, ProcessError, output_of, running

PYTHON = (sys.executable, "-c")
STUBBORN = """
import signal, sys
signals = iter(range({ignored}))
def stop(*_):
    if next(signals, None) is None:
        sys.exit()
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
while True:
    signal.pause()
"""
PARENT = """
import asyncio, pathlib, sys
from konnectivity.demo.process import running

async def main():
    async with running("the child", ["sleep", "100"], log=pathlib.Path(sys.argv[1])) as process:
        print(process.pid, flush=True)
        await asyncio.sleep(100)

asyncio.run(main())
"""


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state in "ZX"


async def wait_for_end(process: Process) -> None:
    while True:
        process.expect_alive()
        await asyncio.sleep(0.01)


async def test_a_child_ends_with_its_context(tmp_path: Path) -> None:
    async with running("the child", ["sleep", "100"], log=tmp_path / "log") as process:
        assert not is_gone(process.pid)
    assert is_gone(process.pid)


async def test_a_child_that_drains_first_ends_at_the_second_request(tmp_path: Path) -> None:
    argv, start = [*PYTHON, STUBBORN.format(ignored=1)], time.monotonic()
    async with running("the child", argv, log=tmp_path / "log", announces=True) as process:
        assert await process.read_line() == "ready"
    assert is_gone(process.pid)
    assert time.monotonic() - start < 3


async def test_a_child_that_refuses_to_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("konnectivity.demo.process.STOP_PATIENCE", (0.1, 0.1))
    argv = [*PYTHON, STUBBORN.format(ignored=10)]
    async with running("the child", argv, log=tmp_path / "log", announces=True) as process:
        assert await process.read_line() == "ready"
    assert is_gone(process.pid)


def test_a_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    argv = [*PYTHON, PARENT, str(tmp_path / "log")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not is_gone(pid)
        parent.kill()
    deadline = time.monotonic() + 5
    while not is_gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "import sys; print('first', file=sys.stderr); sys.exit('port 8091 is taken')",
            "the server ended with status 1: port 8091 is taken",
        ),
        ("import os; os.kill(os.getpid(), 9)", "the server ended with signal 9: it said nothing"),
        ("", "the server ended with status 0: it said nothing"),
    ],
    ids=["status", "signal", "silence"],
)
async def test_an_early_end_is_told_in_the_childs_own_words(
    tmp_path: Path, script: str, message: str
) -> None:
    async with running("the server", [*PYTHON, script], log=tmp_path / "log") as process:
        with pytest.raises(ProcessError) as end:
            await wait_for_end(process)
    assert str(end.value) == message


async def test_a_child_that_ends_instead_of_announcing_is_told(tmp_path: Path) -> None:
    argv = [*PYTHON, "import sys; sys.exit('no such certificate')"]
    async with running("the kubelet", argv, log=tmp_path / "log", announces=True) as process:
        with pytest.raises(ProcessError, match="status 1: no such certificate"):
            await process.read_line()


async def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="cannot start it: no-such-program: No such file"):
        async with running("it", ["no-such-program"], log=tmp_path / "log"):
            pass
    with pytest.raises(ProcessError, match="no-such-program: No such file"):
        await output_of("no-such-program")


async def test_a_command_that_fails_speaks_for_itself() -> None:
    assert await output_of("cat", stdin="words") == "words"
    with pytest.raises(ProcessError, match="cannot access 'nowhere'"):
        await output_of("ls", "nowhere")
    with pytest.raises(ProcessError, match="status 3"):
        await output_of("sh", "-c", "exit 3")
