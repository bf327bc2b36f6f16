"""Relays that pairs are compared with: the generator's way through one, and Debian's haproxy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bench.error import BenchError
from bench.report import outcomes
from bench.run import Plan, Taken
from tests.bench.test_bench import (
    QUICK,
    ROOT,
    WORK,
    connect_server,
    load,
    program,
    relay_to,
    uds,
)
from tests.peers.ports import free_port

from bench import bare, certificate, relay, row, usage

__all__ = ["program", "uds"]  # fixtures

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))),
    reason="NO C COMPILER: the load generator is not tested",
)


def has_haproxy() -> bool:
    try:
        relay.find()
    except BenchError:
        return False
    return True


@pytest.mark.parametrize(("work", "figure"), WORK.items())
async def test_work_through_a_relay_is_counted_without_errors(
    program: Path, uds: Path, work: str, figure: str
) -> None:
    port = free_port()
    async with connect_server(uds, relay_to(port)):
        report = await load(
            program, "--mode=relay", f"--uds={uds}", f"--endpoint-port={port}", work
        )
    assert report["first_error"] == ""
    assert report[figure] > 0


async def test_a_dial_whose_byte_comes_back_changed_is_an_error(program: Path, uds: Path) -> None:
    port = free_port()

    def spoil(data: bytes) -> bytes:
        return bytes([data[0] ^ 1]) + data[1:]

    async with connect_server(uds, relay_to(port, spoil)):
        report = await load(
            program, "--mode=relay", f"--uds={uds}", f"--endpoint-port={port}", "--dialers=1"
        )
    assert report["first_error"] == "a wrong byte came first"


@pytest.mark.skipif(not has_haproxy(), reason="NO HAPROXY: the pair `relay` is not tested")
@pytest.mark.parametrize(("work", "figure"), WORK.items())
async def test_two_relays_with_mutual_tls_carry_all_rows(
    program: Path, tmp_path: Path, work: str, figure: str
) -> None:
    with relay.relaying(certificate.issue(tmp_path)) as pair:
        report = await load(
            program,
            f"--mode={pair.speaks}",
            f"--uds={pair.uds}",
            f"--endpoint-port={pair.endpoint_port}",
            work,
        )
    assert report["first_error"] == ""
    assert report[figure] > 0


@pytest.mark.parametrize(("work", "figure"), WORK.items())
async def test_the_bare_loop_carries_all_rows(
    program: Path, tmp_path: Path, work: str, figure: str
) -> None:
    with bare.serving(certificate.issue(tmp_path)) as pair:
        report = await load(program, "--mode=http-connect", f"--uds={pair.uds}", work)
        assert usage.cpu_seconds(pair.server) > usage.cpu_seconds(pair.agent) == 0
    assert report["first_error"] == ""
    assert report[figure] > 0


@pytest.mark.parametrize(
    ("pairs", "status", "says"), [("relay", 2, "no pair is left to measure"), ("ours,relay", 0, "")]
)
def test_a_missing_program_is_said_and_its_pair_left_out(
    pairs: str, status: int, says: str
) -> None:
    command = [sys.executable, "-m", "bench", "--rows=echo-1", "--rounds=1", "--modes=direct"]
    done = subprocess.run(
        [*command, *QUICK, f"--pairs={pairs}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"HAPROXY": "no-such-relay"},
    )
    assert done.returncode == status
    assert "pair relay is left out: no-such-relay not found" in done.stderr
    assert says in done.stderr


def test_the_relay_is_measured_where_it_says_something() -> None:
    plan = Plan([], ("direct", "http-connect", "grpc"), row.ROWS, 1, 1.0, 0.1, limits=["relay"])
    (echo,), (idle,) = row.chosen("echo-1"), row.chosen("idle")
    assert plan.names_of("http-connect", echo) == ["relay"]
    assert plan.names_of("http-connect", idle) == []
    assert plan.names_of("grpc", echo) == []
    assert plan.names_of("direct", echo) == ["direct"]


def test_what_is_only_compared_with_is_not_rated() -> None:
    values = {"seconds": 1.0, "echoes": 1000.0, "echo_p99_us": 1.0}
    samples = [
        Taken("direct" if name == "direct" else "http-connect", "echo-64", name, 0, values, 0, "")
        for name in ("ours", "ref", "relay", "direct")
    ]
    found = outcomes(samples, "http-connect", row.chosen("echo-64"), beside="direct")
    assert list(found[0].taken) == ["ours", "ref", "relay", "direct"]
    ratios = [found[0].ratio(name) for name in found[0].taken]
    assert ratios == [1.0, None, None, None]
