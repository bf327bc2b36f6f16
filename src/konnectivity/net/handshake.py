"""One TLS handshake over a connected socket, and why it failed.

asyncio and uvloop close a connection whose handshake fails without sending the TLS alert, so the
peer's operator reads "unexpected EOF" where OpenSSL had said "unknown ca". `Context` keeps the
alert and `secure` sends it. `explain` is the same courtesy for our own operator: one line.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from konnectivity.net.certificate import utc

P = TypeVar("P", bound=asyncio.BaseProtocol)

HANDSHAKE_TIMEOUT = 10.0  # seconds; differs: upstream's server waits 120
ALERT_LINGER = 0.5  # seconds that the peer has to read why we refuse
SHUTDOWN_TIMEOUT = 5.0  # seconds that a closing connection waits for the peer's close_notify

_UNTRUSTED = "is not signed by a CA of our bundle"
_VERIFY_FAULTS = {  # OpenSSL's X509_V_ERR_*
    2: _UNTRUSTED,
    7: "carries a signature that our CA of that name did not make",
    9: "is not valid yet",
    10: "or that of its CA has expired",
    18: f"is self-signed and {_UNTRUSTED}",
    19: _UNTRUSTED,
    20: _UNTRUSTED,
    21: _UNTRUSTED,
    26: "is not meant for this use (extended key usage)",
}
_BY_CLOCK = (9, 10)
_ALERTS = {  # RFC 8446, 6.2; the names are OpenSSL's
    "BAD_CERTIFICATE": "the peer does not accept our certificate; its log knows why",
    "CERTIFICATE_UNKNOWN": "the peer does not accept our certificate; its log knows why",
    "UNKNOWN_CA": "the peer does not know the CA of our certificate",
    "CERTIFICATE_EXPIRED": "our certificate has expired or is not valid yet, says the peer",
    "CERTIFICATE_REVOKED": "our certificate is revoked, says the peer",
    "UNSUPPORTED_CERTIFICATE": "our certificate is not meant for this use, says the peer",
    "DECRYPT_ERROR": "our certificate's signature is wrong, says the peer; is its CA another one?",
    "CERTIFICATE_REQUIRED": "the peer requires a client certificate and got none",
    "NO_APPLICATION_PROTOCOL": "no shared ALPN protocol, says the peer",
    "PROTOCOL_VERSION": "no shared TLS version, says the peer",
    "HANDSHAKE_FAILURE": "no shared cipher suite or no client certificate, says the peer",
}
_FAULTS = {
    "HTTP_REQUEST": "the peer speaks plain HTTP on a TLS port",
    "HTTPS_PROXY_REQUEST": "the peer speaks plain HTTP on a TLS port",
    "WRONG_VERSION_NUMBER": "the peer does not speak TLS",
    "UNKNOWN_PROTOCOL": "the peer does not speak TLS",
    "PACKET_LENGTH_TOO_LONG": "the peer does not speak TLS",
    "RECORD_LENGTH_MISMATCH": "the peer does not speak TLS",
    "RECORD_LAYER_FAILURE": "the peer does not speak TLS",
    "UNEXPECTED_MESSAGE": "the peer does not speak TLS",
    "BAD_RECORD_TYPE": "the peer does not speak TLS",
    "UNSUPPORTED_PROTOCOL": "no shared TLS version",
    "VERSION_TOO_LOW": "no shared TLS version",
    "NO_SHARED_CIPHER": "no shared cipher suite",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer sent no client certificate, which we require",
    "UNEXPECTED_EOF_WHILE_READING": "the peer closed the connection",
}


class HandshakeFault(ssl.SSLError):
    """A handshake failed; its cause is OpenSSL's error. `alert` is what the peer must get."""

    def __init__(self, cause: ssl.SSLError, alert: bytes) -> None:
        super().__init__(*cause.args)
        self.alert = alert


class AlpnFault(ssl.SSLError):
    """The handshake ended without one of the application protocols that we insist on."""


