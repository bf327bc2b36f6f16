"""The Kubernetes API client: what it needs to begin, how it bounds requests, how it complains."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from lightkube.resources.coordination_v1 import Lease
from tests.net.authority import Authority, Identity
from tests.peers.kube_api import Fault, KubeApi

from konnectivity import __version__
from konnectivity.errors import ConfigError
from konnectivity.kube.client import RateLimit, connect, describe, failures

GOOD: dict[str, Any] = {
    "current-context": "main",
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
    "contexts": [{"name": "main", "context": {"cluster": "c", "user": "u"}}],
    "users": [{"name": "u", "user": {"token": "secret"}}],
}


@pytest.fixture
async def api() -> AsyncIterator[KubeApi]:
    async with KubeApi() as started:
        yield started


@asynccontextmanager
async def client_of(api: KubeApi, folder: Path, **options: Any) -> AsyncIterator[Any]:
    client = connect(str(api.kubeconfig(folder)), **options)
    try:
        yield client
    finally:
        await client.close()


async def names(client: Any) -> list[str]:
    return [lease.metadata.name async for lease in client.list(Lease, namespace="ns")]


@pytest.mark.both_loops
async def test_a_kubeconfig_leads_to_its_api(api: KubeApi, folder: Path) -> None:
    api.put("/apis/coordination.k8s.io/v1/namespaces/ns/leases/one", {})
    async with client_of(api, folder) as client:
        assert await names(client) == ["one"]
    assert api.bearers == ["kube-api-token"]


async def test_the_api_is_spoken_to_over_tls_with_the_kubeconfigs_ca(
    folder: Path, authority: Authority, identity: Identity, stranger: Authority
) -> None:
    async with KubeApi(identity, authority) as api, client_of(api, folder) as client:
        assert await names(client) == []
    async with KubeApi(identity, stranger) as api, client_of(api, folder) as client:
        with pytest.raises(failures()) as caught:
            await names(client)
        assert f"https://127.0.0.1:{api.port}" in describe(caught.value)
        assert "certificate verify failed" in describe(caught.value)


async def test_certificates_within_the_kubeconfig_do(
    folder: Path, authority: Authority, identity: Identity
) -> None:
    async with KubeApi(identity, authority) as api:
        path = api.kubeconfig(folder)
        content = json.loads(path.read_text())
        bundle = content["clusters"][0]["cluster"].pop("certificate-authority")
        content["clusters"][0]["cluster"]["certificate-authority-data"] = inline(bundle)
        content["users"][0]["user"] = {
            "client-certificate-data": inline(identity.cert),
            "client-key-data": inline(identity.key),
        }
        path.write_text(json.dumps(content))
        client = connect(str(path))
        assert await names(client) == []
        await client.close()


def inline(path: str) -> str:
    return base64.b64encode(Path(path).read_bytes()).decode()


def changed(**fields: Any) -> dict[str, Any]:
    return {**GOOD, **fields}


def with_cluster(**cluster: Any) -> dict[str, Any]:
    return changed(clusters=[{"name": "c", "cluster": {"server": "https://x:1", **cluster}}])


def with_user(**user: Any) -> dict[str, Any]:
    return changed(users=[{"name": "u", "user": user}])


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("a: [", ["is not YAML", "line 1"]),
        ("just text", ["is not a kubeconfig"]),
        (changed(**{"current-context": ""}), ["current-context is not set", "use-context"]),
        (changed(**{"current-context": "no"}), ["current-context no is not among its contexts"]),
        (changed(clusters=[]), ["cluster c of context main is not among its clusters"]),
        (changed(users=None), ["user u of context main is not among its users"]),
        (changed(contexts="main"), ["field contexts must be a list"]),
        (changed(clusters=[{"name": "c"}]), ["field clusters", "name and cluster"]),
        (with_cluster(server="10.0.0.1:6443"), ["server '10.0.0.1:6443' of cluster c", "https://"]),
        (with_cluster(server=7), ["server 7 of cluster c"]),
        (with_cluster(**{"certificate-authority": "no.crt"}), ["no.crt", "certificate-authority"]),
        (with_cluster(**{"certificate-authority-data": "eHg="}), ["cannot load CA"]),
        (with_user(tokenFile="gone"), ["gone", "tokenFile", "does not exist"]),
        (with_user(token=["a"]), ["is not a kubeconfig"]),
        (with_user(**{"client-certificate-data": "eHg="}), ["client-key", "one is missing"]),
        (
            with_user(**{"client-certificate-data": "eHg=", "client-key-data": "eHg="}),
            ["cannot load CA, client certificate or key"],
        ),
        (with_user(**{"auth-provider": {"name": "x"}}), ["auth-provider"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_bad_kubeconfig_is_one_line_with_file_and_field(
    content: object, texts: list[str], folder: Path
) -> None:
    path = folder / "config"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError) as caught:
        connect(str(path))
    message = str(caught.value)
    assert f"kubeconfig {path}" in message
    assert "\n" not in message
    assert "secret" not in message
    for text in texts:
        assert text in message


def test_a_missing_kubeconfig_is_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match="absent cannot be read: No such file"):
        connect(str(folder / "absent"))


async def test_a_context_without_user_is_anonymous(api: KubeApi, folder: Path) -> None:
    path = api.kubeconfig(folder)
    content = json.loads(path.read_text())
    content["contexts"][0]["context"] = {"cluster": "test"}
    path.write_text(json.dumps(content))
    client = connect(str(path))
    assert await names(client) == []
    await client.close()
    assert api.bearers == [""]


@pytest.fixture
def pod(
    folder: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, pytest.MonkeyPatch]:
    """The files of a pod's service account, and its environment."""
    (folder / "token").write_text("first\n")
    (folder / "namespace").write_text("kube-system")
    (folder / "ca.crt").write_bytes(Path(authority.bundle).read_bytes())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    return str(folder), monkeypatch


