"""Upstream's example manifests with only the image changed: the programs run and carry tunnels.

Changed besides are only paths and names that stand for the cluster around them, and ports, so
that test runs side by side do not meet.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import OpenTunnel
from tests.e2e.test_scenarios import get
from tests.net.authority import Authority, Identity
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ping
from tests.peers.kube_api import KubeApi
from tests.peers.ports import free_port
from tests.peers.program import running
from tests.spec import manifests

AUDIENCE = "system:konnectivity-server"
ACCOUNT = "system:serviceaccount:kube-system:konnectivity-agent"
GOOD = ["a-good-one"]


@pytest.fixture
async def api() -> AsyncIterator[KubeApi]:
    async with KubeApi() as started:
        started.review = lambda spec: {
            "authenticated": spec["token"] in GOOD and AUDIENCE in spec["audiences"],
            "user": {"username": ACCOUNT},
            "audiences": [AUDIENCE],
        }
        yield started


def arguments(text: str, changes: dict[str, object]) -> list[str]:
    """The words of a manifest, with other values for the flags in `changes`, which may add some."""
    given = dict(word.removeprefix("--").partition("=")[::2] for word in text.split())
    assert "" not in given
    kept = [
        f"--{name}" + (f"={value}" if value else "")
        for name, value in given.items()
        if name not in changes
    ]
    return kept + [f"--{name}={value}" for name, value in changes.items()]


@pytest.mark.parametrize("name", ["kind", "kind-multinode", "kubernetes"])
async def test_the_programs_of_a_manifest_find_each_other_and_carry_tunnels(
    name: str,
    api: KubeApi,
    server_options: dict[str, Any],
    authority: Authority,
    identity: Identity,
    folder: Path,
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
) -> None:
    """Scenarios 98 and 100: with token authentication, in both modes."""
    token = folder / "konnectivity-agent-token"
    token.write_text(f"{GOOD[0]}\n")
    kubeconfig = api.kubeconfig(folder)
    server_health, agent_health = free_port(), free_port()
    around_server: dict[str, object] = {
        "uds-name": server_options["uds_name"],
        "cluster-cert": identity.cert,
        "cluster-key": identity.key,
        "kubeconfig": kubeconfig,
        "agent-port": server_options["agent_port"],
        "health-port": server_health,
        "admin-port": free_port(),
    }
    around_agent: dict[str, object] = {
        "ca-cert": authority.bundle,
        "service-account-token-path": token,
        "proxy-server-host": "127.0.0.1",
        "proxy-server-port": server_options["agent_port"],
        "health-server-port": agent_health,
        "admin-server-port": free_port(),
    }
    if "--log-file=" in manifests.SERVERS[name]:
        around_server["log-file"] = folder / "konnectivity-server.log"
    if "--count-server-leases" in manifests.AGENTS[name]:
        around_agent["kubeconfig"] = kubeconfig
    server_argv = arguments(manifests.SERVERS[name], around_server)
    agent_argv = arguments(manifests.AGENTS[name], around_agent)
    async with running("server", *server_argv) as server:
        await server.line("Server is up")
        async with running("agent", *agent_argv) as agent:
            await agent.line("Connected to a server")
            mode = "http-connect" if "--mode=http-connect" in server_argv else "grpc"
            tunnel = await open_tunnel(mode, echoing.address)
            await ping(tunnel)
            assert await get(server_health, "/readyz") == (200, "ok")
            assert await get(agent_health, "/readyz") == (200, "ok")
            _, metrics = await get(agent_health, "/metrics")
            assert "konnectivity_network_proxy_agent_open_server_connections 1\n" in metrics
            await tunnel.close()
        server.signal(signal.SIGTERM)
        assert await server.status() == 0
    assert not [line for line in server.lines + agent.lines if line.startswith(("Error", "E"))]
