"""A small installation to look at: servers, agents, and a Kubernetes API that knows of them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import (  # noqa: F401 - fixtures
    agent_options,
    connect_agent,
    fakes,
    server_options,
    start_agent,
    start_server,
)
from tests.peers.kube_api import KubeApi

from konnectivity.diagnose.sources import ClusterSource, ServerSource, Sources

PODS = "/api/v1/namespaces/kube-system/pods"
WORKLOAD = "/apis/apps/v1/namespaces/kube-system/daemonsets/konnectivity-agent"
LABELS = {"k8s-app": "konnectivity-agent"}

Command = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
async def api() -> AsyncIterator[KubeApi]:
    async with KubeApi() as server:
        yield server


@pytest.fixture
def kubeconfig(api: KubeApi, folder: Path) -> str:
    return str(api.kubeconfig(folder))


@pytest.fixture
def sources(server_options: dict[str, Any], kubeconfig: str) -> Sources:  # noqa: F811
    """The one server's admin port, and the cluster."""
    url = f"http://127.0.0.1:{server_options['admin_port']}"
    return Sources(servers=(ServerSource(url),), cluster=ClusterSource(kubeconfig))


@pytest.fixture
def konnectivity(exits: AsyncExitStack, folder: Path) -> Command:
    """`konnectivity <arguments>` to its end, without a terminal: status, output, errors."""

    async def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "konnectivity", *arguments),
            env={"HOME": str(folder), "PYTHONPATH": ":".join(sys.path)} | environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        process._transport.close()  # type: ignore[attr-defined]
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    return run


def put_workload(api: KubeApi, *, desired: int, ready: int) -> None:
    """The agents' DaemonSet."""
    api.put(
        WORKLOAD,
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "konnectivity-agent", "labels": LABELS},
            "spec": {"template": {"metadata": {"labels": LABELS}, "spec": {"containers": []}}},
            "status": {"desiredNumberScheduled": desired, "numberReady": ready},
        },
    )


def put_pod(api: KubeApi, name: str, *, waiting: str = "", **status: Any) -> None:
    """An agent's pod, ready unless its container is `waiting` for a reason."""
    state = {"waiting": {"reason": waiting, "message": "told"}} if waiting else {"running": {}}
    api.put(
        f"{PODS}/{name}",
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": LABELS},
            "spec": {
                "nodeName": f"node-of-{name}",
                "containers": [{"name": "konnectivity-agent", "image": "registry/k:1"}],
            },
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "False" if waiting else "True"}],
                "containerStatuses": [
                    {"name": "konnectivity-agent", "restartCount": 0, "state": state}
                ],
            }
            | status,
        },
    )
