"""TLS handshakes with every fault that operators meet, provoked for real."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.net.authority import Authority, Identity
from tests.net.sockets import connected_pair, open_as, reset

from konnectivity.net import tls
from konnectivity.net.handshake import Context, explain, secure
from konnectivity.wire.foreign import describe

pytestmark = pytest.mark.both_loops


class End(asyncio.Protocol):
    """One end of a connection that only notes what happens to it."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(error)


@dataclass
class Outcome:
    """What became of one end: `fault` is the explanation, empty when all went well."""

    fault: str
    alpn: str | None = None
    version: str = ""
    cipher: str = ""


async def play(sock: socket.socket, context: ssl.SSLContext, host: str | None = None) -> Outcome:
    """One end's handshake, against a peer that is not ours."""
    async with contextlib.AsyncExitStack() as stack:
        return await shake_hands(stack, sock, context, host)


def without_time(fault: str) -> str:
    """A fault without what the clock showed, which must be near to now."""
    text, _, clock = fault.partition(" clock: ")
    if not clock:
        return fault
    shown = datetime.datetime.fromisoformat(clock)
    assert abs(shown.timestamp() - time.time()) < 60
    return f"{text} clock"


async def meet(
    server: Context, client: ssl.SSLContext, host: str = "localhost"
) -> tuple[Outcome, Outcome]:
    """A server's and a client's handshake with each other."""
    one, other = connected_pair()
    async with contextlib.AsyncExitStack() as stack:
        return await asyncio.gather(
            shake_hands(stack, one, server, None), shake_hands(stack, other, client, host)
        )


async def shake_hands(
    stack: contextlib.AsyncExitStack, sock: socket.socket, context: ssl.SSLContext, host: str | None
) -> Outcome:
    """The handshake and a moment longer: TLS 1.3 tells the client afterwards."""
    try:
        transport, end = await secure(End, sock, context, server_host=host, timeout=2)
    except OSError as error:
        return Outcome(explain(error))
    stack.push_async_callback(asyncio.wait, [end.lost])
    stack.callback(transport.abort)
    session = transport.get_extra_info("ssl_object")
    done = Outcome("", session.selected_alpn_protocol(), session.version(), session.cipher()[0])
    await asyncio.wait([end.lost], timeout=0.1)
    if end.lost.done():
        lost = end.lost.result()
        done.fault = explain(lost) if lost else "closed"
    return done


def serve(identity: Identity, **options: object) -> Context:
    return tls.server_context(identity.cert, identity.key, **options)


def old(context: Context) -> Context:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "LOCALHOST", "localhost."])
async def test_a_server_is_accepted_under_each_name_and_address_of_its_certificate(
    authority: Authority, host: str
) -> None:
    identity = authority.issue("localhost", "127.0.0.1", "::1")
    server, client = await meet(serve(identity), tls.client_context(authority.bundle), host)
    assert (server.fault, client.fault) == ("", "")
    assert client.version == "TLSv1.3"


async def test_a_ca_that_has_expired_is_told_with_the_clock(authority: Authority) -> None:
    bundle, identity = authority.expired_ca()
    server, client = await meet(serve(identity), tls.client_context(bundle))
    assert without_time(client.fault) == (
        "the peer's certificate or that of its CA has expired, by this machine's clock"
    )
    assert server.fault == "our certificate has expired or is not valid yet, says the peer"


@pytest.mark.parametrize(("host", "sent"), [("localhost", "localhost"), ("127.0.0.1", None)])
async def test_a_server_name_is_sent_for_names_only(
    authority: Authority, host: str, sent: str | None
) -> None:
    seen: list[str | None] = []
    context = serve(authority.issue("localhost", "127.0.0.1"))
    context.sni_callback = lambda _session, name, _context: seen.append(name)
    await meet(context, tls.client_context(authority.bundle), host)
    assert seen == [sent]


