"""What kube-apiserver does through a tunnel, one function per scene.

A scene takes a `Kubelet`, whose `dial` hides which frontend carries the tunnel, and returns what
it measured. Whatever does not hold is raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from konnectivity.demo.cluster import POD, PROTOCOL
from konnectivity.demo.https import HttpsConnection, Stream
from konnectivity.demo.payload import Payload
from konnectivity.errors import KonnectivityError

Dial: TypeAlias = Callable[[str], Awaitable[Stream]]
Advance: TypeAlias = Callable[[float], None]
"""Told now and then which part of the scene is done, from 0 to 1."""

PAGES: Final = 25
LOG_LINES: Final = 75
LOG_DELAY: Final = 1.0
"""Seconds within which a log line must arrive; later means it was held back, not streamed."""
SILENCE: Final = 3.0
"""Seconds without an answer after which the kubelet counts as out of reach."""
EXCHANGES: Final = 300
CONTAINER: Final = f"default/{POD}/web"


class SceneError(KonnectivityError):
    """Something came through, but not what was sent."""


@dataclass(frozen=True, slots=True)
class Kubelet:
    """How to reach the kubelet: `dial` opens a tunnel to `host:port`; `tls` trusts its CA."""

    dial: Dial
    host: str
    port: int
    tls: ssl.SSLContext

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[HttpsConnection]:
        """One tunnel with TLS in it, dropped at the end, as kube-apiserver uses them."""
        stream = await self.dial(f"{self.host}:{self.port}")
        connection = await HttpsConnection.open(stream, self.tls, self.host)
        try:
            yield connection
        finally:
            await connection.close()


@dataclass(slots=True)
class Measurement:
    """What a scene moved: bytes of content, seconds, and the latency of each of its steps."""

    result: str = ""
    size: int = 0
    duration: float = 0.0
    latencies: list[float] = field(default_factory=list)

    def end_step(self, start: float) -> None:
        """Take the time since `start` (of `time.perf_counter`) as the latency of one step."""
        self.latencies.append(time.perf_counter() - start)
        self.duration += self.latencies[-1]


async def fetch_pages(kubelet: Kubelet, advance: Advance) -> Measurement:
    """Fetch the pod list, each time over a tunnel of its own: dial, TLS, request, answer."""
    measured = Measurement(f"{PAGES} tunnels")
    for number in range(PAGES):
        start = time.perf_counter()
        async with kubelet.connect() as connection:
            await connection.request("GET", "/pods")
            page = await connection.read_all()
            measured.end_step(start)
        measured.size += len(page)
        names = [item["metadata"]["name"] for item in json.loads(page)["items"]]
        if names != [POD]:
            raise SceneError(f"the pod list names {names} instead of {POD}")
        advance((number + 1) / PAGES)
    return measured


async def follow_log(kubelet: Kubelet, advance: Advance) -> Measurement:
    """Follow a container's log while it is written, then leave in the middle of it.

    The latency is a line's way from the container to here: both ends read one monotonic clock.
    """
    measured = Measurement(f"{LOG_LINES} lines")
    async with kubelet.connect() as connection:
        await connection.request("GET", f"/containerLogs/{CONTAINER}?follow=true")
        start = time.perf_counter()
        for number in range(LOG_LINES):
            line = await connection.read_line()
            delay = (time.monotonic_ns() - int(line.split()[1])) / 1e9
            _expect_line(line, number, delay)
            measured.size += len(line)
            measured.latencies.append(delay)
            advance((number + 1) / LOG_LINES)
        measured.duration = time.perf_counter() - start
    return measured


def _expect_line(line: bytes, number: int, delay: float) -> None:
    if int(line.split()[0]) != number:
        raise SceneError(f"log line {number} is missing, {line!r} came instead")
    if delay > LOG_DELAY:
        raise SceneError(f"log line {number} came {delay:.1f} s after it was written")


async def exchange_lines(kubelet: Kubelet, advance: Advance) -> Measurement:
    """Type into a running container and read what comes back, line by line."""
    measured = Measurement(f"{EXCHANGES} lines")
    upgrade = (("Connection", "Upgrade"), ("Upgrade", PROTOCOL))
    async with kubelet.connect() as connection:
        target = f"/exec/{CONTAINER}?command=capitals&input=1&output=1&tty=1"
        await connection.request("POST", target, fields=upgrade)
        for number in range(EXCHANGES):
            line = b"line %d of the interactive exchange\n" % number
            start = time.perf_counter()
            await connection.write(line)
            answer = await connection.read_line()
            measured.end_step(start)
            if answer != line.upper():
                raise SceneError(f"{line!r} came back as {answer!r}")
            measured.size += len(line) + len(answer)
            advance((number + 1) / EXCHANGES)
    return measured


async def download(kubelet: Kubelet, advance: Advance) -> Measurement:
    """Take bulk data out of the cluster; its SHA-256 was computed there."""
    measured, sha256 = Measurement("SHA-256 agrees"), hashlib.sha256()
    async with kubelet.connect() as connection:
        answer = await connection.request("GET", "/bulk")
        fields = dict(answer.headers)
        expected, size = fields[b"x-sha256"].decode(), int(fields[b"content-length"])
        start = time.perf_counter()
        while data := await connection.read():
            sha256.update(data)
            measured.size += len(data)
            advance(measured.size / size)
        measured.duration = time.perf_counter() - start
    if sha256.hexdigest() != expected:
        raise SceneError(f"{size} bytes have the SHA-256 {sha256.hexdigest()}, not {expected}")
    return measured


async def upload(kubelet: Kubelet, advance: Advance) -> Measurement:
    """Bring bulk data into the cluster and compare the SHA-256 that is computed there."""
    measured, payload = Measurement("SHA-256 agrees"), Payload()
    expected = await asyncio.to_thread(payload.digest)

    def chunks() -> Iterator[bytes]:
        for chunk in payload:
            yield chunk
            measured.size += len(chunk)
            advance(measured.size / payload.size)

    async with kubelet.connect() as connection:
        length = (("Content-Length", str(payload.size)),)
        start = time.perf_counter()
        await connection.request("POST", "/bulk", fields=length, body=chunks())
        answer = json.loads(await connection.read_all())
        measured.duration = time.perf_counter() - start
    if answer != {"missing": 0, "sha256": expected}:
        raise SceneError(f"the cluster received {answer}, not the SHA-256 {expected}")
    return measured


async def expect_unreachable(host: str, port: int) -> str:
    """Dial the kubelet without a tunnel, and return how that fails.

    Raises:
        SceneError: it does not fail, so a tunnel would prove nothing.
    """
    try:
        async with asyncio.timeout(SILENCE):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return f"no answer in {SILENCE:g} s"
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    writer.close()
    raise SceneError(f"{host}:{port} can be reached directly, so nothing isolates the cluster")


Scene: TypeAlias = Callable[[Kubelet, Advance], Awaitable[Measurement]]

SCENES: Final[dict[str, Scene]] = {
    "page from kubelet": fetch_pages,
    "log stream": follow_log,
    "two-way exchange": exchange_lines,
    "download": download,
    "upload": upload,
}