class _Session(ssl.SSLObject):
    """An `SSLObject` that keeps the alert of a failed handshake."""

    outgoing: ssl.MemoryBIO

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLSyscallError):
            raise
        except ssl.SSLError as error:
            raise HandshakeFault(error, self.outgoing.read()) from error
        insisted = self.context.insisted if isinstance(self.context, Context) else ()
        if insisted and self.selected_alpn_protocol() not in insisted:
            needed = " or ".join(insisted)
            raise AlpnFault(ssl.SSL_ERROR_SSL, f"no shared ALPN protocol, {needed} is needed")


class Context(ssl.SSLContext):
    """An `SSLContext` whose handshakes leave the alert to `secure`.

    `insisted` are ALPN protocols of which one must have been agreed on. OpenSSL's server side
    cannot refuse in the handshake itself: a connection without is closed right behind it.
    """

    sslobject_class = _Session
    insisted: tuple[str, ...] = ()

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        made = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        if isinstance(made, _Session):
            made.outgoing = outgoing
        return made


async def secure(
    protocol_factory: Callable[[], P],
    connection: socket.socket | asyncio.Transport,
    context: ssl.SSLContext,
    *,
    server_host: str | None = None,
    timeout: float = HANDSHAKE_TIMEOUT,  # noqa: ASYNC109 - the loop's own timer does the work
) -> tuple[asyncio.Transport, P]:
    """Do the handshake on `connection` and make the protocol, which now owns all.

    With `server_host`, the name or IP address that the certificate must bear, this end is the
    client; without it the server. A transport, which may be TLS already, serves clients only.
    `connection` is closed when this fails or is cancelled.

    Raises:
        OSError: the handshake failed; `explain` says why.
    """
    if not isinstance(connection, socket.socket):
        return await _secure_transport(
            protocol_factory, connection, context, server_host or "", timeout
        )
    sock = connection
    loop = asyncio.get_running_loop()
    try:
        protocol = protocol_factory()
        # A second descriptor, to send the alert on: the loop closes the first when it fails.
        alert_way = sock.dup()
    except BaseException:
        sock.close()
        raise
    try:
        if server_host is None:
            # Of what this returns, uvloop's protocol is its own and not ours.
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                sock,
                ssl=context,
                ssl_handshake_timeout=timeout,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
            )
        else:
            making = loop.create_connection(
                lambda: protocol,
                sock=sock,
                ssl=context,
                server_hostname=server_host.removesuffix("."),
                ssl_handshake_timeout=timeout,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
            )
            transport = await _whole(making, sock, alert_way)
    except HandshakeFault as fault:
        if fault.alert:
            await _deliver(fault.alert, alert_way)
        raise
    except ConnectionAbortedError as error:
        raise _lateness(error, timeout) from error
    finally:
        alert_way.close()
    return transport, protocol


async def _whole(
    making: Coroutine[Any, Any, tuple[asyncio.Transport, P]],
    sock: socket.socket,
    twin: socket.socket,
) -> asyncio.Transport:
    """Await `making`, a connection on `sock`, of which `twin` is a duplicate.

    uvloop's `create_connection` waits for two futures in turn, and lets go of `sock` in between.
    Cancelled in the first, it forgets the second, and a reset of that moment is logged as nobody's
    exception: so it is not cancelled, but its connection ended. And a reset before the second
    leaves a socket object whose descriptor is closed, and may be another connection's by now.
    """
    task = asyncio.ensure_future(making)
    try:
        return (await asyncio.shield(task))[0]
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            twin.shutdown(socket.SHUT_RDWR)
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None:
            task.result()[0].abort()
        raise
    finally:
        if not _same(sock, twin):
            sock.detach()


def _same(sock: socket.socket, twin: socket.socket) -> bool:
    try:
        return os.fstat(sock.fileno()).st_ino == os.fstat(twin.fileno()).st_ino
    except OSError:
        return False


class _Early(asyncio.Protocol):
    """Keeps what comes behind a handshake until the real protocol is there."""

    def __init__(self) -> None:
        self.data = b""
        self.end: Exception | None = None

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, error: Exception | None) -> None:
        self.end = error or ConnectionResetError("the peer closed the connection")


