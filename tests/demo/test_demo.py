"""`konnectivity demo` as a user runs it: its outcome, its last line, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from konnectivity.demo.network import find_isolation
from konnectivity.demo.scenes import SCENES

DEMO = (sys.executable, "-m", "konnectivity", "demo")
TIMEOUT = 55


@pytest.fixture
def scratch() -> Iterator[Path]:
    """The demo's directory for temporary files, which must be empty in the end.

    Its path is short, as a Unix socket's must be; `tmp_path` is not.
    """
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        yield directory
        assert list(directory.iterdir()) == []
        assert processes_below(directory) == {}


def processes_below(directory: Path) -> dict[int, str]:
    """Processes that were started with a file below `directory`: id and command line."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(directory) in command:
            found[int(file.parent.name)] = command
    return found


def wait_for_process(directory: Path, command: str) -> int:
    """The id of `konnectivity <command>`, once it runs."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        for pid, line in processes_below(directory).items():
            if f"konnectivity {command} " in line:
                return pid
        time.sleep(0.02)
    raise TimeoutError(command)


def start(scratch: Path, *flags: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*DEMO, *flags],
        env={**os.environ, "TMPDIR": str(scratch), "COLUMNS": "80", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def without_ip(tmp_path: Path) -> str:
    """A PATH on which the programs for namespaces are, but not `ip`."""
    for program in ("unshare", "nsenter", "sh"):
        (tmp_path / program).symlink_to(shutil.which(program) or "/bin/false")
    return str(tmp_path)


def test_everything_holds_through_both_frontends(scratch: Path) -> None:
    with start(scratch, "--json") as demo:
        stdout, stderr = demo.communicate(timeout=TIMEOUT)
    outcome = json.loads(stdout)
    assert outcome["failure"] is None, stderr
    assert outcome["passed"] is True
    assert demo.returncode == 0
    assert outcome["network"]["kind"] == find_isolation().kind
    rows = [(row["frontend"], row["what"]) for row in outcome["rows"]]
    assert rows == [(None, "direct connection")] + [
        (mode, what) for mode in ("grpc", "http-connect") for what in SCENES
    ]
    bulk = [row["bytes"] for row in outcome["rows"] if row["what"] in ("download", "upload")]
    assert bulk == [100_000_000] * 4


def test_without_namespaces_it_holds_on_loopback_until_ctrl_c(
    scratch: Path, tmp_path: Path
) -> None:
    with start(scratch, "--mode=http-connect", "--hold", PATH=without_ip(tmp_path)) as demo:
        assert demo.stdout is not None
        lines = []
        for line in demo.stdout:
            lines.append(line.rstrip())
            if line.startswith("running until"):
                break
        text = "\n".join(lines)
        configuration = re.search(r"--egress-selector-config-file=(\S+)", text)
        content = Path(configuration[1]).read_text() if configuration else ""
        demo.send_signal(signal.SIGINT)
        assert demo.communicate(timeout=TIMEOUT)[0] == ""
    assert "no network namespace: the program `ip` (package iproute2) is missing" in text
    assert "not shown on loopback" in text
    assert "\ndemo passed\n" in text
    assert "proxyProtocol: HTTPConnect" in content
    assert content.rstrip() in text
    assert f"udsName: {scratch}/" in content
    assert demo.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_takes_everything_down(scratch: Path, number: signal.Signals) -> None:
    with start(scratch) as demo:
        wait_for_process(scratch, "agent")
        demo.send_signal(number)
        stdout, stderr = demo.communicate(timeout=TIMEOUT)
    assert stdout.splitlines()[-1] == f"demo failed: interrupted by {number.name}"
    assert "Traceback" not in stderr
    assert demo.returncode == 128 + number


def test_an_agent_that_dies_fails_the_demo_by_name(scratch: Path) -> None:
    with start(scratch, "--mode=http-connect") as demo:
        pid = wait_for_process(scratch, "agent")
        assert demo.stderr is not None
        assert "direct connection" in demo.stderr.readline()
        os.kill(pid, signal.SIGKILL)
        stdout, stderr = demo.communicate(timeout=TIMEOUT)
    assert stdout.splitlines()[-1].startswith("demo failed: the agent ended with signal 9: ")
    assert "Traceback" not in stderr
    assert demo.returncode == 1


def test_a_server_that_cannot_start_is_heard(tmp_path: Path) -> None:
    long = tmp_path / ("d" * 100)
    long.mkdir()
    with start(long, PATH=without_ip(tmp_path)) as demo:
        stdout, stderr = demo.communicate(timeout=TIMEOUT)
    last = stdout.splitlines()[-1]
    assert re.match(r"demo failed: the server ended with status \d+: ", last)
    assert "konnectivity-server.socket" in last
    assert "Traceback" not in stderr
    assert demo.returncode == 1
    assert list(long.iterdir()) == []


def test_an_unknown_frontend_is_a_usage_error(scratch: Path) -> None:
    with start(scratch, "--mode=socks") as demo:
        _, stderr = demo.communicate(timeout=TIMEOUT)
    assert "'socks' is none of grpc, http-connect" in stderr
    assert demo.returncode == 2