@pytest.mark.parametrize(
    ("issue", "host", "server_says", "client_says"),
    [
        (
            lambda ca: ca.issue("localhost"),
            "other.example",
            "the peer does not accept our certificate; its log knows why",
            "the peer's certificate is not for 'other.example' (subject alternative names)",
        ),
        (
            lambda ca: ca.issue("localhost", "127.0.0.1"),
            "127.0.0.2",
            "the peer does not accept our certificate; its log knows why",
            "the peer's certificate is not for '127.0.0.2' (subject alternative names)",
        ),
        (
            lambda ca: ca.issue_odd(common_name="localhost"),
            "localhost",
            "the peer does not accept our certificate; its log knows why",
            "the peer's certificate is not for 'localhost' (subject alternative names)",
        ),
        (
            lambda ca: ca.expired("localhost"),
            "localhost",
            "our certificate has expired or is not valid yet, says the peer",
            "the peer's certificate or that of its CA has expired, by this machine's clock",
        ),
        (
            lambda ca: ca.future("localhost"),
            "localhost",
            "the peer does not accept our certificate; its log knows why",
            "the peer's certificate is not valid yet, by this machine's clock",
        ),
        (
            lambda ca: ca.issue_odd(names=("localhost",), forged=True),
            "localhost",
            "our certificate's signature is wrong, says the peer; is its CA another one?",
            "the peer's certificate carries a signature that our CA of that name did not make",
        ),
        (
            lambda ca: ca.issue_odd(names=("localhost",), usage=ExtendedKeyUsageOID.CLIENT_AUTH),
            "localhost",
            "our certificate is not meant for this use, says the peer",
            "the peer's certificate is not meant for this use (extended key usage)",
        ),
    ],
    ids=["name", "address", "common-name-only", "expired", "future", "forged", "usage"],
)
@pytest.mark.parametrize("limit", [lambda context: context, old], ids=["tls13", "tls12"])
async def test_both_ends_say_what_is_wrong_with_a_server_certificate(
    authority: Authority,
    issue: Callable[[Authority], Identity],
    host: str,
    server_says: str,
    client_says: str,
    limit: Callable[[Context], Context],
) -> None:
    client_context = limit(tls.client_context(authority.bundle))
    server, client = await meet(serve(issue(authority)), client_context, host)
    assert (without_time(server.fault), without_time(client.fault)) == (server_says, client_says)


async def test_both_ends_say_that_the_servers_ca_is_unknown(
    authority: Authority, stranger: Authority
) -> None:
    identity = authority.issue("localhost")
    server, client = await meet(serve(identity), tls.client_context(stranger.bundle))
    assert server.fault == "the peer does not know the CA of our certificate"
    assert client.fault == "the peer's certificate is not signed by a CA of our bundle"


@pytest.mark.parametrize(
    ("issue", "server_says", "client_says"),
    [
        (
            lambda _ca, stranger: stranger.issue("agent"),
            "the peer's certificate is not signed by a CA of our bundle",
            "the peer does not know the CA of our certificate",
        ),
        (
            lambda ca, _stranger: ca.expired("agent"),
            "the peer's certificate or that of its CA has expired, by this machine's clock",
            "our certificate has expired or is not valid yet, says the peer",
        ),
        (
            lambda ca, _stranger: ca.issue_odd(names=("agent",)),
            "the peer's certificate is not meant for this use (extended key usage)",
            "our certificate is not meant for this use, says the peer",
        ),
    ],
    ids=["unknown-ca", "expired", "usage"],
)
@pytest.mark.parametrize("limit", [lambda context: context, old], ids=["tls13", "tls12"])
async def test_both_ends_say_what_is_wrong_with_a_client_certificate(
    authority: Authority,
    stranger: Authority,
    issue: Callable[[Authority, Authority], Identity],
    server_says: str,
    client_says: str,
    limit: Callable[[Context], Context],
) -> None:
    own = issue(authority, stranger)
    context = limit(tls.client_context(authority.bundle, cert=own.cert, key=own.key))
    listening = serve(authority.issue("localhost"), client_ca=authority.bundle)
    server, client = await meet(listening, context)
    assert (without_time(server.fault), without_time(client.fault)) == (server_says, client_says)


async def test_a_client_certificate_of_the_ca_is_accepted(authority: Authority) -> None:
    own = authority.issue("agent")
    server, client = await meet(
        serve(authority.issue("localhost"), client_ca=authority.bundle),
        tls.client_context(authority.bundle, cert=own.cert, key=own.key),
    )
    assert (server.fault, client.fault) == ("", "")


@pytest.mark.parametrize(
    ("limit", "client_says"),
    [
        (lambda context: context, "the peer requires a client certificate and got none"),
        (old, "no shared cipher suite or no client certificate, says the peer"),
    ],
    ids=["tls13", "tls12"],
)
async def test_both_ends_say_that_the_client_certificate_is_missing(
    authority: Authority, limit: Callable[[Context], Context], client_says: str
) -> None:
    listening = serve(authority.issue("localhost"), client_ca=authority.bundle)
    server, client = await meet(listening, limit(tls.client_context(authority.bundle)))
    assert server.fault == "the peer sent no client certificate, which we require"
    assert client.fault == client_says