async def _secure_transport(
    protocol_factory: Callable[[], P],
    connection: asyncio.Transport,
    context: ssl.SSLContext,
    server_host: str,
    limit: float,
) -> tuple[asyncio.Transport, P]:
    """As `secure`, on what another protocol has used before.

    Not so the alert of a failed handshake: it would have to go through that transport, which the
    loop closes.
    """
    early = _Early()
    try:
        protocol = protocol_factory()
        transport = await asyncio.get_running_loop().start_tls(
            connection,
            early,
            context,
            server_hostname=server_host.removesuffix("."),
            ssl_handshake_timeout=limit,
            ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
        )
    except ConnectionAbortedError as error:
        connection.abort()
        raise _lateness(error, limit) from error
    except BaseException:
        connection.abort()
        raise
    if early.end is not None:
        raise early.end
    assert transport is not None  # noqa: S101 - only for a transport that is closed
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    if early.data and isinstance(protocol, asyncio.Protocol):
        protocol.data_received(early.data)
    return transport, protocol


def _lateness(error: ConnectionAbortedError, limit: float) -> OSError:
    """What the loop's abort of a handshake means: it took too long, unless it has a number."""
    return (
        error
        if error.errno is not None
        else TimeoutError(f"no complete handshake within {limit:g} s")
    )


def is_about_alpn(error: BaseException) -> bool:
    """Whether a handshake failed for want of a shared application protocol."""
    cause = error.__cause__ if isinstance(error, HandshakeFault) else error
    return isinstance(cause, AlpnFault) or _reason(cause).endswith("NO_APPLICATION_PROTOCOL")


def explain(error: BaseException) -> str:
    """Say in one line why a handshake failed, or a TLS connection right behind it.

    Behind it, because a TLS 1.3 client learns of the server's verdict on its certificate with
    its first read.
    """
    if isinstance(error, HandshakeFault) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_verification(error)
    if isinstance(error, ssl.SSLError):
        reason = _reason(error)
        if "ALERT_" in reason:
            name = reason.partition("ALERT_")[2]
            return _ALERTS.get(name, f"the peer gave up with the TLS alert {_words(name)}")
        return _FAULTS.get(reason) or _words(reason) or _plain(error)
    if isinstance(error, ConnectionResetError):
        return f"the peer {'reset' if error.errno else 'closed'} the connection"
    return _plain(error)


def _explain_verification(error: ssl.SSLCertVerificationError) -> str:
    message = error.verify_message.rstrip(".")
    known = _VERIFY_FAULTS.get(error.verify_code)
    if known is not None:
        # It may be the clock that is wrong, not the certificate.
        clock = f", by this machine's clock: {utc(time.time())}"
        return f"the peer's certificate {known}{clock if error.verify_code in _BY_CLOCK else ''}"
    mismatch = re.search("certificate is not valid for (.*)", message)
    if mismatch is not None:
        return f"the peer's certificate is not for {mismatch[1]} (subject alternative names)"
    return f"the peer's certificate was refused: {message}"


async def _deliver(alert: bytes, sock: socket.socket) -> None:
    """Send the alert, and drop what the peer sends until it has read it and closed.

    A TLS 1.3 client does not wait for our verdict; a close with its bytes unread would be a reset
    and destroy the alert on its way.
    """
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):  # a TimeoutError too
        sock.send(alert)
        sock.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(ALERT_LINGER):
            while await loop.sock_recv(sock, 4096):
                pass


def _reason(error: BaseException | None) -> str:
    """OpenSSL's name of a fault, like TLSV1_ALERT_UNKNOWN_CA; empty for errors of others.

    Some names are not in Python's table; then the same words are in the text.
    """
    text = re.match(r"\[SSL\] (.*) \(_ssl", str(error))
    known = getattr(error, "reason", None)
    return known or (text[1].upper().replace(" ", "_") if text else "")


def _words(reason: str) -> str:
    return reason.replace("_", " ").lower()


def _plain(error: BaseException) -> str:
    strerror = error.strerror if isinstance(error, OSError) else None
    return " ".join((strerror or str(error) or type(error).__name__).split())
