"""One HTTP/2 connection to an API server carries requests and watches; a lost one is replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.net.authority import Authority, Identity
from tests.peers.kube_api import Fault, KubeApi
from tests.peers.kube_http2 import Http2KubeApi

from konnectivity.kube.client import connect, describe, failures
from konnectivity.kube.collection import Collection

if TYPE_CHECKING:
    from lightkube import AsyncClient

MAPS = "api/v1/namespaces/x/configmaps"


@pytest.fixture
async def api(authority: Authority, identity: Identity) -> AsyncIterator[Http2KubeApi]:
    async with Http2KubeApi(identity, authority) as server:
        yield server


@pytest.fixture
def identity(authority: Authority) -> Identity:
    return authority.issue("127.0.0.1")


@pytest.fixture
def client_of(folder: Path, exits: AsyncExitStack) -> Callable[[KubeApi], AsyncClient]:
    def make(api: KubeApi) -> AsyncClient:
        client = connect(str(api.kubeconfig(folder)), qps=500, burst=500, timeout=1, multiplex=True)
        exits.push_async_callback(client.close)
        return client

    return make


Connect = Callable[[KubeApi], "AsyncClient"]


async def next_of(events: AsyncIterator[tuple[str, Any]]) -> tuple[str, Any]:
    async with asyncio.timeout(5):
        return await anext(events)


async def test_requests_and_watches_share_one_connection(
    api: Http2KubeApi, client_of: Connect
) -> None:
    maps = Collection(client_of(api), MAPS)
    await asyncio.gather(*(maps.create({"metadata": {"name": f"m{n}"}}) for n in range(20)))
    items, version = await maps.list()
    assert len(items) == 20
    async with aclosing(maps.watch("", version, limit=60)) as events:
        assert await next_of(events) == ("", {})
        big = await maps.create({"metadata": {"name": "big"}, "data": {"x": "y" * 700_000}})
        kind, item = await next_of(events)
        assert (kind, item["data"]) == ("ADDED", big["data"])
    assert (await maps.get("big"))["data"] == big["data"]
    assert api.accepted == 1


async def test_a_watch_that_is_given_up_ends_at_the_server(
    api: Http2KubeApi, client_of: Connect
) -> None:
    maps = Collection(client_of(api), MAPS)
    async with aclosing(maps.watch("", "1", limit=60)) as events:
        await next_of(events)
        assert api.watches == 1
    async with asyncio.timeout(5):
        while api.watches:  # noqa: ASYNC110 - the server is elsewhere
            await asyncio.sleep(0.01)
    await maps.list()
    assert api.accepted == 1


async def test_a_lost_connection_ends_the_watch_and_the_next_request_has_another(
    api: Http2KubeApi, client_of: Connect
) -> None:
    maps = Collection(client_of(api), MAPS)
    async with aclosing(maps.watch("", "1", limit=60)) as events:
        await next_of(events)
        await api.stop()
        with pytest.raises(failures()):
            await next_of(events)
    with pytest.raises(failures()) as refused:
        await maps.list()
    assert "connection refused" in describe(refused.value)
    await api.start()
    await maps.list()
    assert api.accepted == 2


async def test_a_slow_answer_is_given_up_and_holds_up_no_other(
    api: Http2KubeApi, client_of: Connect
) -> None:
    api.faults.append(Fault("GET", "/secrets", hang=True))
    client = client_of(api)
    slow = asyncio.create_task(Collection(client, "api/v1/namespaces/x/secrets").list())
    await Collection(client, MAPS).list()
    with pytest.raises(failures(), match="no answer within 1 s"):
        await slow
    await Collection(client, MAPS).list()
    assert api.accepted == 1


async def test_errors_keep_the_words_of_the_api(api: Http2KubeApi, client_of: Connect) -> None:
    with pytest.raises(failures()) as missing:
        await Collection(client_of(api), MAPS).get("nothing")
    assert describe(missing.value) == 'configmaps "nothing" not found (HTTP 404 NotFound)'


async def test_a_server_without_http2_is_spoken_to_without(
    authority: Authority, identity: Identity, client_of: Connect
) -> None:
    async with KubeApi(identity, authority) as api:
        maps = Collection(client_of(api), MAPS)
        await maps.create({"metadata": {"name": "a"}})
        assert len((await maps.list())[0]) == 1
        async with aclosing(maps.watch("", "1", limit=60)) as events:
            await next_of(events)
            assert (await next_of(events))[0] == "ADDED"


async def test_a_certificate_of_another_authority_is_refused(
    stranger: Authority, identity: Identity, client_of: Connect
) -> None:
    async with Http2KubeApi(identity, stranger) as api:
        with pytest.raises(failures()) as refused:
            await Collection(client_of(api), MAPS).list()
    assert "is not signed by a CA of our bundle" in describe(refused.value)
