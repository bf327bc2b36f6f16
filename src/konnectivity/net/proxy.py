"""The way out through an HTTP proxy: which one, for whom, and the CONNECT that opens it.

`choose_proxy` reads `HTTPS_PROXY` and `NO_PROXY` as Go programs do, `connect_through` asks the
proxy.
Only the agent's connections to servers go this way, never those to endpoints.
"""

from __future__ import annotations

import asyncio
import binascii
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

from konnectivity import __version__
from konnectivity.errors import ConfigError, Http1Error, LinkError
from konnectivity.net import tcp
from konnectivity.net.address import (
    AddressError,
    is_domain_name,
    join_host_port,
    parse_ip,
    split_host_port,
)
from konnectivity.net.connect import CONNECT_TIMEOUT, Resolve, connect_server
from konnectivity.net.handover import transport_on
from konnectivity.net.handshake import explain, secure
from konnectivity.wire.http1 import Response, parse_response

DEFAULT_PORT: Final = 443  # whatever the scheme; as grpc-go has it
MAX_ANSWER: Final = 16 << 10
"""Bytes of the head of a proxy's answer."""

_EXPECTED: Final = "expected http://host:port or https://host:port"

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. With `context` the agent speaks TLS to it, in which the tunnel runs."""

    host: str
    port: int
    credentials: str = field(default="", repr=False)  # `user:password`, never to be logged
    context: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)

    def request(self, target: str) -> bytes:
        """The head that asks for a connection to `target` (`host:port`)."""
        fields = {"Host": target, "User-Agent": f"konnectivity/{__version__}"}
        if self.credentials:
            token = binascii.b2a_base64(self.credentials.encode(), newline=False)
            fields["Proxy-Authorization"] = f"Basic {token.decode()}"
        lines = (f"{name}: {value}\r\n" for name, value in fields.items())
        return f"CONNECT {target} HTTP/1.1\r\n{''.join(lines)}\r\n".encode()


# Which one


def choose_proxy(environment: Mapping[str, str], host: str, port: int) -> Proxy | None:
    """The proxy on the way to `host`, None where the way is direct.

    Raises:
        ConfigError: the variable that applies holds no address of a proxy.

    Source: Go's golang.org/x/net/http/httpproxy. differs: its proxies of other schemes than
    http and https are refused, not spoken to in HTTP.
    """
    name, text = _first(environment, "HTTPS_PROXY", "https_proxy")
    exceptions = _first(environment, "NO_PROXY", "no_proxy")[1]
    if not text or is_direct(exceptions, host, port):
        return None
    try:
        return _parse(text)
    except ValueError as error:
        raise ConfigError(f"environment variable {name}: {error}") from error


def _first(environment: Mapping[str, str], *names: str) -> tuple[str, str]:
    return next(((name, environment[name]) for name in names if environment.get(name)), ("", ""))


def _parse(text: str) -> Proxy:
    """A proxy from a URL or `host:port`.

    Raises:
        ValueError: without the text in it, for that may hold a password.
    """
    try:
        url = urlsplit(text)
        if not url.scheme or not url.netloc:
            url = urlsplit(f"http://{text}")
        host, port = url.hostname or "", url.port
    except ValueError:
        raise ValueError(f"not a URL, {_EXPECTED}") from None
    if url.scheme not in ("http", "https"):
        raise ValueError(f"unknown scheme {url.scheme}, {_EXPECTED}")
    if not (parse_ip(host, 0) or is_domain_name(host)):
        raise ValueError(f"there is no host in it, {_EXPECTED}")
    context = None
    if url.scheme == "https":
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
    return Proxy(host, DEFAULT_PORT if port is None else port, _credentials(url), context)


def _credentials(url: SplitResult) -> str:
    if url.username is None:
        return ""
    return f"{unquote(url.username)}:{unquote(url.password or '')}"


# For whom


def is_direct(exceptions: str, host: str, port: int) -> bool:
    """Whether `host` is this machine, or one of the comma-separated `exceptions` (NO_PROXY).

    Source: Go's `httpproxy.Config`: `*`, names with or without a leading dot, addresses, networks,
    each but a network with an optional port.
    """
    host = host.strip().lower()
    ip = _ip(host)
    if host == "localhost" or (ip is not None and ip.is_loopback):
        return True
    entries = [entry.strip().lower() for entry in exceptions.split(",")]
    return "*" in entries or any(_excepts(entry, host, ip, port) for entry in entries if entry)


def _excepts(entry: str, host: str, ip: IpAddress | None, port: int) -> bool:
    network = _network(entry)
    if network is not None:
        return ip is not None and ip in network
    name, wanted_port = _split(entry)
    if wanted_port not in ("", str(port)) or not name:
        return False
    own = _ip(name)
    if own is not None:
        return ip == own
    if name.startswith("*."):
        name = name[1:]
    return host == name or host.endswith(name if name.startswith(".") else f".{name}")


def _split(entry: str) -> tuple[str, str]:
    try:
        return split_host_port(entry)
    except AddressError:
        return entry, ""


def _ip(host: str) -> IpAddress | None:
    literal = parse_ip(host, 0)
    return None if literal is None else ipaddress.ip_address(literal.sockaddr[0])


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    if not entry.partition("/")[2].isdigit():
        return None
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None


# The way through


async def connect_through(
    proxy: Proxy,
    host: str,
    port: int,
    *,
    user_timeout: float = 0,
    timeout: float = CONNECT_TIMEOUT,  # noqa: ASYNC109 - the error's text tells of it
    resolve: Resolve | None = None,
) -> asyncio.Transport:
    """A connection to a server, whose name the proxy looks up; it belongs to the caller.

    `timeout` covers everything, `user_timeout` is that of `tcp.tune`, `resolve` replaces the
    system's resolver for the proxy's name.

    Raises:
        LinkError: stage `name` when `host` cannot be a name, else `proxy`; with the proxy's
            status when it refused.
    """
    if parse_ip(host, port) is None and not is_domain_name(host):
        raise LinkError("name", f"cannot ask a proxy for server name {host}: no such host")
    target = join_host_port(host, port)
    try:
        async with asyncio.timeout(timeout):
            sock = await connect_server(
                proxy.host, proxy.port, what="proxy", timeout=timeout, resolve=resolve
            )
            tcp.tune(sock, user_timeout=user_timeout)
            return await _open_tunnel(proxy, sock, target)
    except LinkError as error:
        raise LinkError("proxy", str(error)) from error
    except TimeoutError as error:
        text = f"proxy {proxy} has not connected us to {target} within {timeout:g} s"
        raise LinkError("proxy", text) from error


async def _open_tunnel(proxy: Proxy, sock: socket.socket, target: str) -> asyncio.Transport:
    """Ask the proxy at the other end of `sock`, which is closed when this fails."""
    transport, asking = await _reach(proxy, sock)
    try:
        transport.write(proxy.request(target))
        fault = _refusal(await asking.answer)
    except Http1Error as error:
        transport.abort()
        text = f"proxy {proxy} gave no answer to CONNECT {target}: {error}"
        raise LinkError("proxy", text) from error
    except BaseException:
        transport.abort()
        raise
    if fault:
        transport.abort()
        raise LinkError("proxy", f"proxy {proxy} {fault} to CONNECT {target}")
    return transport


def _refusal(answer: Response) -> str:
    if answer.status != 200:
        return f"answered {answer.status} {answer.reason}".rstrip()
    # TLS servers wait for the client: this is a body, or not what was asked for.
    return "sent more than its answer" if answer.rest else ""


async def _reach(proxy: Proxy, sock: socket.socket) -> tuple[asyncio.Transport, _Asking]:
    if proxy.context is not None:
        try:
            return await secure(_Asking, sock, proxy.context, server_host=proxy.host)
        except OSError as error:
            raise LinkError("proxy", f"proxy {proxy}: {explain(error)}") from error
    return await transport_on(sock, _Asking)


class _Asking(asyncio.Protocol):
    """Waits for the head of the proxy's answer."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._received = b""

    def data_received(self, data: bytes) -> None:
        if self.answer.done():
            return
        self._received += data
        try:
            response = parse_response(self._received, limit=MAX_ANSWER)
        except Http1Error as error:
            self.answer.set_exception(error)
            return
        if response is not None:
            self.answer.set_result(response)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answer.done():
            cause = explain(error) if error else "it closed the connection"
            self.answer.set_exception(Http1Error(502, cause))
        if not self.answer.cancelled():
            self.answer.exception()  # nobody may be waiting any more
