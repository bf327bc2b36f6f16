"""Dialling: Go's words for every fault, happy eyeballs, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from konnectivity.errors import DialError, LinkError
from konnectivity.net import tcp
from konnectivity.net.address import Address, parse_ip
from konnectivity.net.connect import (
    MAX_ADDRESSES,
    STAGGER,
    LookupFault,
    connect_server,
    dial_endpoint,
    open_endpoint,
)
from konnectivity.net.deadlines import Deadlines

pytestmark = pytest.mark.both_loops

needs_ipv6 = pytest.mark.skipif(
    not Path("/proc/net/if_inet6").exists() or not Path("/proc/net/if_inet6").read_text(),
    reason="a machine without IPv6",
)

FAULTS = [
    ("tcp", "", "dial tcp: missing address", "invalid"),
    ("tcp", "localhost", "dial tcp: address localhost: missing port in address", "invalid"),
    ("tcp", "::1:1", "dial tcp: address ::1:1: too many colons in address", "invalid"),
    ("tcp", "localhost:99999", "dial tcp: address 99999: invalid port", "invalid"),
    ("tcp", "localhost:foo", "dial tcp: lookup tcp/foo: unknown port", "invalid"),
    ("tcp", "127.0.0.1:1", "dial tcp 127.0.0.1:1: connect: connection refused", "refused"),
    ("tcp", "127.0.0.1:", "dial tcp 127.0.0.1:0: connect: connection refused", "refused"),
    ("tcp", ":1", "dial tcp :1: connect: connection refused", "refused"),
    ("tcp4", "127.0.0.1:1", "dial tcp4 127.0.0.1:1: connect: connection refused", "refused"),
    (
        "tcp",
        "[::ffff:127.0.0.1]:1",
        "dial tcp 127.0.0.1:1: connect: connection refused",
        "refused",
    ),
    (
        "tcp",
        "224.0.0.1:80",
        "dial tcp 224.0.0.1:80: connect: network is unreachable",
        "unreachable",
    ),
    ("tcp4", "[::1]:1", "dial tcp4: address ::1: no suitable address found", "invalid"),
    (
        "tcp6",
        "127.0.0.1:1",
        "dial tcp6: address 127.0.0.1: no suitable address found",
        "invalid",
    ),
    ("tcp", "a..b:1", "dial tcp: lookup a..b: no such host", "dns"),
    ("tcp", "127.1:1", "dial tcp: lookup 127.1: no such host", "dns"),
    ("tcp", "0x7f000001:1", "dial tcp: lookup 0x7f000001: no such host", "dns"),
    ("tcp", "ünï.example:1", "dial tcp: lookup ünï.example: no such host", "dns"),
    ("tcp", "a\0b:1", "dial tcp: lookup a\0b: no such host", "dns"),
    ("tcp", f"{'a' * 64}:1", f"dial tcp: lookup {'a' * 64}: no such host", "dns"),
]

Resolve = Callable[[str, int], Awaitable[list[Address]]]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


@pytest.fixture
def black_hole() -> Iterator[int]:
    """The port of a listener whose accept queue is full: connecting hangs."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(sock.getsockname())
        time.sleep(0.01)
        yield int(sock.getsockname()[1])


def addresses(*texts: str) -> Resolve:
    """A resolver that knows one name, with these IP addresses, or `ip:port` on another port."""

    async def resolve(_host: str, port: int) -> list[Address]:
        found = []
        for text in texts:
            ip, at, other = text.partition("@")
            address = parse_ip(ip, int(other) if at else port)
            assert address is not None
            found.append(address)
        return found

    return resolve


async def fault(protocol: str, address: str, **options: object) -> DialError:
    with pytest.raises(DialError) as caught:
        (await dial_endpoint(protocol, address, **options)).close()  # type: ignore[arg-type]
    return caught.value


async def fault_of_the_loop(protocol: str, address: str, *, limit: float = 5) -> DialError:
    limits = Deadlines(limit)
    with pytest.raises(DialError) as caught:
        await open_endpoint(protocol, address, asyncio.Protocol, limits=limits)
    limits.close()
    return caught.value


