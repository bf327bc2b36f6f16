"""A fixture API server, and what runs against it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.peers.kube_api import KubeApi

from konnectivity.kube.client import connect

if TYPE_CHECKING:
    from lightkube import AsyncClient

Connect = Callable[[], "AsyncClient"]


@pytest.fixture
async def api() -> AsyncIterator[KubeApi]:
    async with KubeApi() as server:
        yield server


@pytest.fixture
def client_of(api: KubeApi, folder: Path, exits: AsyncExitStack) -> Connect:
    """Makes clients of that server, which are closed at the end."""

    def make() -> AsyncClient:
        client = connect(str(api.kubeconfig(folder)), qps=500, burst=500)
        exits.push_async_callback(client.close)
        return client

    return make