async def test_in_a_pod_the_token_is_read_again_when_the_api_refuses_the_old_one(
    pod: tuple[str, pytest.MonkeyPatch], folder: Path, authority: Authority, identity: Identity
) -> None:
    account, environment = pod
    async with KubeApi(identity, authority) as api:
        environment.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
        client = connect("", account=account)
        api.tokens = {"first"}
        assert await names(client) == []
        (folder / "token").write_text("second\n")
        api.tokens = {"second"}
        assert await names(client) == []
        assert api.bearers == ["first", "first", "second"]
        await client.close()


def test_outside_of_a_pod_a_kubeconfig_is_asked_for(
    pod: tuple[str, pytest.MonkeyPatch], folder: Path
) -> None:
    account, environment = pod
    (folder / "token").unlink()
    with pytest.raises(ConfigError, match=r"token cannot be read; set --kubeconfig, or automount"):
        connect("", account=account)
    environment.delenv("KUBERNETES_SERVICE_HOST")
    with pytest.raises(ConfigError, match=r"KUBERNETES_SERVICE_HOST is not set.*set --kubeconfig"):
        connect("", account=account)


async def test_a_request_that_is_not_answered_ends_in_time(api: KubeApi, folder: Path) -> None:
    api.faults.append(Fault(hang=True))
    async with client_of(api, folder, timeout=0.1) as client:
        with pytest.raises(failures()) as caught:
            await names(client)
        assert describe(caught.value) == f"{api.url}: no answer within 0.1 s"


@pytest.mark.parametrize("qps", [50.0, 20.0])
async def test_requests_beyond_the_burst_wait_their_turn(
    qps: float, api: KubeApi, folder: Path
) -> None:
    async with client_of(api, folder, qps=qps, burst=2) as client:
        began = time.monotonic()
        await asyncio.gather(*(names(client) for _ in range(6)))
        assert time.monotonic() - began >= 4 / qps
    assert len(api.requests) == 6


async def test_a_negative_rate_is_no_limit() -> None:
    rate = RateLimit(qps=-1, burst=0)
    began = time.monotonic()
    for _ in range(100):
        await rate.take()
    assert time.monotonic() - began < 0.1


async def test_a_burst_is_not_delayed_and_a_cancelled_waiter_takes_nothing() -> None:
    rate = RateLimit(qps=10, burst=3)
    began = time.monotonic()
    for _ in range(3):
        await rate.take()
    assert time.monotonic() - began < 0.08
    waiters = [asyncio.ensure_future(rate.take()) for _ in range(50)]
    await asyncio.sleep(0)
    for waiter in waiters:
        waiter.cancel()
    await asyncio.wait(waiters)
    await rate.take()
    assert 0.05 < time.monotonic() - began < 0.5


async def test_the_apis_own_words_and_status_make_one_line(api: KubeApi, folder: Path) -> None:
    text = "leases is forbidden:\n User cannot list"
    api.faults.append(Fault(status=403, message=text))
    async with client_of(api, folder) as client:
        with pytest.raises(failures()) as caught:
            await names(client)
    assert describe(caught.value) == "leases is forbidden: User cannot list (HTTP 403 Forbidden)"


async def test_an_api_that_is_away_is_named_with_the_systems_words(
    api: KubeApi, folder: Path
) -> None:
    async with client_of(api, folder) as client:
        await api.stop()
        with pytest.raises(failures()) as caught:
            await names(client)
        assert describe(caught.value).startswith(f"{api.url}: ")
        assert "onnect" in describe(caught.value)
        await api.start()
        assert await names(client) == []


async def test_a_failure_right_behind_another_answer_is_not_taken_for_it(
    api: KubeApi, folder: Path
) -> None:
    async with client_of(api, folder) as client:
        api.faults.append(Fault(status=404, message="no such lease"))

        async def ask_twice() -> None:
            try:
                await names(client)
            except failures():
                await api.stop()
                await names(client)

        with pytest.raises(failures()) as caught:
            await ask_twice()
        assert describe(caught.value).startswith(f"{api.url}: ")
        assert "no such lease" not in describe(caught.value)
        assert "404" not in describe(caught.value)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "HTTP 502 Bad Gateway from"),
        (
            b"HTTP/1.1 500 Oops\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n<>",
            "",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\n<>", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "closed"),
        (b"SSH-2.0-nonsense\r\n\r\n", ""),
        (b"", "disconnected"),
    ],
)
async def test_nonsense_for_an_answer_is_a_failure_in_one_line(
    answer: bytes, text: str, api: KubeApi, folder: Path
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    path = api.kubeconfig(folder)
    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        path.write_text(path.read_text().replace(str(api.port), str(port)))
        client = connect(str(path))
        with pytest.raises(failures()) as caught:
            await names(client)
        await client.close()
    said = describe(caught.value)
    assert said
    assert "\n" not in said
    assert text in said


async def test_requests_say_who_sends_them(folder: Path) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        path = folder / "config"
        path.write_text(json.dumps(with_cluster(server=f"http://127.0.0.1:{port}")))
        client = connect(str(path))
        with pytest.raises(failures()):
            await names(client)
        await client.close()
    assert f"user-agent: konnectivity/{__version__}".encode() in heads[0].lower()