# Endpoints


async def test_an_endpoint_is_connected_to(listener: socket.socket, port: int) -> None:
    with await dial_endpoint("tcp", f"127.0.0.1:{port}") as sock:
        assert not sock.getblocking()
        assert sock.getpeername() == ("127.0.0.1", port)
        read = lambda option: sock.getsockopt(socket.IPPROTO_TCP, option)  # noqa: E731
        assert read(socket.TCP_NODELAY) == 1
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert read(socket.TCP_KEEPIDLE) == tcp.KEEPALIVE_IDLE == 15
        assert read(socket.TCP_KEEPINTVL) == tcp.KEEPALIVE_INTERVAL == 15
        assert read(socket.TCP_KEEPCNT) == tcp.KEEPALIVE_PROBES == 9
        accepted, _ = listener.accept()
        accepted.close()


@pytest.mark.parametrize(
    ("protocol", "host"),
    [
        ("tcp", "localhost"),
        ("tcp4", "localhost"),
        ("tcp4", "127.0.0.1"),
        ("tcp", "0.0.0.0"),
        ("tcp", ""),
        ("tcp", "[::ffff:127.0.0.1]"),
        ("tcp", "[127.0.0.1]"),
        ("tcp", "LOCALHOST"),
    ],
)
async def test_ipv4_endpoints_have_many_spellings(port: int, protocol: str, host: str) -> None:
    with await dial_endpoint(protocol, f"{host}:{port}") as sock:
        assert sock.getpeername() == ("127.0.0.1", port)


@needs_ipv6
@pytest.mark.parametrize(
    ("protocol", "host"), [("tcp", "[::1]"), ("tcp6", "[::1]"), ("tcp6", "[::]"), ("tcp6", "")]
)
async def test_ipv6_endpoints_have_many_spellings(protocol: str, host: str) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        port = listener.getsockname()[1]
        with await dial_endpoint(protocol, f"{host}:{port}") as sock:
            assert sock.getpeername()[:2] == ("::1", port)


@pytest.mark.parametrize("protocol", ["bogus", "udp", "unix", "TCP", "tcp ", "ip", ""])
async def test_w48_other_networks_than_tcp_are_refused(protocol: str) -> None:
    error = await fault(protocol, "/run/docker.sock")
    dial = f"dial {protocol}" if protocol else "dial"
    assert str(error) == f"{dial}: unknown network {protocol}"
    assert error.reason == "invalid"


@pytest.mark.parametrize(("protocol", "address", "text", "reason"), FAULTS)
async def test_faults_have_gos_words(protocol: str, address: str, text: str, reason: str) -> None:
    error = await fault(protocol, address)
    assert (str(error), error.reason) == (text, reason)


@pytest.mark.parametrize(("protocol", "address", "text", "reason"), FAULTS)
async def test_faults_have_the_same_words_when_the_loop_connects(
    protocol: str, address: str, text: str, reason: str
) -> None:
    error = await fault_of_the_loop(protocol, address)
    assert (str(error), error.reason) == (text, reason)


async def test_an_endpoint_is_connected_to_by_the_loop(port: int) -> None:
    made = asyncio.get_running_loop().create_future()

    class Endpoint(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.set_result(transport)

    for host in ("127.0.0.1", "localhost"):
        limits = Deadlines(5)
        await open_endpoint("tcp", f"{host}:{port}", Endpoint, limits=limits)
        transport = await made
        assert transport.get_extra_info("peername") == ("127.0.0.1", port)
        option = transport.get_extra_info("socket").getsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY
        )
        assert option == 1
        transport.abort()
        limits.close()
        made = asyncio.get_running_loop().create_future()


async def test_a_black_holed_endpoint_times_out_when_the_loop_connects(black_hole: int) -> None:
    error = await fault_of_the_loop("tcp", f"127.0.0.1:{black_hole}", limit=0.2)
    assert str(error) == f"dial tcp 127.0.0.1:{black_hole}: i/o timeout"


