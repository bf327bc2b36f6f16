"""The table fits a terminal, and JSON says the same in plain units."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from konnectivity.demo.report import Row, progress_bar, table
from konnectivity.demo.scenes import Measurement

DIRECT = Row("", "direct connection", True, Measurement("Network is unreachable"))
BULK = Row("grpc", "download", True, Measurement("SHA-256 agrees", 100_000_000, 0.5))
STEPS = Row(
    "http-connect",
    "two-way exchange",
    True,
    Measurement("300 lines", 21_980, 2.0, [0.001, 0.002, 9.0]),
)
BROKEN = Row("http-connect", "upload", False, Measurement("the stream ended early"))


def rendered(*rows: Row) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=80).print(table(rows))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_every_row_fits_eighty_columns_on_a_line() -> None:
    lines = rendered(DIRECT, BULK, STEPS, BROKEN)
    assert [line.split("  ")[0] for line in lines if line[:1] not in ("", " ")] == [
        "what",
        "─" * len(lines[1]),
        "direct connection",
        "grpc",
        "http-connect",
    ]
    assert sum("two-way exchange" in line for line in lines) == 1
    assert "Network is unreachable" in lines[2]


def test_a_bulk_rate_is_in_bytes_and_others_in_steps() -> None:
    lines = rendered(BULK, STEPS)
    assert lines[3].split()[-4:] == ["100", "MB", "200", "MB/s"]
    assert lines[6].split()[-5:] == ["22.0", "kB", "2/s", "2.00", "ms"]


def test_json_has_bytes_and_seconds() -> None:
    assert STEPS.as_json() == {
        "frontend": "http-connect",
        "what": "two-way exchange",
        "held": True,
        "result": "300 lines",
        "bytes": 21_980,
        "seconds": 2.0,
        "steps": 3,
        "p50_latency": 0.002,
    }
    assert (DIRECT.as_json()["frontend"], DIRECT.as_json()["p50_latency"]) == (None, None)


@pytest.mark.parametrize("row", [DIRECT, BROKEN], ids=["without frontend", "with frontend"])
def test_without_a_terminal_each_row_is_a_line(row: Row) -> None:
    file = io.StringIO()
    with progress_bar(Console(file=file, width=20), total=1) as bar:
        bar.begin("anything")(0.5)
        bar.finish(row)
    assert file.getvalue() == f"{row.summary}\n"


def test_on_a_terminal_a_bar_moves() -> None:
    file = io.StringIO()
    with progress_bar(
        Console(file=file, width=80, force_terminal=True, _environ={}), total=2
    ) as bar:
        bar.begin("grpc: download")(0.5)
    assert "grpc: download" in file.getvalue()
    assert BULK.summary not in file.getvalue()
