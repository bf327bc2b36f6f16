"""Each scene holds over a stream that is whole, and fails over one that is not."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ssl
import time
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path

import pytest

from konnectivity.demo import scenes
from konnectivity.demo.certificates import Authority
from konnectivity.demo.cluster import KubeletRequest
from konnectivity.demo.https import HttpsError
from konnectivity.demo.payload import BULK, CHUNK, Payload
from konnectivity.demo.scenes import SCENES, Dial, Scene, SceneError

from .conftest import RunningNode, dial_directly


class Forgetful(KubeletRequest):
    """A kubelet that gets everything slightly wrong."""

    def _list_pods(self) -> None:
        self._answer_json({"items": [{"metadata": {"name": "another"}}]})

    def _follow_log(self) -> None:
        self._begin(("Content-Type", "text/plain"), ("Transfer-Encoding", "chunked"))
        for number in (0, 1, 3):
            line = b"%d %d\n" % (number, time.monotonic_ns())
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

    def _send_bulk(self) -> None:
        self._begin(("Content-Length", str(CHUNK * 3)), ("X-Sha256", Payload(CHUNK * 3).digest()))
        for chunk in Payload(CHUNK * 3):
            self.wfile.write(chunk)

    def _exec(self) -> None:
        upgrade = (("Connection", "Upgrade"), ("Upgrade", "demo-lines"))
        self._begin(*upgrade, status=101)  # type: ignore[arg-type]
        for line in self.rfile:
            self.wfile.write(line)

    def _receive_bulk(self) -> None:
        self.rfile.read(CHUNK)
        self.headers.replace_header(
            "Content-Length", str(int(self.headers["Content-Length"]) - CHUNK)
        )
        super()._receive_bulk()


class Leaving(KubeletRequest):
    """A kubelet that ends TLS in good order behind the head of each answer."""

    def _begin(self, *fields: tuple[str, str], status: HTTPStatus = HTTPStatus.OK) -> None:
        super()._begin(*fields, status=status)
        with contextlib.suppress(OSError):
            self.connection.unwrap()
        raise ConnectionAbortedError


@contextlib.asynccontextmanager
async def cut_after(limit: int, port: int) -> AsyncIterator[Dial]:
    """A dial to `port` whose stream ends in the middle, after `limit` bytes both ways together."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kubelet_reader, kubelet_writer = await asyncio.open_connection("127.0.0.1", port)
        passed = 0

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            nonlocal passed
            while passed < limit and (data := await source.read(4096)):
                passed += len(data)
                sink.write(data)
                await sink.drain()
            writer.transport.abort()
            kubelet_writer.transport.abort()

        with contextlib.suppress(ConnectionError):
            await asyncio.gather(pump(reader, kubelet_writer), pump(kubelet_reader, writer))

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        relay_port = server.sockets[0].getsockname()[1]
        yield lambda _: dial_directly(f"127.0.0.1:{relay_port}")


def ignore(_: float) -> None:
    """Progress that nobody looks at."""


@pytest.mark.parametrize("scene", SCENES.values(), ids=list(SCENES))
async def test_a_scene_holds_over_a_whole_stream(running_node: RunningNode, scene: Scene) -> None:
    parts: list[float] = []
    measured = await scene(running_node.kubelet, parts.append)
    assert parts == sorted(parts)
    assert parts[-1] == 1
    assert measured.size > 0
    assert measured.duration > 0


@pytest.mark.parametrize("scene", SCENES.values(), ids=list(SCENES))
async def test_a_scene_fails_on_wrong_content(running_node: RunningNode, scene: Scene) -> None:
    running_node.node.RequestHandlerClass = Forgetful
    with pytest.raises(SceneError):
        await scene(running_node.kubelet, ignore)


@pytest.mark.parametrize(
    ("what", "limit"),
    [
        ("page from kubelet", 1000),  # in the handshake
        ("log stream", 3500),
        ("two-way exchange", 10_000),
        ("download", 50_000_000),
        ("upload", 50_000_000),
    ],
)
async def test_a_scene_fails_when_the_stream_is_cut(
    running_node: RunningNode, what: str, limit: int
) -> None:
    async with cut_after(limit, running_node.kubelet.port) as dial:
        kubelet = dataclasses.replace(running_node.kubelet, dial=dial)
        with pytest.raises((OSError, HttpsError)):
            await SCENES[what](kubelet, ignore)


@pytest.mark.parametrize("scene", SCENES.values(), ids=list(SCENES))
async def test_a_scene_fails_when_the_kubelet_ends_the_stream(
    running_node: RunningNode, scene: Scene
) -> None:
    running_node.node.RequestHandlerClass = Leaving
    with pytest.raises(HttpsError):
        await scene(running_node.kubelet, ignore)


async def test_bulk_is_a_hundred_megabytes_each_way(running_node: RunningNode) -> None:
    assert BULK == 100_000_000
    for scene in (scenes.download, scenes.upload):
        assert (await scene(running_node.kubelet, ignore)).size == BULK


async def test_a_late_log_line_fails_the_stream(
    running_node: RunningNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenes, "LOG_DELAY", 0.0)
    with pytest.raises(SceneError, match="after it was written"):
        await scenes.follow_log(running_node.kubelet, ignore)


async def test_a_kubelet_of_another_ca_is_refused(
    running_node: RunningNode, tmp_path: Path
) -> None:
    trust = ssl.create_default_context(cafile=Authority(tmp_path).bundle)
    kubelet = dataclasses.replace(running_node.kubelet, tls=trust)
    with pytest.raises(ssl.SSLCertVerificationError):
        await scenes.fetch_pages(kubelet, ignore)


async def test_a_kubelet_that_can_be_reached_directly_fails_the_proof(
    running_node: RunningNode,
) -> None:
    with pytest.raises(SceneError, match="can be reached directly"):
        await scenes.expect_unreachable("127.0.0.1", running_node.kubelet.port)


async def test_the_proof_names_the_failure(unused_tcp_port: int) -> None:
    assert "refused" in (await scenes.expect_unreachable("127.0.0.1", unused_tcp_port)).lower()


def test_a_chunk_that_moves_changes_the_digest() -> None:
    payload = Payload(3 * CHUNK + 5)
    chunks = list(payload)
    assert sum(map(len, chunks)) == payload.size
    assert len(set(chunks)) == len(chunks)
    assert list(payload) == chunks