@needs_ipv6
async def test_faults_of_ipv6_have_gos_words() -> None:
    error = await fault("tcp", "[::1]:1")
    assert str(error) == "dial tcp [::1]:1: connect: connection refused"
    error = await fault("tcp", "[fe80::1%no-such-if]:1")
    assert str(error) == "dial tcp [fe80::1%no-such-if]:1: connect: invalid argument"


@needs_ipv6
async def test_the_zone_of_an_ipv6_address_reaches_the_kernel() -> None:
    # Through loopback's zone nothing answers, but the kernel knows where to look; without a zone
    # it would call the argument invalid.
    error = await fault("tcp", "[fe80::1%lo]:1", timeout=0.5)
    assert "invalid argument" not in str(error)


@pytest.mark.filterwarnings("ignore")
async def test_an_unknown_name_has_gos_words() -> None:
    error = await fault("tcp", "no-such-host.invalid:1", timeout=3)
    assert str(error).startswith("dial tcp: lookup no-such-host.invalid: ")
    assert error.reason in {"dns", "timeout"}  # a machine without resolver waits


async def test_a_black_holed_endpoint_times_out(black_hole: int) -> None:
    began = time.monotonic()
    error = await fault("tcp", f"127.0.0.1:{black_hole}", timeout=0.2)
    assert str(error) == f"dial tcp 127.0.0.1:{black_hole}: i/o timeout"
    assert error.reason == "timeout"
    assert 0.15 < time.monotonic() - began < 2


async def test_a_name_server_that_is_silent_times_out() -> None:
    async def silent(_host: str, _port: int) -> list[Address]:
        await asyncio.sleep(60)
        return []

    error = await fault("tcp", "node:1", timeout=0.1, resolve=silent)
    assert (str(error), error.reason) == ("dial tcp: lookup node: i/o timeout", "timeout")


async def test_a_resolver_that_fails_is_a_fault_of_the_name() -> None:
    async def failing(_host: str, _port: int) -> list[Address]:
        raise LookupFault("server misbehaving")

    error = await fault("tcp", "node:1", resolve=failing)
    assert (str(error), error.reason) == ("dial tcp: lookup node: server misbehaving", "dns")
    error = await fault("tcp", "node:1", resolve=addresses())
    assert (str(error), error.reason) == ("dial tcp: lookup node: no such host", "dns")


async def test_a_name_without_address_of_the_family_is_not_dialled() -> None:
    error = await fault("tcp6", "node:1", resolve=addresses("127.0.0.1"))
    assert str(error) == "dial tcp6: address node: no suitable address found"


