"""The server's half of the packet carrier, played as a dialogue with an agent."""

from __future__ import annotations

from itertools import count

import pytest
from tests.tunnel.ports import RecordingFrontend, RecordingLink

from konnectivity.errors import PacketError
from konnectivity.tunnel import server_packets
from konnectivity.tunnel.budget import Budget, TunnelLimits
from konnectivity.tunnel.reason import Failure, Reason, Refusal
from konnectivity.tunnel.server import ServerTunnel, State
from konnectivity.tunnel.server_packets import PacketBackend
from konnectivity.wire import packet
from konnectivity.wire.grpc import Oversized
from konnectivity.wire.packet import Packet

LIMITS = TunnelLimits(credit=1000, queue=5000, process=8000, pending_dials=3, packet=100)
random = count(100)


class Watch:
    def __init__(self) -> None:
        self.heard: list[object] = []
        self.other: PacketBackend | None = None
        """Where a dial may go that failed for the agent's sake."""

    def retry(self, tunnel: ServerTunnel) -> bool:
        other, self.other = self.other, None
        if other is None:
            return False
        tunnel.backend = other
        other.dial(tunnel)
        return True

    def dialed(self, tunnel: ServerTunnel, failure: Failure | None, text: str) -> None:
        self.heard.append(failure)

    def ended(self, tunnel: ServerTunnel, error: str) -> None:
        self.heard.append(tunnel.reason)


class Scene:
    """One agent stream, and tunnels through it."""

    def __init__(self, *, credit: bool = False) -> None:
        self.link = RecordingLink()
        self.budget = Budget(LIMITS.process)
        self.backend = PacketBackend(
            self.link, agent_id="a", credit=credit, limits=LIMITS, budget=self.budget
        )
        self.watch = Watch()

    def dial(self, dial_id: int | None = None) -> tuple[ServerTunnel, RecordingFrontend]:
        frontend = RecordingFrontend()
        tunnel = ServerTunnel(
            frontend,
            self.backend,
            random=next(random) if dial_id is None else dial_id,
            protocol="tcp",
            address="10.0.0.1:443",
            watcher=self.watch,
            limits=LIMITS,
        )
        self.backend.dial(tunnel)
        return tunnel, frontend

    def open(self, connect_id: int) -> tuple[ServerTunnel, RecordingFrontend]:
        tunnel, frontend = self.dial()
        self.says(Packet(packet.DIAL_RSP, random=tunnel.random, connect_id=connect_id))
        self.link.take()
        return tunnel, frontend

    def says(self, item: Packet) -> None:
        self.backend.message(memoryview(packet.encode(item)))


def test_a_dial_is_sent_answered_and_carries_data_both_ways() -> None:
    scene = Scene()
    tunnel, frontend = scene.dial()
    asked = Packet(packet.DIAL_REQ, protocol="tcp", address="10.0.0.1:443", random=tunnel.random)
    assert scene.link.take() == [asked]
    scene.says(Packet(packet.DIAL_RSP, random=tunnel.random, connect_id=5))
    tunnel.send(b"up")
    scene.says(Packet(packet.DATA, connect_id=5, data=b"down"))
    assert frontend.heard == [("opened", 5)]
    assert frontend.written == [b"down"]
    assert scene.link.take() == [Packet(packet.DATA, connect_id=5, data=b"up")]


def test_a_large_write_of_a_frontend_is_split_into_packets() -> None:
    scene = Scene()
    tunnel, _ = scene.open(1)
    tunnel.send(bytes(250))
    assert [len(each.data) for each in scene.link.take()] == [100, 100, 50]


def test_a_refused_dial_passes_the_agents_text_on() -> None:
    scene = Scene()
    tunnel, frontend = scene.dial()
    scene.says(Packet(packet.DIAL_RSP, random=tunnel.random, error="i/o timeout"))
    assert frontend.heard == [Refusal(Failure.ERROR_RESPONSE, "i/o timeout")]
    assert scene.watch.heard == [Failure.ERROR_RESPONSE]
    assert tunnel.state is State.CLOSED


