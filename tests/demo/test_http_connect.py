"""The http-connect dialer against raw sockets: what it sends, what it accepts, how it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from konnectivity.client.http_connect import dial
from konnectivity.demo.certificates import Authority
from konnectivity.errors import DialError

ESTABLISHED = b"HTTP/1.1 200 Connection Established\r\n\r\n"


class Frontend:
    """Answers each connection with `answer` once a request head has come; then echoes or closes."""

    def __init__(self, answer: bytes, *, close: bool) -> None:
        self.requests: list[bytes] = []
        self._answer = answer
        self._close = close

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self._answer)
            while not self._close and (data := await reader.read(4096)):
                writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def frontend(
    path: Path, answer: bytes, *, close: bool = False
) -> AsyncIterator[tuple[str, Frontend]]:
    front = Frontend(answer, close=close)
    async with await asyncio.start_unix_server(front.serve, path):
        yield str(path), front


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "frontend.socket"


async def test_the_request_is_byte_for_byte_that_of_kube_apiserver(path: Path) -> None:
    async with frontend(path, ESTABLISHED) as (proxy, front):
        reader, writer = await dial(proxy, "[fd00::10]:10250")
        writer.write(b"through")
        assert await reader.readexactly(7) == b"through"
        writer.close()
        assert front.requests == [b"CONNECT [fd00::10]:10250 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"]


async def test_bytes_behind_the_head_belong_to_the_tunnel(path: Path) -> None:
    async with frontend(path, ESTABLISHED + b"endpoint first") as (proxy, _):
        reader, writer = await dial(proxy, "node:22")
        assert await reader.readexactly(14) == b"endpoint first"
        writer.close()


@pytest.mark.parametrize(
    ("answer", "close", "text", "reason"),
    [
        (
            b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\n\r\n"
            b"dial tcp 10.0.0.9:1: connect: connection refused",
            True,
            "refused to dial node:1: code 502, dial tcp 10.0.0.9:1: connect: connection refused",
            "unknown",
        ),
        (
            b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 8\r\n\r\ntoo late",
            False,
            "code 504, too late",
            "timeout",
        ),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", True, "Service Unavailable", "limit"),
        (b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", False, "code 201", "unknown"),
        (b"SSH-2.0-sshd\r\n\r\n", True, "did not answer CONNECT node:1: not an HTTP/1", "unknown"),
        (b"HTTP/1.1 200 OK\r\n", True, "did not answer CONNECT node:1", "unknown"),
        (b"", True, "did not answer CONNECT node:1", "unknown"),
    ],
    ids=["502", "504", "503 without body", "201", "not HTTP", "half a head", "nothing"],
)
async def test_a_refusal_says_what_and_why(
    path: Path, answer: bytes, close: bool, text: str, reason: str
) -> None:
    async with frontend(path, answer, close=close) as (proxy, _):
        with pytest.raises(DialError, match=re.escape(text)) as refusal:
            await dial(proxy, "node:1")
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert refusal.value.reason == reason


async def test_a_missing_socket_is_named(path: Path) -> None:
    with pytest.raises(DialError, match=f"cannot reach the frontend at {path}") as refusal:
        await dial(str(path), "node:1")
    assert refusal.value.reason == "unreachable"


async def test_a_frontend_on_tcp_is_reached_with_mutual_tls(authority: Authority) -> None:
    pair, own = authority.issue_server("server", ["localhost"]), authority.issue_client("client")
    accept = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.bundle)
    accept.verify_mode = ssl.CERT_REQUIRED
    accept.load_cert_chain(pair.certificate, pair.key)
    offer = ssl.create_default_context(cafile=authority.bundle)
    offer.load_cert_chain(own.certificate, own.key)
    front = Frontend(ESTABLISHED, close=False)
    async with await asyncio.start_server(front.serve, "localhost", 0, ssl=accept) as server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await dial(("localhost", port, offer), "node:1")
        writer.write(b"through")
        assert await reader.readexactly(7) == b"through"
        writer.close()
        await writer.wait_closed()