@pytest.mark.parametrize("dial", [fault, fault_of_the_loop])
async def test_a_process_without_descriptors_says_so(
    dial: Callable[[str, str], Awaitable[DialError]], port: int
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        error = await dial("tcp", f"127.0.0.1:{port}")
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert str(error) == f"dial tcp 127.0.0.1:{port}: socket: too many open files"
    assert error.reason == "limit"


async def test_a_socket_is_never_connected_to_itself() -> None:
    low, high = local_ports()
    port = high - 101
    port += (port - low) % 2  # the kernel tries the ports of low's parity first
    for _ in range(high - low + 2):
        with pytest.raises(DialError, match="connection refused"):
            (await dial_endpoint("tcp", f"127.0.0.1:{port}")).close()


def local_ports() -> tuple[int, int]:
    low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    return int(low), int(high)


async def test_a_cancelled_dial_leaves_nothing(black_hole: int) -> None:
    for delay in (0, 0.05):
        dialling = asyncio.create_task(dial_endpoint("tcp", f"127.0.0.1:{black_hole}"))
        await asyncio.sleep(delay)
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling


# Several addresses


async def test_the_first_address_wins_when_it_answers(port: int) -> None:
    resolve = addresses(f"127.0.0.1@{port}", "127.0.0.2@1")
    with await dial_endpoint("tcp", "node:7", resolve=resolve) as sock:
        assert sock.getpeername() == ("127.0.0.1", port)


async def test_an_address_that_refuses_is_followed_by_the_next_at_once(port: int) -> None:
    began = time.monotonic()
    resolve = addresses("127.0.0.1@1", "127.0.0.2@1", f"127.0.0.1@{port}")
    with await dial_endpoint("tcp", "node:7", resolve=resolve) as sock:
        assert sock.getpeername() == ("127.0.0.1", port)
    assert time.monotonic() - began < STAGGER


async def test_an_address_that_is_silent_is_overtaken_by_the_next(
    port: int, black_hole: int
) -> None:
    began = time.monotonic()
    resolve = addresses(f"127.0.0.1@{black_hole}", f"127.0.0.1@{port}")
    with await dial_endpoint("tcp", "node:7", resolve=resolve) as sock:
        assert sock.getpeername() == ("127.0.0.1", port)
    assert STAGGER - 0.05 < time.monotonic() - began < 2


async def test_an_early_address_may_still_win_late(port: int, black_hole: int) -> None:
    # The first one answers only after the second has joined the race.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as slow:
        slow_port = slow.getsockname()[1]
        filler = [socket.create_connection(("127.0.0.1", slow_port))]
        resolve = addresses(f"127.0.0.1@{slow_port}", f"127.0.0.1@{black_hole}")
        dialling = asyncio.create_task(dial_endpoint("tcp", "node:7", resolve=resolve))
        await asyncio.sleep(STAGGER + 0.1)
        filler.append(slow.accept()[0])  # there is room again; the next SYN gets through
        with await dialling as sock:
            assert sock.getpeername() == ("127.0.0.1", slow_port)
        for one in filler:
            one.close()


async def test_the_fault_of_the_first_address_is_told_when_all_fail(black_hole: int) -> None:
    resolve = addresses("127.0.0.1@1", "127.0.0.2@2")
    error = await fault("tcp", "node:7", resolve=resolve)
    assert str(error) == "dial tcp 127.0.0.1:1: connect: connection refused"
    resolve = addresses("127.0.0.1@1", f"127.0.0.1@{black_hole}")
    error = await fault("tcp", "node:7", resolve=resolve, timeout=0.3)
    assert str(error) == "dial tcp 127.0.0.1:1: connect: connection refused"
    resolve = addresses(f"127.0.0.1@{black_hole}", "127.0.0.1@1")
    error = await fault("tcp", "node:7", resolve=resolve, timeout=0.4)
    assert str(error) == f"dial tcp 127.0.0.1:{black_hole}: i/o timeout"


@needs_ipv6
async def test_the_families_take_turns_beginning_with_the_resolvers_choice(port: int) -> None:
    # IPv4 comes second although the resolver has it last.
    silent = [f"::1@{port}", "::1@2", "::1@3", f"127.0.0.1@{port}"]
    began = time.monotonic()
    with await dial_endpoint("tcp", "node:7", resolve=addresses(*silent)) as sock:
        assert sock.getpeername() == ("127.0.0.1", port)
    assert time.monotonic() - began < STAGGER


async def test_no_more_addresses_than_the_limit_are_tried(port: int) -> None:
    many = [f"127.0.0.{number}@1" for number in range(1, MAX_ADDRESSES + 1)]
    error = await fault("tcp", "node:7", resolve=addresses(*many, f"127.0.0.1@{port}"))
    assert str(error) == "dial tcp 127.0.0.1:1: connect: connection refused"
    repeated = addresses(*many[:-1], *many[:-1], f"127.0.0.1@{port}")
    with await dial_endpoint("tcp", "node:7", resolve=repeated) as sock:
        assert sock.getpeername() == ("127.0.0.1", port)


async def test_a_cancelled_race_leaves_nothing(black_hole: int) -> None:
    resolve = addresses(f"127.0.0.1@{black_hole}", f"127.0.0.2@{black_hole}")
    for delay in (0, STAGGER + 0.05):
        dialling = asyncio.create_task(dial_endpoint("tcp", "node:7", resolve=resolve))
        await asyncio.sleep(delay)
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling


async def test_a_race_that_is_cancelled_at_any_turn_leaves_nothing(
    port: int, black_hole: int
) -> None:
    resolve = addresses("127.0.0.1@1", f"127.0.0.1@{black_hole}", f"127.0.0.1@{port}")
    for turns in range(10):
        dialling = asyncio.create_task(dial_endpoint("tcp", "node:7", resolve=resolve))
        for _ in range(turns):
            await asyncio.sleep(0)
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling


async def test_a_race_that_is_cancelled_when_it_is_won_leaves_nothing(
    listener: socket.socket, port: int, black_hole: int
) -> None:
    listener.setblocking(False)
    resolve = addresses(f"127.0.0.1@{black_hole}", f"127.0.0.1@{port}")
    for turns in range(5):
        dialling = asyncio.create_task(dial_endpoint("tcp", "node:7", resolve=resolve))
        accepted = await accept_at_once(listener)
        for _ in range(turns):
            await asyncio.sleep(0)
        dialling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            (await dialling).close()
        accepted.close()


async def accept_at_once(listener: socket.socket) -> socket.socket:
    """The next connection, in the very turn of the loop in which it is made."""
    async with asyncio.timeout(5):
        while True:
            with contextlib.suppress(BlockingIOError):
                return listener.accept()[0]
            await asyncio.sleep(0)


@settings(max_examples=200, deadline=None)
@given(
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=12)
    | st.text("[]:%.01a-_", max_size=20)
    | st.builds("{}:1".format, st.text(max_size=12))
)
def test_any_address_is_dialled_or_refused(address: str) -> None:
    async def unknown(_host: str, _port: int) -> list[Address]:
        raise LookupFault("no such host")

    async def scenario() -> None:
        with pytest.raises(DialError, match=r"(?s)^dial tcp"):
            # Whatever it means, port 1 and a short time: nobody is reached by accident.
            (await dial_endpoint("tcp", address, timeout=0.05, resolve=unknown)).close()

    asyncio.run(scenario())