@pytest.mark.parametrize("offered", [(), ("spdy/3",)])
async def test_a_server_that_insists_on_alpn_closes_a_connection_without(
    authority: Authority, offered: tuple[str, ...]
) -> None:
    listening = serve(authority.issue("localhost"), alpn=["h2"], insist_on_alpn=True)
    server, client = await meet(listening, tls.client_context(authority.bundle, alpn=offered))
    assert server.fault == "no shared ALPN protocol, h2 is needed"
    assert client.fault == "closed"


async def test_a_client_that_insists_on_alpn_refuses_a_server_without(
    authority: Authority,
) -> None:
    context = tls.client_context(authority.bundle, alpn=["konnectivity", "h2"], insist_on_alpn=True)
    server, client = await meet(serve(authority.issue("localhost")), context)
    assert client.fault == "no shared ALPN protocol, konnectivity or h2 is needed"
    assert server.fault == "the peer closed the connection"


async def test_the_servers_order_decides_between_shared_alpn_protocols(
    authority: Authority,
) -> None:
    listening = serve(authority.issue("localhost"), alpn=["h2", "http/1.1"], insist_on_alpn=True)
    context = tls.client_context(authority.bundle, alpn=["x", "http/1.1", "h2"])
    server, client = await meet(listening, context)
    assert (server.alpn, client.alpn, client.fault) == ("h2", "h2", "")


async def test_both_ends_say_that_no_cipher_suite_is_shared(authority: Authority) -> None:
    context = old(tls.client_context(authority.bundle))
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA")
    server, client = await meet(serve(authority.issue("localhost")), context)
    assert server.fault == "no shared cipher suite"
    assert client.fault == "no shared cipher suite or no client certificate, says the peer"


async def test_both_ends_say_that_no_version_is_shared(authority: Authority) -> None:
    listening = serve(authority.issue("localhost"), min_version="VersionTLS13")
    server, client = await meet(listening, old(tls.client_context(authority.bundle)))
    assert server.fault == "no shared TLS version"
    assert client.fault == "no shared TLS version, says the peer"


@pytest.mark.parametrize(
    ("sent", "fault"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "the peer speaks plain HTTP on a TLS port"),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", "the peer speaks plain HTTP on a TLS port"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "the peer does not speak TLS"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "the peer does not speak TLS"),
        (bytes(64), "the peer does not speak TLS"),
        (b"\xff" * 64, "the peer does not speak TLS"),
        (b"\x16\x03\x01\x00\x05hello", "the peer does not speak TLS"),
        (b"\x17\x03\x03\x00\x05hello", "the peer does not speak TLS"),
        (b"\x16\x03\x01\xff\xff" + b"x" * 64, "the peer does not speak TLS"),
    ],
)
@pytest.mark.parametrize("host", [None, "localhost"], ids=["server", "client"])
async def test_plain_text_on_a_tls_connection_is_recognised(
    authority: Authority, sent: bytes, fault: str, host: str | None
) -> None:
    context = tls.client_context(authority.bundle) if host else serve(authority.issue("localhost"))
    ours, theirs = connected_pair()
    with theirs:
        theirs.send(sent)
        outcome = await play(ours, context, host)
    assert outcome.fault == fault


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01"])
async def test_a_peer_that_closes_in_the_middle_is_recognised(
    authority: Authority, sent: bytes
) -> None:
    ours, theirs = connected_pair()
    theirs.send(sent)
    theirs.close()
    outcome = await play(ours, serve(authority.issue("localhost")))
    assert outcome.fault == "the peer closed the connection"


async def test_a_peer_that_resets_in_the_middle_is_recognised(authority: Authority) -> None:
    ours, theirs = connected_pair()
    playing = asyncio.create_task(play(ours, serve(authority.issue("localhost"))))
    await asyncio.sleep(0.05)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    assert (await playing).fault == "the peer reset the connection"