@pytest.mark.parametrize("connect_id", [0, 7])
def test_an_answer_with_an_id_that_is_not_free_is_an_error(connect_id: int) -> None:
    scene = Scene()
    scene.open(7)
    tunnel, frontend = scene.dial()
    scene.says(Packet(packet.DIAL_RSP, random=tunnel.random, connect_id=connect_id))
    assert isinstance(frontend.heard[0], Refusal)


def test_w16_an_answer_to_a_dial_of_another_stream_opens_nothing() -> None:
    asked, other = Scene(), Scene()
    tunnel, frontend = asked.dial()
    other.says(Packet(packet.DIAL_RSP, random=tunnel.random, connect_id=9))
    assert frontend.heard == []
    assert other.backend.unrecognized == 1
    assert other.link.take() == [Packet(packet.CLOSE_REQ, connect_id=9)]


def test_w14_equal_ids_of_two_streams_do_not_collide() -> None:
    first, second = Scene(), Scene()
    _, one = first.open(1)
    _, two = second.open(1)
    first.says(Packet(packet.DATA, connect_id=1, data=b"for one"))
    second.says(Packet(packet.CLOSE_RSP, connect_id=1))
    assert one.written == [b"for one"]
    assert one.heard == [("opened", 1)]
    assert two.heard == [("opened", 1), (Reason.ENDPOINT_CLOSE, "")]


def test_w23_a_cancelled_dial_is_told_to_the_agent_and_its_late_success_is_closed() -> None:
    scene = Scene()
    tunnel, frontend = scene.dial()
    scene.link.take()
    tunnel.leave()
    assert scene.link.take() == [Packet(packet.DIAL_CLS, random=tunnel.random)]
    scene.says(Packet(packet.DIAL_RSP, random=tunnel.random, connect_id=4))
    assert scene.link.take() == [Packet(packet.CLOSE_REQ, connect_id=4)]
    assert frontend.heard == []


def test_a_dial_that_runs_out_of_time_is_refused_and_forgotten() -> None:
    """Scenario 28."""
    scene = Scene()
    tunnel, frontend = scene.dial()
    tunnel.time_out()
    tunnel.time_out()
    text = "timed out waiting for backend dial"
    assert frontend.heard == [Refusal(Failure.TIMEOUT, text)]
    assert scene.backend.pending == {}


def test_an_agents_dial_cls_is_passed_on_as_such() -> None:
    scene = Scene()
    tunnel, frontend = scene.dial()
    scene.says(Packet(packet.DIAL_CLS, random=tunnel.random))
    assert [each.by_packet for each in frontend.heard if isinstance(each, Refusal)] == [True]


def test_w22_losing_the_agent_ends_its_dials_and_tunnels_with_a_reason() -> None:
    scene = Scene()
    _, dialing = scene.dial()
    _, opened = scene.open(1)
    scene.backend.lost()
    assert dialing.heard == [Refusal(Failure.BACKEND_CLOSE, "context canceled")]
    assert opened.heard[-1] == (Reason.AGENT_LOST, "")


def test_w09_after_close_data_is_dropped_and_only_the_answer_is_passed_on() -> None:
    scene = Scene()
    tunnel, frontend = scene.open(3)
    tunnel.close()
    scene.says(Packet(packet.DATA, connect_id=3, data=b"too late"))
    assert scene.link.take() == [Packet(packet.CLOSE_REQ, connect_id=3)]
    assert frontend.written == []
    scene.says(Packet(packet.CLOSE_RSP, connect_id=3))
    assert frontend.heard[-1] == (Reason.FRONTEND_CLOSE, "")
    assert scene.backend.tunnels == {}


def test_late_data_of_a_tunnel_whose_frontend_left_is_dropped_without_an_answer() -> None:
    scene = Scene()
    tunnel, _ = scene.open(3)
    tunnel.leave()
    assert scene.link.take() == [Packet(packet.CLOSE_REQ, connect_id=3)]
    scene.says(Packet(packet.DATA, connect_id=3, data=b"late"))
    assert scene.link.take() == []


