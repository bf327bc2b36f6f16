"""Outbound TCP: names to addresses, addresses to one connected socket.

Addresses of both families are raced (RFC 8305, "happy eyeballs"). `dial_endpoint` is the agent's
way to an endpoint and fails with Go's words; `connect_server` is its way to a server.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol, TypeAlias

from konnectivity.errors import DialError, LinkError
from konnectivity.net import tcp
from konnectivity.net.address import (
    Address,
    AddressError,
    SockAddr,
    is_domain_name,
    join_host_port,
    parse_ip,
    parse_port,
    split_host_port,
)
from konnectivity.net.deadlines import Deadlines
from konnectivity.net.handover import transport_on

DIAL_TIMEOUT = 5.0  # seconds, name included; upstream's constant
CONNECT_TIMEOUT = 20.0  # seconds, name included; gRPC's shortest connect time-out
STAGGER = 0.25  # seconds until the next address joins the race (RFC 8305, 8)
MAX_ADDRESSES = 8  # tried per name: enough for any real name, a bound on sockets per dial

FAMILIES = {"tcp": socket.AF_UNSPEC, "tcp4": socket.AF_INET, "tcp6": socket.AF_INET6}

_REASONS = {
    errno.ECONNREFUSED: "refused",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ETIMEDOUT: "timeout",
    errno.EADDRNOTAVAIL: "limit",  # no local port is left for this destination
    errno.EMFILE: "limit",
    errno.ENFILE: "limit",
    errno.ENOBUFS: "limit",
    errno.ENOMEM: "limit",
}

_NO_SOCKET = frozenset([errno.EMFILE, errno.ENFILE])
"""What fails before there is a socket to connect."""

Resolve: TypeAlias = Callable[[str, int], Awaitable[Iterable[Address]]]


class Denied(Exception):
    """None of a host's addresses may be connected to. `str()` says by which rule."""


class Gate(Protocol):
    """Who decides what an agent may connect to."""

    def admit(self, host: str, port: int, addresses: Sequence[Address]) -> list[Address]:
        """Those of the addresses of `host` that may be tried, at least one.

        Raises:
            Denied: there is none.
        """


class LookupFault(Exception):
    """A name has no address. `str()` is the cause in Go's words."""


class ConnectFault(Exception):
    """One address could not be connected to. `str()` is Go's: `connect: connection refused`."""

    def __init__(self, call: str, error: OSError) -> None:
        text = os.strerror(error.errno or 0)
        self.cause = text[:1].lower() + text[1:]
        self.reason = _REASONS.get(error.errno or 0, "unknown")
        super().__init__(f"{call}: {self.cause}")


Failures: TypeAlias = dict[Address, ConnectFault]


async def open_endpoint(
    protocol: str,
    address: str,
    factory: Callable[[], asyncio.BaseProtocol],
    *,
    limits: Deadlines,
    gate: Gate | None = None,
) -> None:
    """Connect to an endpoint; the protocol that `factory` makes owns the connection.

    `gate` is asked with the addresses that are tried next. The loop has turned Nagle's algorithm
    off; keepalive probes are the owner's affair.

    Nearly every dial names an IP address. The loop connects to it without a socket object of
    Python's, which halves what a dial costs us; all else goes through `dial_endpoint`.

    Raises:
        DialError: as `dial_endpoint`.
    """
    loop = asyncio.get_running_loop()
    literal = _only_address(protocol, address)
    if literal is None:
        sock = await dial_endpoint(protocol, address, timeout=limits.limit, gate=gate)
        await transport_on(sock, factory)
        return
    host, port = literal.sockaddr[:2]
    dial = f"dial {protocol} {literal.text}"
    try:
        if gate is not None:
            gate.admit(str(host), int(port), [literal])
        with limits.guard():
            await loop.create_connection(factory, str(host), int(port))
    except Denied as error:
        raise DialError(f"{dial}: {error}", "policy") from error
    except TimeoutError as error:
        raise DialError(f"{dial}: i/o timeout", "timeout") from error
    except OSError as error:
        fault = ConnectFault("socket" if error.errno in _NO_SOCKET else "connect", error)
        raise DialError(f"{dial}: {fault}", fault.reason) from error


