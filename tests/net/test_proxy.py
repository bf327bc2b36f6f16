"""The outbound proxy: Go's rules for whom it is, and a real one that is asked."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.net.authority import Authority, Identity
from tests.net.test_handshake import End, old
from tests.peers.connect_proxy import ConnectProxy

from konnectivity import __version__
from konnectivity.errors import ConfigError, LinkError
from konnectivity.net import tls
from konnectivity.net.handshake import AlpnFault, explain, secure
from konnectivity.net.proxy import Proxy, choose_proxy, connect_through, is_direct

pytestmark = pytest.mark.both_loops

HOST, PORT = "konnectivity.example", 8091
TARGET = f"{HOST}:{PORT}"

# Whom it is for


@pytest.mark.parametrize(
    ("exceptions", "host", "port", "direct"),
    [
        ("", "konnectivity.example", 8091, False),
        ("", "10.0.0.1", 8091, False),
        # This machine, whatever NO_PROXY says.
        ("", "localhost", 8091, True),
        ("", "127.0.0.1", 8091, True),
        ("", "127.7.7.7", 8091, True),
        ("", "::1", 8091, True),
        ("", "localhost.example", 8091, False),
        # Everybody.
        ("*", "konnectivity.example", 8091, True),
        ("other, * ,more", "10.0.0.1", 8091, True),
        ("*.", "konnectivity.example", 8091, False),
        # Names: themselves and what is below them.
        ("konnectivity.example", "konnectivity.example", 8091, True),
        ("example", "konnectivity.example", 8091, True),
        ("KONNECTIVITY.Example", "konnectivity.example", 8091, True),
        ("konnectivity.example", "KONNECTIVITY.EXAMPLE", 8091, True),
        ("a.konnectivity.example", "konnectivity.example", 8091, False),
        ("ivity.example", "konnectivity.example", 8091, False),
        (" other , konnectivity.example ", "konnectivity.example", 8091, True),
        # With a dot or a star ahead: only what is below.
        (".example", "konnectivity.example", 8091, True),
        (".konnectivity.example", "konnectivity.example", 8091, False),
        ("*.example", "konnectivity.example", 8091, True),
        ("*.konnectivity.example", "konnectivity.example", 8091, False),
        ("*example", "konnectivity.example", 8091, False),
        # With a port.
        ("konnectivity.example:8091", "konnectivity.example", 8091, True),
        ("konnectivity.example:443", "konnectivity.example", 8091, False),
        (".example:8091", "konnectivity.example", 8091, True),
        (":8091", "konnectivity.example", 8091, False),
        # Addresses, compared as such.
        ("10.0.0.1", "10.0.0.1", 8091, True),
        ("10.0.0.1", "10.0.0.2", 8091, False),
        ("10.0.0.1:8091", "10.0.0.1", 8091, True),
        ("10.0.0.1:443", "10.0.0.1", 8091, False),
        ("2001:DB8::1", "2001:db8:0::1", 8091, True),
        ("[2001:db8::1]:8091", "2001:db8::1", 8091, True),
        ("[2001:db8::1]:443", "2001:db8::1", 8091, False),
        ("0.0.1", "10.0.0.1", 8091, True),  # a name below which it is, to Go as well
        # Networks.
        ("10.0.0.0/8", "10.1.2.3", 8091, True),
        ("10.9.9.9/8", "10.1.2.3", 8091, True),
        ("10.0.0.0/8", "11.1.2.3", 8091, False),
        ("10.0.0.0/255.0.0.0", "10.1.2.3", 8091, False),
        ("2001:db8::/32", "2001:db8::7", 8091, True),
        ("2001:db8::/32", "10.1.2.3", 8091, False),
        ("10.0.0.0/8", "konnectivity.example", 8091, False),
        ("0.0.0.0/0", "10.1.2.3", 8091, True),
    ],
)
def test_no_proxy_follows_gos_rules(exceptions: str, host: str, port: int, direct: bool) -> None:
    assert is_direct(exceptions, host, port) is direct


@given(st.text(max_size=30), st.text(max_size=20))
def test_any_exception_and_host_are_judged(exceptions: str, host: str) -> None:
    assert is_direct(exceptions, host, 1) in (True, False)


# Which one


@pytest.mark.parametrize(
    ("text", "host", "port", "credentials"),
    [
        ("http://proxy.example:3128", "proxy.example", 3128, ""),
        ("HTTP://proxy.example:3128/", "proxy.example", 3128, ""),
        ("proxy.example:3128", "proxy.example", 3128, ""),
        ("proxy.example", "proxy.example", 443, ""),
        ("http://proxy.example", "proxy.example", 443, ""),
        ("10.0.0.1:3128", "10.0.0.1", 3128, ""),
        ("http://[2001:db8::1]:3128", "2001:db8::1", 3128, ""),
        ("http://user:p%40ss@proxy.example:3128", "proxy.example", 3128, "user:p@ss"),
        ("http://user@proxy.example:3128", "proxy.example", 3128, "user:"),
        ("user:pass@proxy.example:3128", "proxy.example", 3128, "user:pass"),
    ],
)
def test_a_proxy_is_a_url_or_an_address(text: str, host: str, port: int, credentials: str) -> None:
    proxy = choose_proxy({"HTTPS_PROXY": text}, HOST, PORT)
    assert proxy == Proxy(host, port, credentials)


@pytest.mark.parametrize(
    ("environment", "chosen"),
    [
        ({}, None),
        ({"HTTPS_PROXY": ""}, None),
        ({"HTTP_PROXY": "p:1", "http_proxy": "p:1", "ALL_PROXY": "p:1", "all_proxy": "p:1"}, None),
        ({"https_proxy": "p:1"}, "p:1"),
        ({"HTTPS_PROXY": "p:1", "https_proxy": "q:1"}, "p:1"),
        ({"HTTPS_PROXY": "", "https_proxy": "q:1"}, "q:1"),
        ({"HTTPS_PROXY": "p:1", "NO_PROXY": ".example"}, None),
        ({"HTTPS_PROXY": "p:1", "no_proxy": ".example"}, None),
        ({"HTTPS_PROXY": "p:1", "NO_PROXY": "other", "no_proxy": ".example"}, "p:1"),
        ({"HTTPS_PROXY": "ftp://p:1", "NO_PROXY": "*"}, None),
    ],
)
def test_both_cases_of_the_variables_count_the_upper_one_first(
    environment: dict[str, str], chosen: str | None
) -> None:
    proxy = choose_proxy(environment, HOST, PORT)
    assert (str(proxy) if proxy else None) == chosen


@pytest.mark.parametrize(
    "text",
    [
        "socks5://user:secret@proxy.example:1080",
        "http://user:secret@proxy.example:port",
        "http://user:secret@proxy.example:99999",
        "http://user:sec/ret@proxy.example:3128",
        "http://user:secret@[::1:3128",
        "http://user:secret@",
        "http://user:secret@two words:3128",
    ],
)
def test_a_bad_proxy_is_refused_without_showing_its_password(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^environment variable https_proxy: .*expected") as bad:
        choose_proxy({"https_proxy": text}, HOST, PORT)
    assert "sec" not in str(bad.value)


def test_credentials_are_in_no_text_of_a_proxy() -> None:
    proxy = Proxy("proxy.example", 3128, "user:secret")
    assert "secret" not in f"{proxy} {proxy!r}"
    assert str(Proxy("2001:db8::1", 3128)) == "[2001:db8::1]:3128"


# The way through


@pytest.fixture
async def server(authority: Authority) -> AsyncIterator[int]:
    """The port of a TLS server that greets first and echoes then."""
    identity = authority.issue(HOST)
    context = tls.server_context(identity.cert, identity.key, alpn=["h2"])

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        while piece := await reader.read(1000):
            writer.write(piece)
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context) as listening:
        yield listening.sockets[0].getsockname()[1]
    await asyncio.sleep(0.01)


async def talk(connection: asyncio.Transport, context: ssl.SSLContext) -> bytes:
    """What a server says behind the handshake when it is asked something."""
    transport, end = await secure(End, connection, context, server_host=HOST, timeout=5)
    transport.write(b" again")
    async with asyncio.timeout(5):
        while len(end.received) < 11:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)
    transport.abort()
    await end.lost
    return end.received


async def through(
    exits: AsyncExitStack, server: int = 0, credentials: str = "", **options: Any
) -> tuple[ConnectProxy, Proxy]:
    listening = await exits.enter_async_context(ConnectProxy({TARGET: server}, **options))
    return listening, Proxy("127.0.0.1", listening.port, credentials)


async def refusal(proxy: Proxy, **options: Any) -> str:
    with pytest.raises(LinkError) as caught:
        await connect_through(proxy, HOST, PORT, **options)
    assert caught.value.stage == "proxy"
    return str(caught.value)


async def test_a_server_is_reached_through_a_proxy_that_looks_its_name_up(
    exits: AsyncExitStack, server: int, authority: Authority
) -> None:
    listening, proxy = await through(exits, server)
    connection = await connect_through(proxy, HOST, PORT, user_timeout=20)
    sock = connection.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
    context = tls.client_context(authority.bundle, alpn=["h2"], insist_on_alpn=True)
    assert await talk(connection, context) == b"hello again"
    assert listening.heads == [
        f"CONNECT {TARGET} HTTP/1.1\r\nHost: {TARGET}\r\n"
        f"User-Agent: konnectivity/{__version__}\r\n\r\n".encode()
    ]


async def test_credentials_go_to_the_proxy(exits: AsyncExitStack, server: int) -> None:
    listening, proxy = await through(exits, server, "user:p@ss")
    (await connect_through(proxy, HOST, PORT)).abort()
    wanted = b"\r\nProxy-Authorization: Basic " + base64.b64encode(b"user:p@ss") + b"\r\n\r\n"
    assert listening.heads[0].endswith(wanted)


async def test_ipv6_addresses_are_asked_for_in_brackets(exits: AsyncExitStack) -> None:
    listening, proxy = await through(exits)
    (await connect_through(proxy, "2001:db8::1", PORT)).abort()
    assert listening.heads[0].startswith(b"CONNECT [2001:db8::1]:8091 HTTP/1.1\r\n")


async def test_a_proxy_may_speak_tls_itself(
    exits: AsyncExitStack,
    server: int,
    authority: Authority,
    identity: Identity,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(identity.cert, identity.key)
    listening, _ = await through(exits, server, tls=context)
    monkeypatch.setenv("SSL_CERT_FILE", authority.bundle)
    proxy = choose_proxy({"HTTPS_PROXY": f"https://localhost:{listening.port}"}, HOST, PORT)
    connection = await connect_through(proxy, HOST, PORT)
    inner = tls.client_context(authority.bundle, alpn=["h2"], insist_on_alpn=True)
    assert await talk(connection, inner) == b"hello again"


async def test_a_proxy_whose_certificate_is_not_the_systems_is_refused(
    exits: AsyncExitStack, identity: Identity
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(identity.cert, identity.key)
    listening, _ = await through(exits, tls=context)
    proxy = choose_proxy({"HTTPS_PROXY": f"https://localhost:{listening.port}"}, HOST, PORT)
    text = await refusal(proxy)
    assert text.startswith(f"proxy localhost:{listening.port}: the peer's certificate ")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nA: b\r\n\r\n", "answered 407 Proxy Auth"),
        (b"HTTP/1.0 503 \r\n\r\nnobody there", "answered 503 to CONNECT"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "answered 204 No Content to CONNECT"),
        (b"HTTP/1.1 200 OK\r\n\r\nwelcome", "sent more than its answer to CONNECT"),
        (b"SSH-2.0-OpenSSH\r\n", "not an HTTP/1 answer: b'SSH-2.0-OpenSSH"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"a" * 20_000, "the head is longer than 16384 bytes"),
        (b"HTTP/1.1 200 OK\r\n", "it closed the connection"),
    ],
)
async def test_a_proxy_that_does_not_connect_is_named_with_what_it_said(
    exits: AsyncExitStack, answer: bytes, says: str
) -> None:
    _, proxy = await through(exits, answer=answer)
    text = await refusal(proxy)
    assert text.startswith(f"proxy {proxy} ")
    assert says in text


async def test_a_silent_proxy_costs_its_time_limit(exits: AsyncExitStack) -> None:
    _, proxy = await through(exits, answer=b"")
    text = await refusal(proxy, timeout=0.2)
    assert text == f"proxy {proxy} has not connected us to {TARGET} within 0.2 s"


async def test_a_proxy_that_is_not_there_is_named() -> None:
    text = await refusal(Proxy("127.0.0.1", 1))
    assert text == "cannot connect to proxy 127.0.0.1:1: connection refused"
    text = await refusal(Proxy("a..b", 1))
    assert text == "cannot resolve proxy name a..b: no such host"


async def test_a_server_name_that_is_none_is_not_sent_to_a_proxy(exits: AsyncExitStack) -> None:
    listening, proxy = await through(exits)
    with pytest.raises(LinkError) as caught:
        await connect_through(proxy, "a\r\nX-Other: b", PORT)
    assert caught.value.stage == "name"
    assert listening.heads == []


async def test_a_cancelled_attempt_leaves_nothing(exits: AsyncExitStack) -> None:
    _, proxy = await through(exits, answer=b"")
    for delay in (0, 0.05):
        attempt = asyncio.create_task(connect_through(proxy, HOST, PORT))
        await asyncio.sleep(delay)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt


# Handshakes behind it


class Greeting(asyncio.Protocol):
    """Ends its handshake, says hello and, if `leaving`, closes, all in one packet.

    So do servers with TLS 1.2, whose turn to speak it is at the end of the handshake.
    """

    def __init__(self, context: ssl.SSLContext, *, leaving: bool) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._leaving = leaving

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            self._session.do_handshake()
            self._session.write(b"hello")
            if self._leaving:
                self._session.unwrap()
        self._transport.write(self._outgoing.read())


@pytest.mark.parametrize("leaving", [False, True])
async def test_what_a_server_says_at_once_is_not_lost_behind_a_proxy(
    exits: AsyncExitStack, authority: Authority, leaving: bool
) -> None:
    own = authority.issue(HOST)
    context = old(tls.server_context(own.cert, own.key))
    listening = await asyncio.get_running_loop().create_server(
        lambda: Greeting(context, leaving=leaving), "127.0.0.1", 0
    )
    async with listening:
        _, proxy = await through(exits, listening.sockets[0].getsockname()[1])
        connection = await connect_through(proxy, HOST, PORT)
        client = tls.client_context(authority.bundle)
        transport, end = await secure(End, connection, client, server_host=HOST)
        async with asyncio.timeout(5):
            while not end.received:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.001)
            if not leaving:
                transport.abort()
            await end.lost
        assert end.received == b"hello"


async def test_a_server_that_is_not_trusted_is_explained_through_a_proxy_too(
    exits: AsyncExitStack, server: int, stranger: Authority
) -> None:
    _, proxy = await through(exits, server)
    connection = await connect_through(proxy, HOST, PORT)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - what it says is below
        await secure(End, connection, tls.client_context(stranger.bundle), server_host=HOST)
    assert explain(caught.value) == "the peer's certificate is not signed by a CA of our bundle"


async def test_a_missing_protocol_is_noticed_through_a_proxy_too(
    exits: AsyncExitStack, server: int, authority: Authority
) -> None:
    _, proxy = await through(exits, server)
    connection = await connect_through(proxy, HOST, PORT)
    context = tls.client_context(authority.bundle, insist_on_alpn=True)
    context.insisted = ("h2",)
    with pytest.raises(AlpnFault):
        await secure(End, connection, context, server_host=HOST)


async def test_a_server_that_is_silent_behind_a_proxy_costs_the_time_limit(
    exits: AsyncExitStack, authority: Authority
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        _, proxy = await through(exits, silent.getsockname()[1])
        connection = await connect_through(proxy, HOST, PORT)
        context = tls.client_context(authority.bundle)
        with pytest.raises(TimeoutError, match=r"^no complete handshake within 0.2 s$"):
            await secure(End, connection, context, server_host=HOST, timeout=0.2)
