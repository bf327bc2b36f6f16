"""The accept loop: TLS or not, faults of peers, floods, and a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from tests.net.authority import Authority

from konnectivity.net import tcp, tls
from konnectivity.net.bind import tcp_socket, unix_socket
from konnectivity.net.handshake import Context, HandshakeFault
from konnectivity.net.listen import Listener, ListenerLimits
from konnectivity.wire.foreign import describe

pytestmark = pytest.mark.both_loops

LOGGER = "konnectivity.net.listen"


class Echo(asyncio.Protocol):
    """Sends back what it gets; notes itself in `made`."""

    made: list[Echo]

    def __init__(self) -> None:
        self.made.append(self)
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if "speaks TLS" in describe(data):
            logging.getLogger(LOGGER).warning("TLS on a plain-text port")
            self.transport.close()
        else:
            self.transport.write(data)

    def connection_lost(self, _error: Exception | None) -> None:
        self.lost = True


@pytest.fixture
def echo() -> type[Echo]:
    return type("Echo", (Echo,), {"made": []})


@pytest.fixture
def context(authority: Authority) -> Context:
    identity = authority.issue("localhost")
    return tls.server_context(identity.cert, identity.key)


@pytest.fixture(autouse=True)
def log_to_caplog(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG, LOGGER):
        yield


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


async def ask(port: int, context: ssl.SSLContext | None = None, text: bytes = b"ping") -> bytes:
    """What the listener's protocol answers to `text`."""
    host = "localhost" if context else None
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=host
        )
        try:
            writer.write(text)
            return await reader.read(100)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is watched knows no events
            await asyncio.sleep(0.005)


def client_of(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.setblocking(False)
    return client


async def end_of(client: socket.socket) -> bytes:
    """All that the listener still sends on `client`, until it closes."""
    received = b""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionResetError):
            while chunk := await loop.sock_recv(client, 4096):
                received += chunk
    client.close()
    return received


# Connections


async def test_a_plain_connection_reaches_its_protocol(echo: type[Echo]) -> None:
    async with Listener(tcp_socket("127.0.0.1", 0), echo) as listener:
        assert listener.address == f"127.0.0.1:{listener.port}"
        assert await ask(listener.port) == b"ping"


async def test_a_tls_connection_reaches_its_protocol(
    echo: type[Echo], context: Context, authority: Authority
) -> None:
    trusting = tls.client_context(authority.bundle)
    async with Listener(tcp_socket("127.0.0.1", 0), echo, context=lambda: context) as listener:
        assert await ask(listener.port, trusting) == b"ping"
        await until(lambda: echo.made[0].lost)


async def test_a_unix_connection_reaches_its_protocol(echo: type[Echo], tmp_path: Path) -> None:
    path = str(tmp_path / "frontend.sock")
    async with Listener(unix_socket(path, delete_existing=True), echo) as listener:
        assert (listener.address, listener.port) == (path, 0)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"ping")
        assert await reader.read(100) == b"ping"
        writer.close()
        await writer.wait_closed()