def _only_address(protocol: str, address: str) -> Address | None:
    """The address itself, where no name and no zone (which uvloop loses) is in the way."""
    try:
        host, service = split_host_port(address)
        literal = parse_ip(host, parse_port(service)) if host and "%" not in host else None
    except AddressError:
        return None
    family = FAMILIES.get(protocol)
    if literal is None or family not in (socket.AF_UNSPEC, literal.family):
        return None
    return literal


async def dial_endpoint(
    protocol: str,
    address: str,
    *,
    timeout: float = DIAL_TIMEOUT,  # noqa: ASYNC109 - the error's text depends on how far it came
    resolve: Resolve | None = None,
    gate: Gate | None = None,
) -> socket.socket:
    """Connect to an endpoint; the socket is non-blocking and belongs to the caller.

    `protocol` is `tcp`, `tcp4` or `tcp6`, `address` a `host:port` as in Go. `timeout` covers the
    lookup too. `resolve` replaces the system's resolver. `gate` is asked with what was found.

    Raises:
        DialError: with the text that Go's dialer has for the fault.

    Source: upstream's pkg/agent/client.go; differs: `udp` and `unix` are refused.
    """
    dial = f"dial {protocol}" if protocol else "dial"
    if protocol not in FAMILIES:
        raise DialError(f"{dial}: unknown network {protocol}", "invalid")
    try:
        host, service = split_host_port(address)
        port = parse_port(service)
    except AddressError as error:
        raise DialError(f"{dial}: {error}", "invalid") from error
    candidates: list[Address] = []
    failures: Failures = {}
    try:
        async with asyncio.timeout(timeout):
            candidates += await _lookup(host, port, FAMILIES[protocol], resolve)
            if candidates:
                if gate is not None:
                    candidates[:] = gate.admit(host, port, candidates)
                return await _race(candidates, failures)
    except LookupFault as fault:
        raise DialError(f"{dial}: lookup {host}: {fault}", "dns") from fault
    except Denied as error:
        raise DialError(f"{dial} {candidates[0].text}: {error}", "policy") from error
    except (ConnectFault, TimeoutError) as error:
        if not candidates:
            raise DialError(f"{dial}: lookup {host}: i/o timeout", "timeout") from error
        # Go reports the first address, whatever became of the others.
        first = failures.get(candidates[0])
        text, reason = (str(first), first.reason) if first else ("i/o timeout", "timeout")
        raise DialError(f"{dial} {candidates[0].text}: {text}", reason) from error
    raise DialError(f"{dial}: address {host}: no suitable address found", "invalid")


async def connect_server(
    host: str,
    port: int,
    *,
    what: str = "server",
    timeout: float = CONNECT_TIMEOUT,  # noqa: ASYNC109 - as above
    resolve: Resolve | None = None,
) -> socket.socket:
    """Connect the agent to a server; the socket is non-blocking and belongs to the caller.

    `what` is what errors call the peer.

    Raises:
        LinkError: stage `name` when `host` has no address, `tcp` when none of them answers.
    """
    candidates: list[Address] = []
    failures: Failures = {}
    late = f"no answer within {timeout:g} s"
    try:
        async with asyncio.timeout(timeout):
            candidates += await _lookup(host, port, socket.AF_UNSPEC, resolve)
            return await _race(candidates, failures)
    except LookupFault as fault:
        raise LinkError("name", f"cannot resolve {what} name {host}: {fault}") from fault
    except (ConnectFault, TimeoutError) as error:
        if not candidates:
            raise LinkError("name", f"cannot resolve {what} name {host}: {late}") from error
        peer = join_host_port(host, port)
        causes = (
            f"{one.text}: {failures[one].cause if one in failures else late}" for one in candidates
        )
        text = ", ".join(causes).removeprefix(f"{peer}: ")
        raise LinkError("tcp", f"cannot connect to {what} {peer}: {text}") from error


async def _lookup(
    host: str, port: int, family: socket.AddressFamily, resolve: Resolve | None
) -> list[Address]:
    """Addresses of `host` in the order of trying; empty when it has some, but none of `family`.

    Raises:
        LookupFault: the name is malformed, unknown, or the resolver failed.
    """
    if not host:  # Go's rule; connecting to it reaches this machine
        anywhere = parse_ip("::" if family == socket.AF_INET6 else "0.0.0.0", port)  # noqa: S104
        return [replace(anywhere, text=f":{port}")] if anywhere else []
    literal = parse_ip(host, port)
    if literal is not None:
        return [literal] if family in (socket.AF_UNSPEC, literal.family) else []
    if not is_domain_name(host):
        raise LookupFault("no such host")
    found = list(await (resolve or system_resolve)(host, port))
    if not found:
        raise LookupFault("no such host")
    return _interleave(one for one in found if family in (socket.AF_UNSPEC, one.family))


