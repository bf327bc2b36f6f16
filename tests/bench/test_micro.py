"""The guard against dearer code: its pieces of work, its verdicts, its command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bench.error import BenchError
from bench.micro import ratios
from bench.micro.__main__ import RATIOS
from bench.micro.line import Line
from bench.micro.work import LARGE, WORK, YARDSTICK

ROOT = Path(__file__).parents[2]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench.micro", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


@pytest.mark.parametrize("name", WORK)
def test_each_piece_can_be_done_more_often_than_it_is(name: str) -> None:
    times, prepare = WORK[name]
    step = prepare()
    for _ in range(times + 100):
        step()


def test_tunnels_of_the_line_carry_bytes_and_leave_nothing_behind() -> None:
    line = Line()
    tunnel = line.open()
    assert line.endpoint is not None
    line.endpoint.endpoint_data(memoryview(LARGE))
    line.carry()
    tunnel.send(b"up")
    line.carry()
    assert tunnel.traffic == line.endpoint.traffic == (2, len(LARGE))
    tunnel.close()
    line.carry()
    assert not line.backend.tunnels
    assert not line.link.tunnels


def test_ratios_are_recorded_for_each_interpreter(tmp_path: Path) -> None:
    file = tmp_path / "ratios.json"
    file.write_text('{"Other 1.0": {"dial": 9}}')
    ratios.record(file, {"dial": 2.0, "echo": 3.0})
    ratios.record(file, {"dial": 4.0})
    assert ratios.read(file) == {
        "Other 1.0": {"dial": 9.0},
        ratios.interpreter(): {"dial": 4.0, "echo": 3.0},
    }


@pytest.mark.parametrize(
    ("now", "dearer", "cheaper"),
    [(1.0, False, False), (1.04, False, False), (1.06, True, False), (0.94, False, True)],
)
def test_what_changes_by_more_than_the_tolerance_is_named(
    now: float, dearer: bool, cheaper: bool, tmp_path: Path
) -> None:
    file = tmp_path / "ratios.json"
    ratios.record(file, {"dial": 1.0})
    (verdict,) = ratios.compare(file, {"dial": now})
    assert (verdict.is_dearer, verdict.is_cheaper) == (dearer, cheaper)


def test_work_that_was_never_recorded_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"has no ratio of dial for .*: use --record"):
        ratios.compare(tmp_path / "ratios.json", {"dial": 1.0})


@pytest.mark.parametrize("text", ["", "[]", "no json", '{"x": 1}', '{"x": {"dial": "much"}}'])
def test_a_file_that_holds_no_ratios_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "ratios.json"
    file.write_text(text)
    with pytest.raises(BenchError, match="holds no ratios"):
        ratios.read(file)


def test_all_pieces_are_on_record() -> None:
    for recorded in ratios.read(RATIOS).values():
        assert set(recorded) == set(WORK) - {YARDSTICK}


@pytest.mark.skipif(not shutil.which("valgrind"), reason="NO VALGRIND: the guard is not tested")
def test_the_command_fails_for_work_that_became_dearer_and_names_it(tmp_path: Path) -> None:
    file = tmp_path / "ratios.json"
    ratios.record(file, {"connect-head": 0.01})
    done = run("--only=connect-*", f"--file={file}")
    assert done.returncode == 1, done.stderr
    head, piece = done.stdout.splitlines()[:2]
    assert head.split() == ["work", "recorded", "now", "change"]
    assert (piece.split()[0], piece.split()[-1]) == ("connect-head", "DEARER")
    assert ratios.read(file)[ratios.interpreter()] == {"connect-head": 0.01}


def test_a_missing_valgrind_and_an_unknown_piece_are_one_clear_line(tmp_path: Path) -> None:
    done = run(PATH=str(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "valgrind not found: install it" in done.stderr
    done = run("--only=nothing")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "matches none of packets" in done.stderr
