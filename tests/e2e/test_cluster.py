"""Tokens and leases at a real Kubernetes API, the one that KUBECONFIG names (`make e2e`).

All objects are made in a namespace of the test's own, which is deleted at the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from lightkube import AsyncClient
from lightkube.models.authentication_v1 import TokenRequestSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.coordination_v1 import Lease
from lightkube.resources.core_v1 import Namespace, ServiceAccount, ServiceAccountToken
from tests.e2e.conftest import Log, OpenTunnel, StartAgent, StartServer, until
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ping
from tests.peers.ports import free_port

from konnectivity.kube.client import connect

pytestmark = pytest.mark.cluster

AUDIENCE = "system:konnectivity-server"
ACCOUNT = "konnectivity-agent"

IssueToken = Callable[..., Awaitable[str]]


@pytest.fixture
def kubeconfig() -> str:
    path = os.environ.get("KUBECONFIG", "")
    if not path:
        pytest.fail("KUBECONFIG names no cluster: make e2e KUBECONFIG=/path/to/kubeconfig")
    return path


@pytest.fixture
async def cluster(kubeconfig: str) -> AsyncIterator[AsyncClient]:
    client = connect(kubeconfig, qps=100, burst=100)
    yield client
    await client.close()


@pytest.fixture
async def namespace(cluster: AsyncClient) -> AsyncIterator[str]:
    name = f"konnectivity-test-{secrets.token_hex(4)}"
    await cluster.create(Namespace(metadata=ObjectMeta(name=name)))
    await cluster.create(ServiceAccount(metadata=ObjectMeta(name=ACCOUNT, namespace=name)))
    yield name
    await cluster.delete(Namespace, name)


@pytest.fixture
def issue_token(cluster: AsyncClient, namespace: str) -> IssueToken:
    async def issue(*audiences: str) -> str:
        spec = TokenRequestSpec(audiences=list(audiences), expirationSeconds=600)
        request = ServiceAccountToken(metadata=ObjectMeta(), spec=spec)
        answer = await cluster.create(request, ACCOUNT, namespace=namespace)
        assert answer.status is not None
        return str(answer.status.token)

    return issue


@pytest.fixture
def authenticating(kubeconfig: str, namespace: str) -> dict[str, Any]:
    return {
        "kubeconfig": kubeconfig,
        "agent_namespace": namespace,
        "agent_service_account": ACCOUNT,
        "authentication_audience": AUDIENCE,
    }


async def test_an_agent_with_the_service_accounts_token_is_let_in(
    start_server: StartServer,
    start_agent: StartAgent,
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
    issue_token: IssueToken,
    authenticating: dict[str, Any],
    folder: Path,
) -> None:
    (folder / "token").write_text(await issue_token(AUDIENCE))
    server = await start_server(**authenticating)
    await start_agent(service_account_token_path=str(folder / "token"))
    await until(lambda: len(server.exchange.backends))
    for mode in ("grpc", "http-connect"):
        await ping(await open_tunnel(mode, echoing.address))


async def test_w45_a_token_for_another_audience_is_refused_and_the_agent_says_so(
    start_server: StartServer,
    start_agent: StartAgent,
    issue_token: IssueToken,
    authenticating: dict[str, Any],
    folder: Path,
    log: Log,
) -> None:
    (folder / "token").write_text(await issue_token("api"))
    server = await start_server(**authenticating)
    await start_agent(service_account_token_path=str(folder / "token"))
    await log.wait_for("Cannot connect to a server", "Failed to validate authentication token")
    assert len(server.exchange.backends) == 0


async def test_the_token_of_a_deleted_account_is_refused(
    start_server: StartServer,
    start_agent: StartAgent,
    cluster: AsyncClient,
    namespace: str,
    issue_token: IssueToken,
    authenticating: dict[str, Any],
    folder: Path,
    log: Log,
) -> None:
    (folder / "token").write_text(await issue_token(AUDIENCE))
    await cluster.delete(ServiceAccount, ACCOUNT, namespace=namespace)
    server = await start_server(**authenticating)
    await start_agent(service_account_token_path=str(folder / "token"))
    await log.wait_for("Cannot connect to a server", "Failed to validate authentication token")
    assert len(server.exchange.backends) == 0


async def test_a_server_without_the_right_to_review_tokens_names_it(
    start_server: StartServer,
    start_agent: StartAgent,
    cluster: AsyncClient,
    issue_token: IssueToken,
    authenticating: dict[str, Any],
    folder: Path,
    log: Log,
) -> None:
    (folder / "token").write_text(await issue_token(AUDIENCE))
    powerless = folder / "kubeconfig"
    powerless.write_text(_as_user(cluster, await issue_token()))
    server = await start_server(**authenticating | {"kubeconfig": str(powerless)})
    await start_agent(service_account_token_path=str(folder / "token"))
    await log.wait_for("tokenreviews", "system:auth-delegator")
    assert len(server.exchange.backends) == 0


def _as_user(client: AsyncClient, token: str) -> str:
    """A kubeconfig for the same cluster and another user."""
    cluster = client.config.cluster
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "c",
                    "cluster": {
                        "server": cluster.server,
                        "insecure-skip-tls-verify": True,
                    },
                }
            ],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
    )


async def test_servers_publish_leases_and_agents_follow_their_number(
    start_server: StartServer,
    start_agent: StartAgent,
    cluster: AsyncClient,
    namespace: str,
    kubeconfig: str,
) -> None:
    """Scenarios 100 and 101."""
    leasing = {"kubeconfig": kubeconfig, "enable_lease_controller": True}
    leasing |= {"lease_namespace": namespace}
    agent = await start_agent(
        kubeconfig=kubeconfig, lease_namespace=namespace, count_server_leases=True
    )
    first = await start_server(**leasing)
    await until(lambda: len(first.exchange.backends))
    second = await start_server(
        **leasing,
        server_id="server-2",
        mode="http-connect",
        uds_name=f"{first.options.uds_name}2",
        agent_port=free_port(),
        health_port=free_port(),
        admin_port=free_port(),
    )

    async def leases() -> set[str]:
        return {
            str(lease.metadata.name)
            async for lease in cluster.list(Lease, namespace=namespace)
            if lease.metadata is not None
        }

    names = {"konnectivity-proxy-server-server-1", "konnectivity-proxy-server-server-2"}
    await until_async(leases, names)
    await until(lambda: agent.counters.known_servers == 2)
    await second.stop()
    await until_async(leases, {"konnectivity-proxy-server-server-1"})
    await until(lambda: agent.counters.known_servers == 1)


async def until_async(look: Callable[[], Awaitable[set[str]]], wanted: set[str]) -> None:
    """Wait until `look()` gives `wanted`."""
    async with asyncio.timeout(30):
        while await look() != wanted:  # noqa: ASYNC110 - the API has no event
            await asyncio.sleep(0.1)
