"""The parts of a server of several processes, each by itself."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from tests.peers.metrics import Page

from konnectivity.observe.status import (
    Dial,
    Dials,
    Limit,
    Peer,
    Program,
    ServerStatus,
    Time,
    Traffic,
    Tunnel,
    TunnelCounts,
)
from konnectivity.server.workers import handing, merged_metrics, merged_status
from konnectivity.server.workers.handing import HandedSocket, Rotation

# Handing


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def connection(listening: socket.socket) -> tuple[socket.socket, socket.socket]:
    peer = socket.create_connection(listening.getsockname())
    return peer, listening.accept()[0]


def test_a_connection_that_is_given_works_where_it_is_taken(listening: socket.socket) -> None:
    giving, taking = handing.pair()
    handed = HandedSocket(taking, listening)
    peer, accepted = connection(listening)
    with giving, peer:
        with pytest.raises(BlockingIOError):
            handed.accept()
        with accepted:
            assert Rotation([giving]).give(accepted, "host", among=[0]) == 0
        sock, name = handed.accept()
        assert name == peer.getsockname()
        with sock:
            peer.sendall(b"hello")
            assert sock.recv(5) == b"hello"
        assert handed.getsockname() == listening.getsockname()
        handed.close()
        assert handed.fileno() == -1


def test_a_peer_that_has_gone_meanwhile_is_no_error_of_the_listener(
    listening: socket.socket,
) -> None:
    giving, taking = handing.pair()
    handed = HandedSocket(taking, listening)
    peer, accepted = connection(listening)
    with giving, accepted:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()  # with RST
        Rotation([giving]).give(accepted, "host", among=[0])
    with pytest.raises(ConnectionAbortedError):
        handed.accept()
    handed.close()


@pytest.fixture
def workers() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    pairs = [handing.pair() for _ in range(3)]
    yield pairs
    for sock in (each for both in pairs for each in both):
        sock.close()


def test_each_host_meets_all_workers_in_as_many_tries(
    workers: list[tuple[socket.socket, socket.socket]], listening: socket.socket
) -> None:
    rotation = Rotation([giving for giving, _ in workers])
    for host in ("a", "b"):
        given = [rotation.give(listening, host, among=[0, 1, 2]) for _ in range(6)]
        assert set(given[:3]) == set(given[3:]) == {0, 1, 2}


def test_workers_that_are_away_or_full_are_passed_over(
    workers: list[tuple[socket.socket, socket.socket]], listening: socket.socket
) -> None:
    rotation = Rotation([giving for giving, _ in workers])
    assert {rotation.give(listening, "a", among=[1]) for _ in range(3)} == {1}
    given = [rotation.give(listening, "b", among=[0, 1]) for _ in range(5000)]
    assert given[-1] is None  # nobody takes: all queues are full
    assert rotation.give(listening, "b", among=[]) is None


def test_a_worker_that_came_back_is_the_next_for_every_host(
    workers: list[tuple[socket.socket, socket.socket]], listening: socket.socket
) -> None:
    rotation = Rotation([giving for giving, _ in workers])
    for host in "abc":
        rotation.give(listening, host, among=[0, 1, 2])
    rotation.prefer(1)
    assert [rotation.give(listening, host, among=[0, 1, 2]) for host in "abcd"] == [1, 1, 1, 1]


# Metrics

ONE = b"""\
# HELP x_total Things.
# TYPE x_total counter
x_total{kind="a b"} 1
x_total{kind="c"} 2.5
# HELP s_seconds How long.
# TYPE s_seconds histogram
s_seconds_bucket{le="0.1"} 1
s_seconds_bucket{le="+Inf"} 2
s_seconds_sum 3
s_seconds_count 2
# HELP build_info The version.
# TYPE build_info gauge
build_info{version="1"} 1
# HELP process_start_time_seconds When.
# TYPE process_start_time_seconds gauge
process_start_time_seconds 20
"""
OTHER = b"""\
# HELP x_total Things.
# TYPE x_total counter
x_total{kind="a b"} 4
# HELP s_seconds How long.
# TYPE s_seconds histogram
s_seconds_bucket{le="0.1"} 0
s_seconds_bucket{le="+Inf"} 5
s_seconds_sum 2
s_seconds_count 5
# HELP y Only here.
# TYPE y gauge
y 7
# HELP build_info The version.
# TYPE build_info gauge
build_info{version="1"} 1
# HELP process_start_time_seconds When.
# TYPE process_start_time_seconds gauge
process_start_time_seconds 10
"""


def test_amounts_are_added_up_and_other_figures_are_not() -> None:
    page = Page(merged_metrics.merge([ONE, OTHER]).decode(), "")
    assert page.value("x_total", kind="a b") == 5
    assert page.value("x_total", kind="c") == 2.5
    assert page.value("s_seconds_bucket", le="+Inf") == 7
    assert page.value("s_seconds_sum") == 5
    assert page.value("y") == 7
    assert page.value("build_info", version="1") == 1
    assert page.value("process_start_time_seconds") == 10


def test_a_single_page_stays_as_it_is_and_none_is_an_empty_one() -> None:
    assert merged_metrics.merge([ONE]) == ONE
    assert merged_metrics.merge([]).strip() == b""


# Status


def program(*, ready: bool = True, workers: int = 1) -> Program:
    return Program(
        id="s",
        version="1",
        started_at=Time(5.0),
        state="running",
        ready=ready,
        unready="" if ready else "no agents",
        modes=("grpc",),
        strategies=("default",),
        listeners=(),
        limits=(Limit("tunnels", 2, 10), Limit("descriptors", 1, None)),
        certificates=(),
        workers=workers,
    )


def peer(name: str, *, since: float, round_trip: float | None, up: int) -> Peer:
    return Peer(
        id=name,
        software="",
        version="",
        address="10.0.0.1:1",
        connected_since=Time(since),
        identifiers={},
        certificate=None,
        round_trip=round_trip,
        draining=False,
        credit=True,
        tunnels=TunnelCounts(open=1),
        traffic=Traffic(up=up),
        dials=3,
        dials_failed=1,
    )


def status(*peers: Peer, ready: bool = True, dial: float = 1.0) -> ServerStatus:
    done = Dial(Time(dial), "10.0.0.9:80", "a", "ok", 0.1, "")
    return ServerStatus(
        generated_at=Time(9.0),
        last_event="x-1",
        server=program(ready=ready),
        agents=peers,
        dials=Dials(1, 2, {"timeout": 1}, (done,), ()),
        tunnel_counts=TunnelCounts(open=1),
        tunnels_ended={"drain": 1},
        tunnels=(Tunnel(7, "a", "10.0.0.9:80", "grpc", "", "open", Time(dial), Traffic()),),
    )


def test_an_agent_at_several_workers_is_one_agent() -> None:
    found = merged_status.merge(
        {
            0: status(peer("a", since=4.0, round_trip=None, up=1), ready=False, dial=2.0),
            1: status(
                peer("a", since=3.0, round_trip=0.5, up=2),
                peer("b", since=1.0, round_trip=None, up=0),
                dial=3.0,
            ),
        },
        program=program(ready=False, workers=2),
        last_event="front-1",
        most=10,
    )
    first, second = found.agents
    assert (first.id, first.connections, first.traffic.up) == ("a", 2, 3)
    assert (first.connected_since, first.round_trip, first.dials) == (3.0, 0.5, 6)
    assert (second.id, second.connections) == ("b", 1)
    assert found.server.ready  # one of them is
    assert found.server.limits == (Limit("tunnels", 4, 20), Limit("descriptors", 2, None))
    assert found.dials.pending == 2
    assert found.dials.failed == {"timeout": 2}
    assert [each.time for each in found.dials.recent] == [3.0]  # as many as one keeps
    assert found.tunnel_counts.open == 2
    assert found.tunnels_ended == {"drain": 2}
    assert [each.id for each in found.tunnels] == [14, 15]  # unique, oldest first
    assert found.last_event == "front-1"


def test_of_no_worker_only_the_flags_are_known() -> None:
    found = merged_status.merge({}, program=program(ready=False, workers=2), last_event="", most=10)
    assert not found.server.ready
    assert found.agents == ()
