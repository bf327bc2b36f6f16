"""Charts of a run: drawn from its JSON, to scale."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from bench.bars import bar_chart, span_chart
from bench.charts import draw

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"


def elements(chart: str, tag: str) -> list[dict[str, str]]:
    root = ElementTree.fromstring(chart)  # noqa: S314 - our own text
    return [each.attrib for each in root.iter(SVG + tag)]


def texts(chart: str) -> list[str]:
    root = ElementTree.fromstring(chart)  # noqa: S314 - our own text
    return [each.text or "" for each in root.iter(SVG + "text")]


def bars(chart: str) -> list[tuple[str, float]]:
    """Colour and length of each bar."""
    found = [each for each in elements(chart, "rect") if each.get("height") == "14"]
    return [(each["fill"], float(each["width"])) for each in found]


ROWS = {"a < b": {"ours": 100.0, "ref": 50.0}, "c": {"ref": 10.0, "relay": 5.0}}


def test_bars_are_as_long_as_their_figures_and_of_their_names_colour() -> None:
    (ours, first), (ref, second), (ref_again, third), (relay, fourth) = bars(
        bar_chart("t", ROWS, unit="MB/s")
    )
    assert len({ours, ref, relay}) == 3
    assert ref == ref_again
    assert [second / first, third / first, fourth / first] == pytest.approx([0.5, 0.1, 0.05], 0.02)


def test_rows_that_differ_in_kind_have_scales_of_their_own() -> None:
    lengths = [length for _, length in bars(bar_chart("t", ROWS))]
    assert lengths[0] == lengths[2] == 2 * lengths[1] == 2 * lengths[3]


def test_what_a_chart_shows_is_written_there() -> None:
    found = texts(bar_chart("a title", ROWS, unit="MB/s"))
    for text in ("a title", "a < b", "c", "ours", "ref", "relay", "100", "5.0", "MB/s"):
        assert text in found


def test_spans_go_from_figure_to_figure_on_a_logarithmic_axis() -> None:
    chart = span_chart("t", {"echo": {"ours": (10.0, 100.0), "ref": (100.0, 1000.0)}}, unit="us")
    low, high, low_ref, high_ref = (float(each["cx"]) for each in elements(chart, "circle"))
    assert low < high == low_ref < high_ref
    assert high - low == pytest.approx(high_ref - low_ref, abs=0.2)


def figure(mode: str, label: str, unit: str, **median: float | None) -> dict[str, object]:
    return {"mode": mode, "figure": label, "unit": unit, "median": median}


def test_a_run_is_drawn_mode_by_mode_without_rows_that_failed() -> None:
    document = {
        "figures": [
            figure("direct", "download, 1 tunnel", "MB/s", direct=5000.0),
            figure("grpc", "download, 1 tunnel", "MB/s", ours=300.0, ref=200.0),
            figure("grpc", "upload, 1 tunnel", "MB/s", ours=None),
            figure("grpc", "echo, p50", "us", ours=10.0, ref=20.0),
            figure("grpc", "echo, p99", "us", ours=30.0, ref=None),
            figure("http-connect", "dial+close, sequential", "/s", ours=2000.0),
            figure("http-connect", "at rest", "MB", ours=60.0),
        ]
    }
    charts = dict(draw(document))
    assert list(charts) == [
        "throughput-grpc",
        "latency-grpc",
        "rates-http-connect",
        "memory-http-connect",
    ]
    assert "upload, 1 tunnel" not in texts(charts["throughput-grpc"])
    assert "5,000" not in texts(charts["throughput-grpc"])
    assert "Throughput, grpc" in texts(charts["throughput-grpc"])
    assert len(elements(charts["latency-grpc"], "circle")) == 2


def test_steps_of_scale_are_drawn_as_lines() -> None:
    agents = [
        {"agents": n, "rss": 30_000_000 + n, "dial": 0.001, "dial_same": 0.001} for n in (1, 100)
    ]
    tunnels = [{"tunnels": n, "server_rss": 10**7, "agent_rss": 10**7, "dial": 1e-3} for n in (1,)]
    charts = dict(draw({"agents": agents, "tunnels": tunnels}))
    assert list(charts) == ["dials-by-scale", "memory-by-scale"]
    assert "agents, of which any is dialled" in texts(charts["dials-by-scale"])


def test_the_command_writes_files_and_refuses_what_is_no_run(tmp_path: Path) -> None:
    source, target = tmp_path / "run.json", tmp_path / "images"
    command = [sys.executable, "-m", "bench.charts", str(source), str(target)]
    source.write_text(json.dumps({"figures": [figure("grpc", "download", "MB/s", ours=1.0)]}))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{target / 'throughput-grpc.svg'}\n")
    assert (target / "throughput-grpc.svg").read_text().startswith("<svg ")
    for text in ("[]", "{}", "no json"):
        source.write_text(text)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "is no run of ours" in done.stderr