def test_closed_tunnels_an_agent_never_answers_for_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_packets, "LEAVING", 2)
    scene = Scene()
    for connect_id in (1, 2, 3):
        tunnel, _ = scene.open(connect_id)
        tunnel.leave()
    assert list(scene.backend.tunnels) == [2, 3]


def test_data_for_an_unknown_id_is_answered_with_close_and_id_zero_is_dropped() -> None:
    scene = Scene()
    scene.says(Packet(packet.DATA, connect_id=8, data=b"?"))
    scene.says(Packet(packet.DATA, connect_id=0, data=b"?"))
    assert scene.link.take() == [Packet(packet.CLOSE_REQ, connect_id=8)]


def test_w05_empty_data_is_never_passed_on() -> None:
    scene = Scene()
    _, frontend = scene.open(1)
    scene.says(Packet(packet.DATA, connect_id=1))
    assert frontend.written == []


@pytest.mark.parametrize("kind", [*packet.NAMES, 99])
def test_w18_packets_without_payload_are_harmless(kind: int) -> None:
    scene = Scene(credit=True)
    _, frontend = scene.open(1)
    scene.backend.message(memoryview(b"\x08" + packet.varint(kind) if kind else b""))
    assert frontend.heard == [("opened", 1)]


def test_bytes_that_are_no_packet_are_a_packet_error() -> None:
    with pytest.raises(PacketError):
        Scene().backend.message(memoryview(b"\xff"))


def test_w06_a_frontend_that_does_not_read_loses_its_own_tunnel_alone() -> None:
    scene = Scene()
    _, slow = scene.open(1)
    _, other = scene.open(2)
    slow.slow = True
    for _ in range(6):
        scene.says(Packet(packet.DATA, connect_id=1, data=bytes(1000)))
        scene.says(Packet(packet.DATA, connect_id=2, data=b"goes on"))
    assert other.written == [b"goes on"] * 6
    reason, error = slow.heard[-1]
    assert reason is Reason.OVERFLOW
    assert "reads too slowly" in error
    assert scene.link.take() == [Packet(packet.CLOSE_REQ, connect_id=1)]
    assert scene.budget.held == 0


def test_w10_with_credit_a_slow_frontend_stops_its_endpoint_and_loses_nothing() -> None:
    scene = Scene(credit=True)
    tunnel, slow = scene.open(1)
    slow.slow = True
    scene.says(Packet(packet.DATA, connect_id=1, data=bytes(1000)))
    assert scene.link.take() == []
    slow.slow, slow.unsent = False, 0
    tunnel.caught_up()
    assert scene.link.take() == [Packet(packet.CREDIT, connect_id=1, size=1000)]


def test_credit_of_the_agent_restarts_a_paused_frontend() -> None:
    scene = Scene(credit=True)
    tunnel, frontend = scene.open(1)
    for _ in range(1400):
        tunnel.send(bytes(100))
    assert frontend.paused[-1] is True
    scene.says(Packet(packet.CREDIT, connect_id=1, size=200_000))
    assert frontend.paused[-1] is False
    assert sum(len(each.data) for each in scene.link.take()) == 140_000


def test_w13_an_oversized_packet_ends_only_the_tunnel_it_belongs_to() -> None:
    scene = Scene()
    _, big = scene.open(1)
    _, other = scene.open(2)
    head = packet.encode(Packet(packet.DATA, connect_id=1, data=bytes(300)))[:64]
    scene.backend.message(Oversized(5 << 20, head))
    assert big.heard[-1][0] is Reason.VIOLATION
    assert other.heard == [("opened", 2)]


def test_an_oversized_packet_of_no_tunnel_ends_the_stream() -> None:
    with pytest.raises(PacketError, match="belongs to no tunnel"):
        Scene().backend.message(Oversized(5 << 20, b"\x00" * 64))


