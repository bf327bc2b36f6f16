"""The API server that other tests stand on behaves like one, seen through the client library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import lightkube
import pytest
from lightkube import ApiError, KubeConfig
from lightkube.generic_resource import create_namespaced_resource
from tests.net.authority import Authority, Identity
from tests.peers.kube_api import REVIEWS, Fault, KubeApi

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
Lease = create_namespaced_resource("coordination.k8s.io", "v1", "Lease", "leases")


@asynccontextmanager
async def connected(config: Path) -> AsyncIterator[Any]:
    client = lightkube.AsyncClient(KubeConfig.from_file(str(config)), namespace="kube-system")
    try:
        yield client
    finally:
        await client.close()


def lease(name: str, **labels: str) -> Any:
    return Lease(metadata={"name": name, "labels": labels}, spec={"holderIdentity": name})


async def names(client: Any, **options: Any) -> list[str]:
    return [each.metadata.name async for each in client.list(Lease, **options)]


async def test_what_is_created_is_listed_by_label_updated_and_deleted(folder: Path) -> None:
    async with KubeApi() as api, connected(api.kubeconfig(folder)) as client:
        one = await client.create(lease("one", app="server"))
        await client.create(lease("two", app="other"))
        assert await names(client, labels={"app": "server"}) == ["one"]
        with pytest.raises(ApiError) as caught:
            await client.create(lease("one"))
        assert caught.value.status.reason == "AlreadyExists"
        await client.replace(one)
        with pytest.raises(ApiError) as caught:
            await client.replace(one)
        assert (caught.value.status.code, caught.value.status.reason) == (409, "Conflict")
        await client.delete(Lease, "one")
        with pytest.raises(ApiError) as caught:
            await client.get(Lease, "one")
        assert caught.value.status.code == 404
        assert await names(client) == ["two"]
        assert api.asked("GET", "/leases")[0].query == {"labelSelector": "app=server"}


async def test_a_watch_tells_what_matches_its_labels_until_it_ends(folder: Path) -> None:
    async with KubeApi() as api, connected(api.kubeconfig(folder)) as client:
        api.put(f"{LEASES}/old", {"metadata": {"labels": {"app": "server"}}})
        seen: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

        async def watch() -> None:
            async for event, item in client.watch(Lease, labels={"app": "server"}):
                seen.put_nowait((event, item.metadata.name))

        task = asyncio.create_task(watch())
        assert await seen.get() == ("ADDED", "old")
        api.put(f"{LEASES}/foreign", {"metadata": {"labels": {"app": "other"}}})
        api.put(f"{LEASES}/new", {"metadata": {"labels": {"app": "server"}}})
        assert await seen.get() == ("ADDED", "new")
        api.put(f"{LEASES}/new", {"metadata": {"labels": {}}})
        assert await seen.get() == ("DELETED", "new")
        api.remove(f"{LEASES}/old")
        assert await seen.get() == ("DELETED", "old")
        api.expire_watches()
        with pytest.raises(ApiError) as caught:
            await task
        assert caught.value.status.code == 410


async def test_tokens_are_reviewed_by_the_test_over_tls(
    folder: Path, authority: Authority, identity: Identity
) -> None:
    api = KubeApi(identity, authority)
    good = "good"
    api.review = lambda spec: {"authenticated": spec["token"] == good}
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
    async with api, connected(api.kubeconfig(folder)) as client:
        for token in (good, "bad"):
            body = review | {"spec": {"token": token}}
            answer = await client._client._client.post(REVIEWS, json=body)
            assert answer.json()["status"] == {"authenticated": token == good}
        assert set(api.bearers) == {"kube-api-token"}
        api.tokens = {"another"}
        with pytest.raises(ApiError) as caught:
            await client.get(Lease, "one")
        assert caught.value.status.code == 401


async def test_faults_refuse_delay_and_hang_as_often_as_they_are_told_to(folder: Path) -> None:
    async with KubeApi() as api, connected(api.kubeconfig(folder)) as client:
        api.faults += [Fault(method="GET", path="/leases", status=403, times=1), Fault(hang=True)]
        with pytest.raises(ApiError) as caught:
            await names(client)
        assert caught.value.status.reason == "Forbidden"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await names(client)
        api.faults.clear()
        await api.stop()
        await api.start()
        assert await names(client) == []
