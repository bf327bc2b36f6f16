"""Manifests in which only the image was changed describe flags that are accepted."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.spec import manifests

from konnectivity.agent.options import AgentOptions
from konnectivity.agent.options import validate as validate_agent
from konnectivity.cli.flags import parse
from konnectivity.server.options import ServerOptions
from konnectivity.server.options import validate as validate_server


@pytest.fixture
def mounted(tmp_path: Path) -> str:
    file = tmp_path / "mounted"
    file.touch()
    return str(file)


@pytest.mark.parametrize("name", manifests.SERVERS)
def test_a_servers_arguments_are_accepted(name: str, mounted: str) -> None:
    line = parse(ServerOptions, manifests.SERVERS[name].format(file=mounted).split())
    assert not line.warnings
    assert validate_server(line.options) == []


@pytest.mark.parametrize("name", manifests.AGENTS)
def test_an_agents_arguments_are_accepted(name: str, mounted: str) -> None:
    text = manifests.AGENTS[name].replace("${HOST_IP}", "$(HOST_IP)").format(file=mounted)
    line = parse(AgentOptions, text.replace("$(HOST_IP)", "${HOST_IP}").split())
    assert [warning.split()[1] for warning in line.warnings] == (
        ["--lease-label"] if "--lease-label=" in text else []
    )
    assert validate_agent(line.options) == []
