"""The figures of the process, beside those of psutil."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from konnectivity.observe import process
from konnectivity.observe.exposition import render


def figures(proc: Path = process.PROC) -> dict[str, float]:
    page = render(process.families(proc)).decode()
    families = text_string_to_metric_families(page)
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_memory_descriptors_and_times_are_those_of_this_process() -> None:
    me, mine = psutil.Process(), figures()
    assert mine["process_resident_memory_bytes"] == pytest.approx(me.memory_info().rss, rel=0.1)
    assert mine["process_virtual_memory_bytes"] == pytest.approx(me.memory_info().vms, rel=0.1)
    assert mine["process_open_fds"] == me.num_fds() - 1  # the one that psutil lists them with
    assert mine["process_max_fds"] == me.rlimit(psutil.RLIMIT_NOFILE)[0]
    assert mine["process_start_time_seconds"] == pytest.approx(me.create_time(), abs=1.5)
    used = me.cpu_times()
    assert mine["process_cpu_seconds_total"] == pytest.approx(used.user + used.system, abs=0.5)


def test_cpu_time_grows_with_work() -> None:
    before, until = figures()["process_cpu_seconds_total"], time.process_time() + 0.05
    while time.process_time() < until:
        pass
    assert figures()["process_cpu_seconds_total"] >= before + 0.04


def test_an_open_file_counts() -> None:
    before = figures()["process_open_fds"]
    descriptor = os.open("/dev/null", os.O_RDONLY)
    assert figures()["process_open_fds"] == before + 1
    os.close(descriptor)


def test_a_kernel_without_proc_costs_these_figures_only(tmp_path: Path) -> None:
    mine = figures(tmp_path)
    assert "process_cpu_seconds_total" in mine
    assert "process_open_fds" not in mine
    assert "process_resident_memory_bytes" not in mine
