"""Health and metrics over HTTP: what probes see, and what nobody can do to the process."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import logging
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from konnectivity.net.listen import Listener
from konnectivity.observe.admin import AdminLimits, AdminServer
from konnectivity.observe.route import Request, Response

pytestmark = pytest.mark.both_loops

PAGE = b"# HELP x y\n" * 50_000


def broken(_request: Request) -> Response:
    raise RuntimeError("broken")


def mirror(request: Request) -> Response:
    text = f"{request.method} {request.path} {request.query} {request.host}"
    return Response(f"{text} {request.asks('verbose')}".encode())


ROUTES = {
    "/healthz": lambda _: Response(b"ok"),
    "/readyz": lambda _: Response(b"no connection to any proxy agent", status=500),
    "/metrics": lambda _: Response(PAGE, content_type="text/plain; version=0.0.4"),
    "/moved": lambda _: Response(b"", status=301, location="//host:8093/metrics?a=b"),
    "/mirror": mirror,
    "/broken": broken,
}


def bound() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


@contextlib.asynccontextmanager
async def serving(**limits: float) -> AsyncIterator[int]:
    """The port of a server with these limits."""
    sock = bound()
    port = sock.getsockname()[1]
    made = AdminLimits(**limits)  # type: ignore[arg-type]
    async with AdminServer(ROUTES, limits=made) as server, Listener(sock, server.accept):
        yield port


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with serving() as port:
        yield port


class Peer:
    """A raw client."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._sock.setblocking(False)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def read(self, limit: int = 1 << 16) -> bytes:
        async with asyncio.timeout(5):
            return await asyncio.get_running_loop().sock_recv(self._sock, limit)

    async def rest(self) -> bytes:
        """All up to the end of the connection."""
        data = b""
        while chunk := await self.read():
            data += chunk
        return data

    def half_close(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._sock.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def exchange(port: int, data: bytes) -> bytes:
    """What comes back on a connection of its own, up to its end."""
    with Peer(port) as peer:
        await peer.send(data)
        return await peer.rest()


async def get(
    port: int, target: str, method: str = "GET"
) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Status line, headers and body."""
    request = f"{method} {target} HTTP/1.1\r\nHost: probe:1\r\nConnection: close\r\n\r\n"
    head, _, body = (await exchange(port, request.encode())).partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    return status, dict(line.split(b": ", 1) for line in lines), body


# Answers


async def test_a_healthy_process_says_ok(port: int) -> None:
    status, headers, body = await get(port, "/healthz")
    assert (status, body) == (b"HTTP/1.1 200 OK", b"ok")
    assert headers[b"Content-Type"] == b"text/plain; charset=utf-8"
    assert headers[b"Content-Length"] == b"2"
    sent = email.utils.parsedate_to_datetime(headers[b"Date"].decode()).timestamp()
    assert abs(time.time() - sent) < 5


async def test_an_unready_process_says_why(port: int) -> None:
    status, _, body = await get(port, "/readyz")
    assert status == b"HTTP/1.1 500 Internal Server Error"
    assert body == b"no connection to any proxy agent"


async def test_metrics_arrive_whole_and_with_their_type(port: int) -> None:
    _, headers, body = await get(port, "/metrics")
    assert body == PAGE
    assert headers[b"Content-Type"] == b"text/plain; version=0.0.4"


async def test_a_redirect_names_its_target(port: int) -> None:
    status, headers, _ = await get(port, "/moved")
    assert status == b"HTTP/1.1 301 Moved Permanently"
    assert headers[b"Location"] == b"//host:8093/metrics?a=b"


@pytest.mark.parametrize("target", ["/", "/livez", "/healthz/", "/HEALTHZ", "//healthz", "*", "/x"])
async def test_other_paths_are_not_found(port: int, target: str) -> None:
    status, headers, body = await get(port, target)
    assert (status, body) == (b"HTTP/1.1 404 Not Found", b"404 page not found\n")
    assert headers[b"Content-Type"] == b"text/plain; charset=utf-8"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
async def test_all_methods_are_accepted(port: int, method: str) -> None:
    status, _, body = await get(port, "/healthz", method)
    assert (status, body) == (b"HTTP/1.1 200 OK", b"ok")


@pytest.mark.parametrize("target", ["/metrics", "/nowhere"])
async def test_head_gets_the_headers_of_get_and_no_body(port: int, target: str) -> None:
    got, asked = await get(port, target), await get(port, target, "HEAD")
    assert asked[0] == got[0]
    assert asked[1][b"Content-Length"] == got[1][b"Content-Length"] == b"%d" % len(got[2])
    assert asked[2] == b""


@pytest.mark.parametrize("target", ["/healthz", "127.0.0.1:22"])
async def test_connect_is_never_granted(port: int, target: str) -> None:
    status, _, _ = await get(port, target, "CONNECT")
    assert status == b"HTTP/1.1 404 Not Found"


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("/mirror", "GET /mirror  probe:1 False"),
        ("/mirror?verbose", "GET /mirror verbose probe:1 True"),
        ("/mirror?a=1&verbose=0", "GET /mirror a=1&verbose=0 probe:1 True"),
        ("/mirror?notverbose", "GET /mirror notverbose probe:1 False"),
        ("/mirr%6Fr?%20", "GET /mirror %20 probe:1 False"),
        ("http://elsewhere/mirror?x", "GET /mirror x probe:1 False"),
    ],
)
async def test_a_route_sees_path_query_and_host(port: int, target: str, seen: str) -> None:
    assert (await get(port, target))[2].decode() == seen


async def test_a_broken_route_is_an_internal_error_and_a_log_record(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "konnectivity.observe.admin"):
        status, _, body = await get(port, "/broken")
    assert status == b"HTTP/1.1 500 Internal Server Error"
    assert b"broken" not in body
    assert [record.getMessage() for record in caplog.records] == ["Request failed path=/broken"]


# Connections


async def test_a_connection_serves_one_request_after_the_other(port: int) -> None:
    with Peer(port) as peer:
        for _ in range(3):
            await peer.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await peer.read()).endswith(b"\r\n\r\nok")


async def test_pipelined_requests_are_answered_in_order(port: int) -> None:
    answer = await exchange(
        port,
        b"GET /mirror?1 HTTP/1.1\r\nHost: x\r\n\r\n"
        b"POST /mirror?2 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
        b"GET /mirror?3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    places = [answer.index(b"/mirror %d x" % number) for number in (1, 2, 3)]
    assert places == sorted(places)


async def test_a_request_may_come_byte_by_byte(port: int) -> None:
    with Peer(port) as peer:
        for byte in b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n":
            await peer.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await peer.rest()).endswith(b"ok")


async def test_an_http_1_0_client_is_served_and_closed(port: int) -> None:
    answer = await exchange(port, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"ok")


async def test_a_client_that_half_closes_behind_its_request_gets_the_answer(port: int) -> None:
    with Peer(port) as peer:
        await peer.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        peer.half_close()
        assert (await peer.rest()).endswith(PAGE)


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
)
async def test_a_body_is_read_and_dropped(port: int, framing: bytes) -> None:
    with Peer(port) as peer:
        for _ in range(2):
            await peer.send(b"POST /healthz HTTP/1.1\r\nHost: x\r\n" + framing)
            assert (await peer.read()).startswith(b"HTTP/1.1 200 OK")


async def test_closing_ends_open_connections() -> None:
    async with serving() as port:
        idle, fresh = Peer(port), Peer(port)
        await idle.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        await idle.read()
    with idle, fresh:
        for peer in (idle, fresh):
            with contextlib.suppress(ConnectionResetError):
                assert await peer.read() == b""
    with pytest.raises(ConnectionRefusedError):
        Peer(port)


async def test_closing_waits_until_all_connections_are_gone() -> None:
    before = len(list_descriptors())
    async with serving() as port:
        peers = [Peer(port) for _ in range(5)]
        for peer in peers:
            await peer.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            await peer.read()
    # Of each pair only our end is left, in the very turn in which the block ends.
    assert len(list_descriptors()) - before <= len(peers)
    for peer in peers:
        peer.close()


def list_descriptors() -> list[Path]:
    return list(Path("/proc/self/fd").iterdir())


async def test_closing_twice_is_harmless() -> None:
    async with AdminServer(ROUTES) as server:
        await server.close()


# Bad input


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\r\n\r\n", b"400 Bad Request"),
        (b"GET /healthz\r\n\r\n", b"400 Bad Request"),
        (b"GET /healthz HTTP/1.1\r\n\r\n", b"400 Bad Request"),  # no Host
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400 Bad Request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505 HTTP Version Not Supported"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", b"400 Bad Request"),
        (b"GET /" + b"x" * 20_000, b"431 Request Header Fields Too Large"),
        (
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 4000,
            b"431 Request Header Fields Too Large",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 70_000,
            b"413 ",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
            b"417 Expectation Failed",
        ),
    ],
)
async def test_bad_requests_are_answered_and_the_connection_closed(
    port: int, sent: bytes, status: bytes
) -> None:
    answer = await exchange(port, sent)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"\r\nConnection: close\r\n" in answer
    assert (await get(port, "/healthz"))[2] == b"ok"


async def test_a_request_that_trickles_in_is_given_up() -> None:
    async with serving(request_timeout=0.2) as port:
        with Peer(port) as peer:
            began = time.monotonic()
            await peer.send(b"GET /healthz HTTP/1.1\r\n")
            await asyncio.sleep(0.1)
            await peer.send(b"Host: x\r\n")  # a sign of life, but no new time
            assert (await peer.rest()).startswith(b"HTTP/1.1 408 Request Timeout")
            assert 0.15 < time.monotonic() - began < 2


@pytest.mark.parametrize("before", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_a_silent_connection_is_closed(before: bytes) -> None:
    async with serving(request_timeout=0.1, idle_timeout=0.1) as port:
        with Peer(port) as peer:
            await peer.send(before)
            if before:
                assert (await peer.read()).endswith(b"ok")
            with contextlib.suppress(ConnectionResetError):
                assert await peer.read() == b""


async def test_a_client_that_does_not_read_costs_one_answer_and_its_time() -> None:
    pages = 0

    def page(_request: Request) -> Response:
        nonlocal pages
        pages += 1
        return Response(bytes(1 << 20))

    sock = bound()
    port = sock.getsockname()[1]
    limits = AdminLimits(write_timeout=0.3)
    async with AdminServer({"/": page}, limits=limits) as server, Listener(sock, server.accept):
        with Peer(port) as peer:
            await peer.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2000)
            await asyncio.sleep(0.2)
            assert pages < 20  # what the kernel's buffers hold, of 2 000
            await asyncio.sleep(0.4)
            assert len(await peer.rest()) < pages << 20  # it ends in the middle


async def test_a_client_that_does_not_read_is_not_read_from_either(port: int) -> None:
    with Peer(port) as peer:
        requests = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000_000
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.send(requests), 0.5)


async def test_a_slow_reader_gets_all_pipelined_answers(port: int) -> None:
    with Peer(port) as peer:
        await peer.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 19)
        await asyncio.sleep(0.05)
        await peer.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await peer.rest()).count(PAGE) == 20


async def test_too_many_connections_end_the_one_that_was_silent_for_longest() -> None:
    async with serving(connections=3) as port:
        peers = [Peer(port) for _ in range(3)]
        for peer in (peers[1], peers[0], peers[2]):
            await peer.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await peer.read()).endswith(b"ok")
        assert (await get(port, "/healthz"))[2] == b"ok"
        with contextlib.suppress(ConnectionResetError):
            assert await peers[1].read() == b""
        for peer in (peers[0], peers[2]):
            await peer.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await peer.read()).endswith(b"ok")
        for peer in peers:
            peer.close()


async def test_a_flood_of_silent_connections_does_not_keep_probes_out() -> None:
    async with serving(connections=8) as port:
        flood = [Peer(port) for _ in range(100)]
        assert (await get(port, "/healthz"))[2] == b"ok"
        for peer in flood:
            peer.close()


PIECES = st.sampled_from(
    [
        *(b"GET ", b"HEAD ", b"CONNECT ", b"/healthz", b"/metrics"),
        *(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/2.0\r\n", b"\r\n", b"0\r\n\r\n", b"abc"),
        *(b"Host: x\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"),
        *(b"Upgrade: h2c\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n"),
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES | st.binary(max_size=20), max_size=14), st.integers(1, 40))
def test_no_input_breaks_the_server(pieces: list[bytes], size: int) -> None:
    data = b"".join(pieces)

    async def scenario() -> None:
        faults: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        async with serving(linger=0.05) as port:
            with Peer(port) as peer, contextlib.suppress(ConnectionError):
                for start in range(0, len(data), size):
                    await peer.send(data[start : start + size])
                    await asyncio.sleep(0)
                peer.half_close()
                await peer.rest()
            assert (await get(port, "/healthz"))[2] == b"ok"
        assert not faults

    asyncio.run(scenario())


def test_the_module_costs_little_memory() -> None:
    script = (
        "import asyncio, ssl, socket, logging\n"
        "def resident(): return int(open('/proc/self/statm').read().split()[1])\n"
        "before = resident()\n"
        "import konnectivity.observe.admin\n"
        "print((resident() - before) * 4096)"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert int(answer.stdout) < 4 << 20
