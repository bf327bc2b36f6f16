"""The way from here to the servers' port for agents, step by step: name, proxy, TCP, TLS, HTTP/2.

Made of the agent's own parts, so it fails where an agent would and in the same words. It stops
before `Connect`: nothing registers, and no traffic is drawn here. Where a step fails further
questions are asked, to tell what is in the way.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from konnectivity.diagnose.attempt import Attempt, Cause, classify
from konnectivity.diagnose.probes import bystander
from konnectivity.errors import ConfigError, LinkError
from konnectivity.net import handshake, tls
from konnectivity.net.address import join_host_port, parse_ip
from konnectivity.net.connect import LookupFault, connect_server, system_resolve
from konnectivity.net.proxy import choose_proxy, connect_through
from konnectivity.wire import frames

HERE: Final = "here"
WITNESS: Final = "probe from here"
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
"""A client's preface and an empty SETTINGS frame (RFC 9113, 3.4)."""
MOST_ADDRESSES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class HopOptions:
    """What an agent would use. Files may be empty; `timeout` in seconds is for each step."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    timeout: float = 5.0
    origin: str = HERE


async def try_server(
    host: str, port: int, options: HopOptions, environ: Mapping[str, str]
) -> list[Attempt]:
    """An attempt at each address of a server's name, or one through the proxy.

    Raises:
        ConfigError: a file of `options` is wrong.
    """
    context = await asyncio.to_thread(_context, options)
    base = Attempt(
        origin=options.origin, target=join_host_port(host, port), witness=WITNESS, at=time.time()
    )
    try:
        proxy = choose_proxy(environ, host, port)
    except ConfigError as error:
        return [_failed(base, "proxy", str(error))]
    if proxy is not None:
        try:
            connection = await connect_through(proxy, host, port, timeout=options.timeout)
        except LinkError as error:
            return [_failed(base, error.stage, str(error))]
        return [await _secure(base, connection, context, host, options)]
    try:
        hosts = await _addresses(host, port, options.timeout)
    except LinkError as error:
        return [_failed(base, error.stage, str(error))]
    async with asyncio.TaskGroup() as group:
        tries = [
            group.create_task(_try_address(base, each, host, port, context, options))
            for each in hosts
        ]
    return [each.result() for each in tries]


async def _addresses(host: str, port: int, limit: float) -> list[str]:
    """The IP addresses of a name, each once.

    Raises:
        LinkError: stage `name`.
    """
    if parse_ip(host, port) is not None:
        return [host]
    try:
        async with asyncio.timeout(limit):
            found = await system_resolve(host, port)
    except LookupFault as fault:
        raise LinkError("name", f"cannot resolve server name {host}: {fault}") from fault
    except TimeoutError as error:
        text = f"cannot resolve server name {host}: no answer within {limit:g} s"
        raise LinkError("name", text) from error
    return list(dict.fromkeys(str(each.sockaddr[0]) for each in found))[:MOST_ADDRESSES]


async def _try_address(
    base: Attempt,
    address: str,
    host: str,
    port: int,
    context: ssl.SSLContext,
    options: HopOptions,
) -> Attempt:
    attempt = replace(base, address=join_host_port(address, port))
    try:
        sock = await connect_server(address, port, timeout=options.timeout)
    except LinkError as error:
        return _failed(attempt, error.stage, str(error))
    attempt = replace(attempt, sources=(sock.getsockname()[0],))
    return await _secure(attempt, sock, context, host, options)


async def _secure(
    attempt: Attempt,
    connection: object,
    context: ssl.SSLContext,
    host: str,
    options: HopOptions,
) -> Attempt:
    """TLS on a connection, and the first words of HTTP/2 in it."""
    started = time.monotonic()
    where = f"server {attempt.address or attempt.target}"
    try:
        transport, listening = await handshake.secure(
            _Listening,
            connection,  # type: ignore[arg-type]
            context,
            server_host=host,
            timeout=options.timeout,
        )
    except OSError as error:
        stage = "alpn" if handshake.is_about_alpn(error) else "tls"
        text = f"{where}: {handshake.explain(error)}"
        if not options.cert and _is_about_ours(text):
            return _asks_for_a_certificate(attempt)
        return await bystander.look(_failed(attempt, stage, text), host, options.timeout)
    try:
        transport.write(PREFACE)
        async with asyncio.timeout(options.timeout):
            first = await listening.first
    except TimeoutError:
        return _failed(
            attempt, "http2", f"{where}: no answer to Connect within {options.timeout:g} s"
        )
    except OSError as error:
        text = f"{where}: {handshake.explain(error)}"
        if not options.cert and _is_about_ours(text):
            return _asks_for_a_certificate(attempt)
        return _failed(attempt, "tls", text)
    finally:
        transport.abort()
    if first[3:4] != bytes([frames.SETTINGS]):
        return replace(
            attempt,
            stage="alpn",
            cause=Cause.NO_ALPN,
            error=f"{where}: it agrees to HTTP/2 and does not speak it",
        )
    notes = () if options.ca else ("certificate not checked: no --ca-cert",)
    return replace(attempt, latency=time.monotonic() - started, notes=notes)


class _Listening(asyncio.Protocol):
    """Waits for the server's first bytes: a TLS 1.3 server judges our certificate only then."""

    def __init__(self) -> None:
        self.first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) >= frames.HEADER_SIZE and not self.first.done():
            self.first.set_result(self._received)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.first.done():
            self.first.set_exception(error or ConnectionResetError("closed"))
            self.first.exception()  # nobody may be waiting any more


def _failed(attempt: Attempt, stage: str, error: str) -> Attempt:
    return replace(attempt, stage=stage, cause=classify(stage, error), error=error)


def _is_about_ours(text: str) -> bool:
    return classify("tls", text) is Cause.OURS_REFUSED


def _asks_for_a_certificate(attempt: Attempt) -> Attempt:
    """All that can be tried without a certificate went well."""
    return replace(attempt, notes=("the server asks for a client certificate: give --agent-cert",))


def _context(options: HopOptions) -> ssl.SSLContext:
    """The agent's own settings; without a CA whatever certificate is shown will do."""
    if options.ca:
        return tls.client_context(
            options.ca, cert=options.cert, key=options.key, alpn=("h2",), insist_on_alpn=True
        )
    context = handshake.Context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    context.insisted = ("h2",)
    if options.cert:
        for each in (options.cert, options.key):
            if not os.access(each, os.R_OK):
                raise ConfigError(f"certificate {each}: it cannot be read")
        context.load_cert_chain(options.cert, options.key)
    return context
