"""A fixture API server, and the commands that work on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.cli.command import Commands
from tests.peers.kube_api import KubeApi


@pytest.fixture
async def api() -> AsyncIterator[KubeApi]:
    async with KubeApi() as server:
        yield server


@pytest.fixture
def cluster(api: KubeApi, folder: Path) -> Commands:
    """Commands with the kubeconfig of that server."""
    return Commands(api.kubeconfig(folder))