async def test_connections_to_all_interfaces_are_named_by_their_ipv4_address(
    echo: type[Echo], context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    async with Listener(tcp_socket("", 0), echo, context=lambda: context) as listener:
        client = client_of(listener.port)
        peer = f"127.0.0.1:{client.getsockname()[1]}"
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        await end_of(client)
        await until(lambda: lines(caplog))
    assert lines(caplog) == [
        f"TLS handshake failed peer={peer} cause=the peer speaks plain HTTP on a TLS port"
    ]


async def test_accepted_tcp_sockets_are_tuned(echo: type[Echo]) -> None:
    limits = ListenerLimits(user_timeout=20)
    async with Listener(tcp_socket("127.0.0.1", 0), echo, limits=limits) as listener:
        with client_of(listener.port):
            await until(lambda: echo.made and hasattr(echo.made[0], "transport"))
            sock = echo.made[0].transport.get_extra_info("socket")
            read = lambda option: sock.getsockopt(socket.IPPROTO_TCP, option)  # noqa: E731
            assert read(socket.TCP_NODELAY) == 1
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert read(socket.TCP_KEEPIDLE) == tcp.KEEPALIVE_IDLE == 15
            assert read(socket.TCP_KEEPINTVL) == tcp.KEEPALIVE_INTERVAL == 15
            assert read(socket.TCP_KEEPCNT) == tcp.KEEPALIVE_PROBES == 9
            assert read(socket.TCP_USER_TIMEOUT) == 20_000
        await until(lambda: echo.made[0].lost)


async def test_each_connection_gets_the_context_of_its_moment(
    echo: type[Echo], authority: Authority, stranger: Authority
) -> None:
    mine, theirs = authority.issue("localhost"), stranger.issue("localhost")
    current = tls.server_context(mine.cert, mine.key)
    async with Listener(tcp_socket("127.0.0.1", 0), echo, context=lambda: current) as listener:
        assert await ask(listener.port, tls.client_context(authority.bundle)) == b"ping"
        current = tls.server_context(theirs.cert, theirs.key)
        assert await ask(listener.port, tls.client_context(stranger.bundle)) == b"ping"
        with pytest.raises(HandshakeFault):
            await ask(listener.port, tls.client_context(authority.bundle))


# Faults of peers


async def test_tls_on_a_plain_port_ends_with_one_line(
    echo: type[Echo], authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with Listener(tcp_socket("127.0.0.1", 0), echo) as listener:
        with pytest.raises(OSError):  # noqa: PT011 - what the client sees is its loop's choice
            await ask(listener.port, tls.client_context(authority.bundle))
        await until(lambda: echo.made[0].lost)
    assert lines(caplog) == ["TLS on a plain-text port"]


@pytest.mark.parametrize(
    ("sent", "cause"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "the peer does not speak TLS"),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", "the peer speaks plain HTTP on a TLS port"),
        (b"\0" * 100_000, "the peer does not speak TLS"),
    ],
)
async def test_plain_text_on_a_tls_port_ends_with_one_line(
    echo: type[Echo],
    context: Context,
    caplog: pytest.LogCaptureFixture,
    sent: bytes,
    cause: str,
) -> None:
    async with Listener(tcp_socket("127.0.0.1", 0), echo, context=lambda: context) as listener:
        client = client_of(listener.port)
        client.send(sent)
        await end_of(client)
        await until(lambda: lines(caplog))
    assert [line.partition("cause=")[2] for line in lines(caplog)] == [cause]


async def test_silent_peers_are_given_up_and_others_are_served_meanwhile(
    echo: type[Echo], context: Context, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    limits = ListenerLimits(handshake_timeout=0.5)
    async with Listener(
        tcp_socket("127.0.0.1", 0), echo, context=lambda: context, limits=limits
    ) as listener:
        silent = [client_of(listener.port) for _ in range(5)]
        assert await ask(listener.port, tls.client_context(authority.bundle)) == b"ping"
        for client in silent:
            assert await end_of(client) == b""
        await until(lambda: len(lines(caplog)) == 5)
    assert {line.partition("cause=")[2] for line in lines(caplog)} == {
        "no complete handshake within 0.5 s"
    }


async def test_failed_handshakes_beyond_the_burst_are_only_counted(
    echo: type[Echo], context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    limits = ListenerLimits(log_burst=2)
    async with Listener(
        tcp_socket("127.0.0.1", 0), echo, context=lambda: context, limits=limits
    ) as listener:
        for _ in range(7):
            client = client_of(listener.port)
            client.send(bytes(20))
            await end_of(client)
    failed, summed = "TLS handshake failed", "TLS handshakes failed that were not logged count=5"
    assert [line.partition(" peer")[0] for line in lines(caplog)] == [failed, failed, summed]


async def test_a_context_that_cannot_be_made_refuses_one_connection_with_one_line(
    echo: type[Echo], context: Context, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    def sometimes() -> ssl.SSLContext:
        if not lines(caplog):
            raise ValueError("no certificate")
        return context

    async with Listener(tcp_socket("127.0.0.1", 0), echo, context=sometimes) as listener:
        assert await end_of(client_of(listener.port)) == b""
        assert await ask(listener.port, tls.client_context(authority.bundle)) == b"ping"
    assert [line.partition("cause=")[2] for line in lines(caplog)] == ["no certificate"]


async def test_a_protocol_that_cannot_be_made_ends_one_connection(
    echo: type[Echo], context: Context, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    def sometimes() -> asyncio.Protocol:
        if not lines(caplog):
            raise RuntimeError("broken")
        return echo()

    async with Listener(tcp_socket("127.0.0.1", 0), sometimes, context=lambda: context) as listener:
        assert await end_of(client_of(listener.port)) == b""
        assert await ask(listener.port, tls.client_context(authority.bundle)) == b"ping"
    assert [line.partition(" peer")[0] for line in lines(caplog)] == ["Connection failed"]


# Limits


async def test_handshakes_beyond_the_limit_wait_in_the_accept_queue(
    echo: type[Echo], context: Context, authority: Authority
) -> None:
    limits = ListenerLimits(handshakes=2, handshake_timeout=0.4)
    async with Listener(
        tcp_socket("127.0.0.1", 0), echo, context=lambda: context, limits=limits
    ) as listener:
        silent = [client_of(listener.port) for _ in range(2)]
        await asyncio.sleep(0.05)
        began = time.monotonic()
        asking = asyncio.create_task(ask(listener.port, tls.client_context(authority.bundle)))
        await asyncio.sleep(0.1)
        assert len(echo.made) == 2  # the third is not accepted yet
        assert await asking == b"ping"
        assert time.monotonic() - began > 0.2
        for client in silent:
            client.close()


async def test_a_burst_of_connections_is_accepted_in_full(echo: type[Echo]) -> None:
    async with Listener(tcp_socket("127.0.0.1", 0), echo) as listener:
        answers = await asyncio.gather(*(ask(listener.port) for _ in range(200)))
    assert answers == [b"ping"] * 200


@pytest.mark.skipif(
    int(Path("/proc/sys/net/core/somaxconn").read_text()) < 400, reason="the kernel allows less"
)
@pytest.mark.parametrize("encrypted", [False, True])
async def test_hundreds_of_clients_may_connect_before_the_loop_comes_round(
    echo: type[Echo], context: Context, tmp_path: Path, encrypted: bool
) -> None:
    path = str(tmp_path / "frontend.sock")
    current = (lambda: context) if encrypted else None
    async with Listener(unix_socket(path, delete_existing=True), echo, context=current):
        clients = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(300)]
        for client in clients:
            client.setblocking(False)
            client.connect(path)  # BlockingIOError when the queue is full
        await until(lambda: len(echo.made) == 300)
        for client in clients:
            client.close()
        await asyncio.sleep(0.05)


async def test_a_shortage_of_descriptors_is_outlived_without_spinning(
    echo: type[Echo], context: Context, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with Listener(tcp_socket("127.0.0.1", 0), echo, context=lambda: context) as listener:
        waiting = [socket.socket() for _ in range(3)]
        with no_more_descriptors():
            for client in waiting:
                client.connect(("127.0.0.1", listener.port))
            began = time.process_time()
            await asyncio.sleep(0.5)
            assert time.process_time() - began < 0.05
            assert not echo.made
        await until(lambda: len(echo.made) == 3)  # the waiting ones were not lost
        assert await ask(listener.port, tls.client_context(authority.bundle)) == b"ping"
        for client in waiting:
            client.close()
        await until(lambda: len(lines(caplog)) == 4)
    assert lines(caplog)[0] == (
        f"Cannot accept connections for now address={address_of(caplog)} "
        "cause=[Errno 24] Too many open files"
    )
    assert {line.partition("cause=")[2] for line in lines(caplog)[1:]} == {
        "the peer closed the connection"
    }


def address_of(caplog: pytest.LogCaptureFixture) -> str:
    return lines(caplog)[0].partition("address=")[2].partition(" ")[0]


@pytest.mark.filterwarnings("ignore")  # asyncio's own loop has more to say than ours
async def test_a_plain_listener_outlives_a_shortage_of_descriptors(echo: type[Echo]) -> None:
    async with Listener(tcp_socket("127.0.0.1", 0), echo) as listener:
        with socket.socket() as client, no_more_descriptors():
            client.connect(("127.0.0.1", listener.port))
            await asyncio.sleep(0.05)
        assert await ask(listener.port) == b"ping"


async def test_a_listener_closes_while_it_waits_for_descriptors(
    echo: type[Echo], context: Context
) -> None:
    async with Listener(tcp_socket("127.0.0.1", 0), echo, context=lambda: context) as listener:
        with socket.socket() as client, no_more_descriptors():
            client.connect(("127.0.0.1", listener.port))
            await asyncio.sleep(0.05)
    assert not echo.made


@contextlib.contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Use up the descriptors of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# The end


async def test_closing_refuses_new_connections_and_leaves_made_ones_alone(
    echo: type[Echo],
) -> None:
    async with Listener(tcp_socket("127.0.0.1", 0), echo) as listener:
        port = listener.port
        client = client_of(port)
        await until(lambda: echo.made)
    with pytest.raises(ConnectionRefusedError):
        client_of(port)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, b"ping")
    assert await loop.sock_recv(client, 100) == b"ping"
    client.close()
    await until(lambda: echo.made[0].lost)


async def test_closing_ends_handshakes_in_progress_at_once(
    echo: type[Echo], context: Context
) -> None:
    async with Listener(tcp_socket("127.0.0.1", 0), echo, context=lambda: context) as listener:
        clients = [client_of(listener.port) for _ in range(20)]
        await until(lambda: len(echo.made) == 20)
        began = time.monotonic()
    assert time.monotonic() - began < 1
    for client in clients:
        assert await end_of(client) == b""


async def test_closing_in_the_moment_of_accepting_leaves_nothing(
    echo: type[Echo], context: Context
) -> None:
    for turns in range(6):
        sock = tcp_socket("127.0.0.1", 0)
        async with Listener(sock, echo, context=lambda: context) as listener:
            clients = [client_of(listener.port) for _ in range(5)]
            for _ in range(turns):
                await asyncio.sleep(0)
        for client in clients:
            client.close()


async def test_closing_twice_is_harmless(echo: type[Echo]) -> None:
    async with Listener(tcp_socket("127.0.0.1", 0), echo) as listener:
        await listener.close()


async def test_the_file_of_a_unix_socket_is_deleted_at_the_end(
    echo: type[Echo], tmp_path: Path
) -> None:
    path = tmp_path / "frontend.sock"
    async with Listener(unix_socket(str(path), delete_existing=True), echo):
        assert path.is_socket()
    assert not path.exists()


async def test_the_file_of_another_process_in_its_place_stays(
    echo: type[Echo], tmp_path: Path
) -> None:
    path = tmp_path / "frontend.sock"
    async with Listener(unix_socket(str(path), delete_existing=True), echo):
        path.unlink()
        successor = unix_socket(str(path), delete_existing=False)
    assert path.is_socket()
    successor.close()


async def test_a_unix_socket_whose_file_is_gone_closes_quietly(
    echo: type[Echo], tmp_path: Path
) -> None:
    path = tmp_path / "frontend.sock"
    async with Listener(unix_socket(str(path), delete_existing=True), echo):
        path.unlink()
