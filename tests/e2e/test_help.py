"""What the programs say of themselves is so: W77, W78."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from tests.e2e.conftest import StartAgent, StartServer
from tests.e2e.test_scenarios import get

from konnectivity import __version__


def said(program: str, *argv: str) -> str:
    code = f"from konnectivity.cli.main import {program} as run; run()"
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout


def sentence(program: str, flag: str) -> str:
    """What the help says of a flag, on one line."""
    text = said(program, "--help")
    found = re.search(rf"\n  --{flag}\b.*\n((?:      .*\n)+)", text)
    assert found
    return " ".join(found[1].split())


@pytest.mark.parametrize("program", ["proxy_server", "proxy_agent"])
def test_w77_both_programs_say_their_version(program: str) -> None:
    assert said(program, "--version") == f"konnectivity {__version__}\n"


@pytest.mark.parametrize("program", ["proxy_server", "proxy_agent"])
def test_w78_an_empty_admin_address_is_said_to_be_all_interfaces(program: str) -> None:
    assert "empty: all interfaces" in sentence(program, "admin-bind-address")


async def test_w78_an_empty_admin_address_is_all_interfaces(
    start_server: StartServer, start_agent: StartAgent
) -> None:
    server = await start_server(admin_bind_address="")
    agent = await start_agent(admin_bind_address="")
    for port in (server.options.admin_port, agent.options.admin_server_port):
        status, _ = await get(port, "/metrics", host="127.0.0.2")
        assert status in (200, 301)


@pytest.mark.parametrize(
    ("program", "flag"),
    [("proxy_server", "cluster-cert"), ("proxy_agent", "ca-cert")],
)
def test_w78_what_is_required_is_said_to_be(program: str, flag: str) -> None:
    assert "required" in sentence(program, flag)
