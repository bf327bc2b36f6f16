"""Real servers and agents, as the end-to-end tests have them, and a cluster around them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.diagnose.faults.cluster import AGENT, Installation
from tests.e2e.conftest import (  # noqa: F401 - fixtures
    Pair,
    StartPair,
    agent_options,
    carrier,
    connect_agent,
    echoing,
    fakes,
    grpcio_stays,
    log,
    server_options,
    start_agent,
    start_endpoint,
    start_fake_server,
    start_pair,
    start_server,
)
from tests.peers.kube_api import KubeApi


@pytest.fixture
async def api() -> AsyncIterator[KubeApi]:
    async with KubeApi() as api:
        yield api


@pytest.fixture
async def cluster(api: KubeApi, folder: Path) -> Installation:
    """One node, this machine, with an agent."""
    made = Installation(api, folder)
    await made.make({"node-a": "127.0.0.1"})
    return made


@pytest.fixture
async def pair(start_pair: StartPair) -> Pair:  # noqa: F811 - the fixture
    """A server, and the agent of that node."""
    return await start_pair(agent={"agent_id": AGENT})
