"""Which network the machine allows; and that the control plane has no way into the cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from konnectivity.demo.network import SERVER_HOST, WIRE_HOST, find_isolation

PROBE = f"""
import asyncio, json, pathlib, sys
from konnectivity.demo.network import NODE_HOST, cluster_network
from konnectivity.demo.process import output_of
from konnectivity.demo.scenes import expect_unreachable

REACH = "import socket as s; print(s.create_connection(('{SERVER_HOST}', 8091)).getsockname()[0])"

async def main():
    async with cluster_network(sys.argv[1], directory=pathlib.Path(sys.argv[2])) as network:
        server = await asyncio.start_server(lambda r, w: w.close(), network.server_host, 8091)
        async with server:
            agent = await output_of(*network.enter, sys.executable, "-c", REACH)
        print(json.dumps([
            network.is_isolated,
            agent.strip(),
            await expect_unreachable(NODE_HOST, 10250),
        ]))

asyncio.run(main())
"""


def test_without_a_tool_the_reason_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    isolation = find_isolation()
    assert isolation.kind == "loopback"
    assert "package util-linux" in isolation.reason


def test_a_refusal_is_given_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = tmp_path / "ip"
    refusing.write_text(
        "#!/bin/sh\necho 'RTNETLINK answers: Operation not permitted' >&2\nexit 2\n"
    )
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    isolation = find_isolation()
    assert (isolation.kind, isolation.reason) == (
        "loopback",
        "RTNETLINK answers: Operation not permitted",
    )


def test_the_agent_reaches_the_server_and_the_control_plane_does_not_reach_the_node(
    tmp_path: Path,
) -> None:
    isolation = find_isolation()
    if isolation.kind == "loopback":
        pytest.skip(f"this machine allows no network namespace: {isolation.reason}")
    entered = (
        "import sys; from konnectivity.demo.network import Isolation; "
        "Isolation(sys.argv[1]).enter([sys.executable, '-c', *sys.argv[2:]])"
    )
    argv = [sys.executable, "-c", entered, isolation.kind, PROBE, isolation.kind, str(tmp_path)]
    probe = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert probe.stderr == ""
    assert json.loads(probe.stdout) == [True, WIRE_HOST, "Network is unreachable"]