# Servers


async def test_a_server_is_connected_to(port: int) -> None:
    with await connect_server("127.0.0.1", port) as sock:
        assert sock.getpeername() == ("127.0.0.1", port)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


async def test_a_server_that_refuses_is_named_once() -> None:
    with pytest.raises(LinkError) as caught:
        await connect_server("127.0.0.1", 1)
    assert caught.value.stage == "tcp"
    assert str(caught.value) == "cannot connect to server 127.0.0.1:1: connection refused"


async def test_each_address_of_a_server_has_its_cause(black_hole: int) -> None:
    resolve = addresses("127.0.0.1@1", f"127.0.0.1@{black_hole}")
    with pytest.raises(LinkError) as caught:
        await connect_server("konnectivity.example", 8091, resolve=resolve, timeout=0.2)
    assert caught.value.stage == "tcp"
    assert str(caught.value) == (
        "cannot connect to server konnectivity.example:8091: 127.0.0.1:1: connection refused, "
        f"127.0.0.1:{black_hole}: no answer within 0.2 s"
    )


@pytest.mark.parametrize("host", ["a..b", "127.1"])
async def test_a_server_without_address_is_named(host: str) -> None:
    with pytest.raises(LinkError) as caught:
        await connect_server(host, 8091)
    assert caught.value.stage == "name"
    assert str(caught.value) == f"cannot resolve server name {host}: no such host"


async def test_a_silent_name_server_is_told_from_a_silent_server() -> None:
    async def silent(_host: str, _port: int) -> list[Address]:
        await asyncio.sleep(60)
        return []

    with pytest.raises(LinkError) as caught:
        await connect_server("konnectivity.example", 8091, resolve=silent, timeout=0.1)
    assert caught.value.stage == "name"
    assert str(caught.value) == (
        "cannot resolve server name konnectivity.example: no answer within 0.1 s"
    )