def test_dials_under_way_are_bounded_and_ids_are_not_taken_over() -> None:
    scene = Scene()
    first, _ = scene.dial()
    _, duplicate = scene.dial(first.random)
    assert [each.failure for each in duplicate.heard if isinstance(each, Refusal)] == [
        Failure.DUPLICATE
    ]
    scene.dial()
    scene.dial()
    _, fourth = scene.dial()
    assert [each.failure for each in fourth.heard if isinstance(each, Refusal)] == [Failure.LIMIT]


def test_drain_marks_the_agent() -> None:
    scene = Scene()
    scene.says(Packet(packet.DRAIN))
    assert scene.backend.draining


def test_each_tunnel_is_counted_once_whatever_happens_to_it() -> None:
    """Scenario 36."""
    scene = Scene()
    tunnel, _ = scene.open(1)
    tunnel.leave()
    tunnel.leave()
    scene.says(Packet(packet.CLOSE_RSP, connect_id=1))
    scene.backend.lost()
    assert scene.watch.heard == [None, Reason.FRONTEND_CLOSE]


@pytest.mark.parametrize("fate", ["lost", "DIAL_CLS", "busy", "limit"])
def test_w53_a_dial_that_the_agent_failed_goes_on_at_another(fate: str) -> None:
    scene, other = Scene(), Scene()
    scene.watch.other = other.backend
    if fate == "limit":
        for _ in range(LIMITS.pending_dials):
            scene.dial()
    tunnel, frontend = scene.dial()
    match fate:
        case "lost":
            scene.backend.lost()
        case "DIAL_CLS":
            scene.says(Packet(packet.DIAL_CLS, random=tunnel.random))
        case "busy":
            error = "dial tcp 10.0.0.1:443: socket: too many open files"
            scene.says(Packet(packet.DIAL_RSP, random=tunnel.random, error=error))
    assert other.backend.pending == {tunnel.random: tunnel}
    assert tunnel.random not in scene.backend.pending
    other.says(Packet(packet.DIAL_RSP, random=tunnel.random, connect_id=4))
    assert frontend.heard == [("opened", 4)]
    assert scene.watch.heard == [None]


def test_w53_a_silent_agent_without_tunnels_loses_its_connection() -> None:
    scene = Scene()
    scene.dial()
    scene.backend.give_up("silent")
    assert scene.link.given_up == "silent"


def test_w53_a_silent_agent_with_tunnels_loses_its_dials_alone() -> None:
    scene, other = Scene(), Scene()
    _, opened = scene.open(1)
    tunnel, frontend = scene.dial()
    scene.backend.give_up("silent")  # there is no other agent
    assert scene.backend.pending == {tunnel.random: tunnel}
    scene.link.take()
    scene.watch.other = other.backend
    scene.backend.give_up("silent")
    assert scene.link.take() == [Packet(packet.DIAL_CLS, random=tunnel.random)]
    assert other.backend.pending == {tunnel.random: tunnel}
    assert scene.link.given_up == ""
    assert (opened.heard, frontend.heard) == ([("opened", 1)], [])


def test_a_server_that_stops_ends_its_tunnels_behind_their_data_and_its_dials() -> None:
    scene = Scene()
    tunnel, frontend = scene.open(1)
    closing, closing_frontend = scene.open(2)
    closing.close()
    dialing, dialing_frontend = scene.dial()
    scene.link.take()
    scene.link.full = True
    tunnel.send(b"last words")
    scene.backend.shut_down()
    scene.link.full = False
    scene.backend.outbox.flow()
    assert scene.link.take() == [
        Packet(packet.DIAL_CLS, random=dialing.random),
        Packet(packet.DATA, connect_id=1, data=b"last words"),
        Packet(packet.CLOSE_REQ, connect_id=1),
    ]
    assert dialing_frontend.heard == [Refusal(Failure.SHUTDOWN, "the server is stopping")]
    assert frontend.heard[-1] == (Reason.SHUTDOWN, "")
    assert closing_frontend.heard[-1] == (Reason.FRONTEND_CLOSE, "")