async def system_resolve(host: str, port: int) -> list[Address]:
    """What the system's resolver has for a name, in its order.

    Raises:
        LookupFault: nothing, or it failed.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        unknown = error.errno in (socket.EAI_NONAME, socket.EAI_NODATA)
        raise LookupFault("no such host" if unknown else str(error.strerror)) from error
    except UnicodeError as error:  # a label that the IDNA codec refuses
        raise LookupFault("no such host") from error
    return [
        Address(family, sockaddr, join_host_port(str(sockaddr[0]), port))
        for family, _, _, _, sockaddr in found
        if family in (socket.AF_INET, socket.AF_INET6)
    ]


def _interleave(addresses: Iterable[Address]) -> list[Address]:
    """Each address once, the families in turn, beginning with the first one's (RFC 8305, 4)."""
    families: dict[int, list[Address]] = {}
    for address in dict.fromkeys(addresses):
        families.setdefault(address.family, []).append(address)
    rows = itertools.zip_longest(*families.values())
    return [one for row in rows for one in row if one is not None][:MAX_ADDRESSES]


async def _race(addresses: Sequence[Address], failures: Failures) -> socket.socket:
    """A socket connected to whichever address answers first; the losers are closed.

    Raises:
        ConnectFault: all failed. `failures` says how each did, also when this is cancelled.
    """
    if len(addresses) == 1:  # nearly always so, and then no task is needed
        return await _attempt(addresses[0], failures)
    attempts: set[asyncio.Task[socket.socket]] = set()
    winner = None
    try:
        winner = await _first_connected(deque(addresses), attempts, failures)
        return winner
    finally:
        for loser in attempts:
            loser.add_done_callback(_close_result)
            loser.cancel()
        try:
            if attempts:
                await asyncio.wait(attempts)
        except asyncio.CancelledError:
            if winner is not None:
                winner.close()
            raise


async def _first_connected(
    waiting: deque[Address], attempts: set[asyncio.Task[socket.socket]], failures: Failures
) -> socket.socket:
    """Start one attempt after the other. Whatever is in `attempts` at the end is to be ended."""
    while waiting or attempts:
        if waiting:
            attempts.add(asyncio.create_task(_attempt(waiting.popleft(), failures)))
        done, _ = await asyncio.wait(
            attempts,
            timeout=STAGGER if waiting else None,
            return_when=asyncio.FIRST_COMPLETED,
        )
        for attempt in done:
            if attempt.exception() is None:
                attempts.remove(attempt)
                return attempt.result()
        attempts -= done
    raise next(iter(failures.values()))


def _close_result(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


async def _attempt(address: Address, failures: Failures) -> socket.socket:
    call = "socket"
    sock = None
    try:
        sock = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        tcp.tune(sock)
        call = "connect"
        await _connect(sock, address.sockaddr)
        _refuse_itself(sock, address)
    except BaseException as error:
        if sock is not None:
            sock.close()
        if not isinstance(error, OSError):
            raise
        failures[address] = ConnectFault(call, error)
        raise failures[address] from error
    return sock


async def _connect(sock: socket.socket, sockaddr: SockAddr) -> None:
    """As the loop's `sock_connect`, but with IPv6 zones, which uvloop loses."""
    error = sock.connect_ex(sockaddr)
    if error == errno.EINPROGRESS:
        loop = asyncio.get_running_loop()
        writable = asyncio.Event()
        loop.add_writer(sock, writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))


def _refuse_itself(sock: socket.socket, address: Address) -> None:
    """Refuse a socket that is connected to itself.

    That is TCP's simultaneous open: nobody listens on a port from the range of local ports, and
    the kernel happens to choose that very port as ours. What is sent then comes back.

    Source: Go's `selfConnect`.
    """
    if sock.getsockname()[1] == address.sockaddr[1] and sock.getsockname() == sock.getpeername():
        raise ConnectionRefusedError(errno.ECONNREFUSED, "connected to itself")
