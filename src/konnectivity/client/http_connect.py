"""One tunnel through the http-connect frontend, asked for as kube-apiserver asks.

The answer's head is read and judged here; what comes back is the bare tunnel.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final, TypeAlias

from konnectivity.errors import DialError, Http1Error
from konnectivity.wire.http1 import Response, parse_response

Proxy: TypeAlias = str | tuple[str, int, ssl.SSLContext]
"""Where the frontend listens: the path of its Unix socket, or host, port and TLS context."""

DIAL_TIMEOUT: Final = 30.0
"""Seconds for everything up to the answer, as kube-apiserver's dialer waits."""
HEAD_LIMIT: Final = 1 << 20
"""Bytes of the answer's head; kube-apiserver reads as much."""
BODY_LIMIT: Final = 4096
"""Bytes of a refusal's body that are worth showing."""

_REASONS: Final = {503: "limit", 504: "timeout"}


async def dial(proxy: Proxy, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a tunnel to `address` (`host:port`, IPv6 in brackets). Close the writer to end it.

    Raises:
        DialError: the frontend cannot be reached, or refused; then with its code and its text.

    Source: kube-apiserver's connector, `apiserver/pkg/server/egressselector`.
    differs: bytes that come together with the answer's head stay in the reader, where
    kube-apiserver gives the connection up.
    """
    try:
        async with asyncio.timeout(DIAL_TIMEOUT):
            reader, writer = await _connect(proxy)
            try:
                writer.write(f"CONNECT {address} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
                await writer.drain()
                await _expect_established(reader, proxy, address)
            except BaseException:
                writer.close()
                raise
    except TimeoutError as error:
        raise DialError(
            f"{_name(proxy)} gave no answer about {address} in {DIAL_TIMEOUT:g} s", "timeout"
        ) from error
    except OSError as error:
        raise DialError(
            f"cannot reach the frontend at {_name(proxy)}: {error}", "unreachable"
        ) from error
    return reader, writer


async def _connect(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(proxy, str):
        return await asyncio.open_unix_connection(proxy, limit=HEAD_LIMIT)
    host, port, context = proxy
    return await asyncio.open_connection(host, port, ssl=context, limit=HEAD_LIMIT)


async def _expect_established(reader: asyncio.StreamReader, proxy: Proxy, address: str) -> None:
    try:
        head = parse_response(await reader.readuntil(b"\r\n\r\n"), limit=HEAD_LIMIT)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, Http1Error) as error:
        raise DialError(
            f"{_name(proxy)} did not answer CONNECT {address}: {error}", "unknown"
        ) from error
    if head is None or head.status == 200:
        return
    text = await _refusal(reader, head)
    raise DialError(
        f"{_name(proxy)} refused to dial {address}: code {head.status}, {text}",
        _REASONS.get(head.status, "unknown"),
    )


async def _refusal(reader: asyncio.StreamReader, head: Response) -> str:
    """The refusal's text: its body, which ends with the connection or its Content-Length."""
    sizes = (int(v) for n, v in head.fields if n == "content-length" and v.isdigit())
    size = min(next(sizes, BODY_LIMIT), BODY_LIMIT)
    try:
        body = await reader.readexactly(size)
    except asyncio.IncompleteReadError as error:
        body = error.partial
    return " ".join(body.decode("utf-8", "replace").split()) or head.reason


def _name(proxy: Proxy) -> str:
    return proxy if isinstance(proxy, str) else f"{proxy[0]}:{proxy[1]}"