@pytest.mark.parametrize("host", [None, "localhost"], ids=["server", "client"])
async def test_a_silent_peer_is_given_up_after_the_time_limit(
    authority: Authority, host: str | None
) -> None:
    context = tls.client_context(authority.bundle) if host else serve(authority.issue("localhost"))
    ours, theirs = connected_pair()
    with theirs, pytest.raises(TimeoutError) as caught:
        await secure(End, ours, context, server_host=host, timeout=0.05)
    assert explain(caught.value) == "no complete handshake within 0.05 s"


@pytest.mark.parametrize("host", [None, "localhost"], ids=["server", "client"])
async def test_a_cancelled_handshake_closes_the_socket(
    authority: Authority, host: str | None
) -> None:
    context = tls.client_context(authority.bundle) if host else serve(authority.issue("localhost"))
    ours, theirs = connected_pair()
    with theirs:
        running = asyncio.create_task(secure(End, ours, context, server_host=host))
        await asyncio.sleep(0.05)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.sleep(0.05)
        while received := theirs.recv(4096):  # a ClientHello at most, then the end
            assert "speaks TLS" in describe(received)


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("cancel", [False, True], ids=["waits on", "is cancelled"])
@pytest.mark.parametrize("host", [None, "localhost"], ids=["server", "client"])
async def test_a_reset_at_any_moment_closes_the_socket_once(
    authority: Authority, host: str | None, cancel: bool, turns: int
) -> None:
    context = tls.client_context(authority.bundle) if host else serve(authority.issue("localhost"))
    ours, theirs = connected_pair()
    number = ours.fileno()
    running = asyncio.create_task(secure(End, ours, context, server_host=host))
    del ours
    for _ in range(turns):
        await asyncio.sleep(0)
    reset(theirs)
    if cancel:
        await asyncio.sleep(0)
        running.cancel()
    with pytest.raises(asyncio.CancelledError if cancel else ConnectionError):
        await running
    await asyncio.sleep(0)
    with open_as(number) as another:
        del running
        gc.collect()
        assert another.getsockname()  # its descriptor has not been closed by us


async def test_the_peer_gets_the_alert_of_a_failed_handshake(authority: Authority) -> None:
    ours, theirs = connected_pair()
    with theirs:
        theirs.send(b"\x16\x03\x01\x00\x05hello")
        await play(ours, serve(authority.issue("localhost")))
        assert theirs.recv(100) == bytes.fromhex("15 0303 0002 02 0a")  # fatal, unexpected_message
        assert theirs.recv(100) == b""


async def test_a_client_that_talks_on_still_gets_the_alert(authority: Authority) -> None:
    one, other = connected_pair()
    context = ssl.create_default_context(cafile=authority.bundle)

    def talk() -> str:
        other.setblocking(True)
        with context.wrap_socket(other, server_hostname="localhost") as client:
            try:
                for _ in range(3):  # a client that writes first, as Go's does
                    time.sleep(0.05)
                    client.sendall(bytes(1000))
                client.recv(1)
            except OSError as error:
                return explain(error)
        return "no alert"

    listening = serve(authority.issue("localhost"), client_ca=authority.bundle)
    server, said = await asyncio.gather(play(one, listening), asyncio.to_thread(talk))
    assert server.fault == "the peer sent no client certificate, which we require"
    assert said == "the peer requires a client certificate and got none"


async def test_data_flows_behind_the_handshake(authority: Authority) -> None:
    one, other = connected_pair()
    context = serve(authority.issue("localhost"))
    (near, listening), (far, calling) = await asyncio.gather(
        secure(End, one, context),
        secure(End, other, tls.client_context(authority.bundle), server_host="localhost"),
    )
    near.write(b"from the server")
    far.write(b"from the client")
    await asyncio.sleep(0.05)
    assert (listening.received, calling.received) == (b"from the client", b"from the server")
    far.close()
    assert await listening.lost is None
    assert await calling.lost is None


async def test_a_client_hello_is_recognised_by_a_plain_text_listener(
    authority: Authority,
) -> None:
    ours, theirs = connected_pair()
    with theirs:
        playing = asyncio.create_task(play(ours, tls.client_context(authority.bundle), "localhost"))
        await asyncio.sleep(0.05)
        assert "speaks TLS" in describe(theirs.recv(4096))
        theirs.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert (await playing).fault == "the peer does not speak TLS"


def test_an_error_without_words_is_named_by_its_type() -> None:
    assert explain(OSError()) == "OSError"
    assert explain(OSError(24, "Too many open files")) == "Too many open files"
    assert explain(ValueError("two\nlines")) == "two lines"
