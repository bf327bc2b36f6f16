"""Who is in the way, when TLS to a server failed: a proxy, another service, a small MTU.

Each question is a connection of its own, and is asked only where the first failure leaves it open.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import ssl
from dataclasses import replace
from typing import Final

from konnectivity.diagnose.attempt import Attempt, Cause
from konnectivity.gotext import one_line
from konnectivity.net.address import parse_ip, split_host_port

SMALL_SEGMENT: Final = 536
"""Bytes of a TCP segment that every network carries (RFC 9293, 3.7.1)."""
LONGEST: Final = 200


async def look(attempt: Attempt, host: str, limit: float) -> Attempt:
    """The attempt with what further questions found. Through a proxy none can be asked."""
    if not attempt.address:
        return attempt
    if attempt.cause in (Cause.NOT_TLS, Cause.PLAIN_HTTP):
        answer = await _plain_answer(attempt.address, host, limit)
        if answer.startswith("HTTP/"):
            return replace(attempt, cause=Cause.PLAIN_HTTP, notes=(f"it answers {answer!r}",))
        return replace(attempt, notes=(f"it says {answer!r}",) if answer else ())
    if attempt.cause in (Cause.UNTRUSTED, Cause.WRONG_NAME, Cause.NO_ALPN):
        return await _inspect(attempt, host, limit)
    if attempt.cause is Cause.SILENT and await _speaks_in_small_segments(attempt, host, limit):
        note = f"with segments of {SMALL_SEGMENT} bytes the handshake goes through"
        return replace(attempt, cause=Cause.LARGE_FRAMES, notes=(note,))
    return attempt


async def _plain_answer(address: str, host: str, limit: float) -> str:
    """The first line that something says when it is asked in plain HTTP."""
    ip, port = split_host_port(address)
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(limit):
            reader, writer = await asyncio.open_connection(ip, int(port))
            try:
                writer.write(f"GET / HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
                line = await reader.read(LONGEST)
            finally:
                writer.transport.abort()
            return one_line(line.partition(b"\r\n")[0].decode("latin-1"))
    return ""


async def _inspect(attempt: Attempt, host: str, limit: float) -> Attempt:
    """Whose certificate it is; and whether one is made for a name that nobody has."""
    shown = await _certificate(attempt.address, host, limit)
    if shown is None:
        return attempt
    issuer, _ = shown
    notes = (*attempt.notes, f"its certificate is issued by {issuer}")
    invented = f"{secrets.token_hex(6)}.invalid"
    forged = await _certificate(attempt.address, invented, limit)
    if forged is not None and invented in forged[1]:
        note = f"it made a certificate for {invented}, a name that nobody has"
        return replace(attempt, cause=Cause.INTERCEPTED, notes=(*notes, note))
    return replace(attempt, notes=notes)


async def _certificate(address: str, host: str, limit: float) -> tuple[str, list[str]] | None:
    """Issuer and names of the certificate that is shown to who asks for `host`."""
    context = _unchecked()
    ip, port = split_host_port(address)
    name = host if parse_ip(host, 0) is None else None
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(limit):
            _, writer = await asyncio.open_connection(
                ip, int(port), ssl=context, server_hostname=name or ""
            )
            try:
                found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            finally:
                writer.transport.abort()
            return _describe(found)
    return None


def _describe(der: bytes) -> tuple[str, list[str]]:
    from cryptography import x509

    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (ValueError, x509.ExtensionNotFound):
        return "nobody that can be read", []
    issuer = one_line(certificate.issuer.rfc4514_string()[:LONGEST])
    return issuer, names.value.get_values_for_type(x509.DNSName)


async def _speaks_in_small_segments(attempt: Attempt, host: str, limit: float) -> bool:
    """Whether a handshake goes through when the server may send small segments only."""
    ip, port = split_host_port(attempt.address)
    literal = parse_ip(ip, int(port))
    if literal is None:
        return False
    loop = asyncio.get_running_loop()
    sock = socket.socket(literal.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SMALL_SEGMENT)
        async with asyncio.timeout(limit):
            await loop.sock_connect(sock, literal.sockaddr)
            name = "" if parse_ip(host, 0) is not None else host
            _, writer = await asyncio.open_connection(
                sock=sock, ssl=_unchecked(), server_hostname=name
            )
            writer.transport.abort()
    except (OSError, TimeoutError):
        return False
    else:
        return True
    finally:
        sock.close()


def _unchecked() -> ssl.SSLContext:
    """Settings to look at a certificate with: nothing is sent that anybody would have to trust."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context
