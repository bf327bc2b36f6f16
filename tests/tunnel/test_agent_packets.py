"""The agent's half of the packet carrier, played as a dialogue with a server."""

from __future__ import annotations

import pytest
from tests.tunnel.ports import RecordingEndpoint, RecordingLink

from konnectivity.errors import PacketError
from konnectivity.tunnel.agent import AgentTunnel
from konnectivity.tunnel.agent_packets import PacketLink
from konnectivity.tunnel.budget import Budget, TunnelLimits
from konnectivity.tunnel.reason import Reason
from konnectivity.wire import packet
from konnectivity.wire.grpc import Oversized
from konnectivity.wire.packet import Packet

LIMITS = TunnelLimits(credit=1000, queue=5000, process=8000, pending_dials=2)


class Dial:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Scene:
    """One server stream at the agent; the test answers the dials."""

    def __init__(self, *, credit: bool = False) -> None:
        self.link = RecordingLink()
        self.dials: list[tuple[AgentTunnel, Dial]] = []
        self.packets = PacketLink(
            self.link, self, credit=credit, limits=LIMITS, budget=Budget(LIMITS.process)
        )

    def dial(self, tunnel: AgentTunnel) -> None:
        task = Dial()
        tunnel.dialing = task
        self.dials.append((tunnel, task))

    def says(self, item: Packet) -> None:
        self.packets.message(memoryview(packet.encode(item)))

    def open(self, random: int) -> tuple[AgentTunnel, RecordingEndpoint]:
        self.says(Packet(packet.DIAL_REQ, protocol="tcp", address="h:1", random=random))
        tunnel, endpoint = self.dials[-1][0], RecordingEndpoint()
        assert tunnel.connected(endpoint)
        self.link.take()
        return tunnel, endpoint


def test_a_dial_is_answered_with_the_next_id_and_data_flows_both_ways() -> None:
    scene = Scene()
    scene.says(Packet(packet.DIAL_REQ, protocol="tcp", address="h:1", random=42))
    tunnel, endpoint = scene.dials[0][0], RecordingEndpoint()
    assert (tunnel.protocol, tunnel.address) == ("tcp", "h:1")
    tunnel.connected(endpoint)
    tunnel.endpoint_data(memoryview(b"down"))
    scene.says(Packet(packet.DATA, connect_id=1, data=b"up"))
    assert scene.link.take() == [
        Packet(packet.DIAL_RSP, random=42, connect_id=1),
        Packet(packet.DATA, connect_id=1, data=b"down"),
    ]
    assert endpoint.written == [b"up"]


def test_a_failed_dial_uses_an_id_up_too() -> None:
    scene = Scene()
    scene.says(Packet(packet.DIAL_REQ, random=1))
    scene.dials[0][0].failed("dial tcp: missing address")
    assert scene.link.take() == [
        Packet(packet.DIAL_RSP, random=1, error="dial tcp: missing address")
    ]
    tunnel, _ = scene.open(2)
    assert tunnel.connect_id == 2


def test_w01_close_flushes_the_endpoint_before_it_is_closed() -> None:
    scene = Scene()
    _, endpoint = scene.open(1)
    scene.says(Packet(packet.DATA, connect_id=1, data=b"last words"))
    scene.says(Packet(packet.CLOSE_REQ, connect_id=1))
    assert endpoint.ended == "finished"
    assert scene.link.take() == [Packet(packet.CLOSE_RSP, connect_id=1)]
    assert scene.packets.tunnels == {}


def test_close_sends_what_was_read_before_its_answer() -> None:
    scene = Scene()
    tunnel, _ = scene.open(1)
    scene.link.full = True
    tunnel.endpoint_data(memoryview(b"read already"))
    scene.says(Packet(packet.CLOSE_REQ, connect_id=1))
    scene.link.full = False
    scene.packets.outbox.flow()
    assert [each.type for each in scene.link.take()] == [packet.DATA, packet.CLOSE_RSP]


def test_a_second_close_and_data_for_unknown_ids_get_upstreams_literals() -> None:
    scene = Scene()
    scene.says(Packet(packet.CLOSE_REQ, connect_id=9))
    scene.says(Packet(packet.DATA, connect_id=9, data=b"?"))
    scene.says(Packet(packet.DATA, connect_id=0, data=b"?"))
    assert scene.link.take() == [
        Packet(packet.CLOSE_RSP, connect_id=9, error="Unknown connectID"),
        Packet(packet.CLOSE_RSP, connect_id=9, error="unrecognized connectID"),
    ]


@pytest.mark.parametrize("reason", [Reason.ENDPOINT_CLOSE, Reason.ENDPOINT_RESET])
def test_the_end_of_the_endpoint_is_told_behind_its_data(reason: Reason) -> None:
    scene = Scene()
    tunnel, endpoint = scene.open(1)
    tunnel.endpoint_data(memoryview(b"bye"))
    tunnel.endpoint_closed(reason)
    tunnel.endpoint_closed(reason)
    assert [each.type for each in scene.link.take()] == [packet.DATA, packet.CLOSE_RSP]
    assert (endpoint.ended, tunnel.reason) == ("finished", reason)


def test_w07_an_endpoint_that_does_not_read_loses_its_own_tunnel_alone() -> None:
    scene = Scene()
    _, slow = scene.open(1)
    _, other = scene.open(2)
    slow.slow = True
    for _ in range(6):
        scene.says(Packet(packet.DATA, connect_id=1, data=bytes(1000)))
        scene.says(Packet(packet.DATA, connect_id=2, data=b"goes on"))
    assert other.written == [b"goes on"] * 6
    assert slow.ended == "aborted"
    (closed,) = scene.link.take()[:1]
    assert (closed.type, closed.connect_id) == (packet.CLOSE_RSP, 1)
    assert "too slowly" in closed.error


def test_with_credit_a_slow_endpoint_withholds_it() -> None:
    scene = Scene(credit=True)
    tunnel, slow = scene.open(1)
    slow.slow = True
    scene.says(Packet(packet.DATA, connect_id=1, data=bytes(900)))
    assert scene.link.take() == []
    slow.slow, slow.unsent = False, 0
    tunnel.caught_up()
    assert scene.link.take() == [Packet(packet.CREDIT, connect_id=1, size=900)]


def test_a_full_link_pauses_the_endpoint_and_room_resumes_it() -> None:
    scene = Scene()
    tunnel, endpoint = scene.open(1)
    scene.link.full = True
    tunnel.endpoint_data(memoryview(bytes(200_000)))
    assert endpoint.paused == [True]
    scene.link.full = False
    scene.packets.outbox.flow()
    assert endpoint.paused == [True, False]


def test_w23_a_cancelled_dial_is_stopped() -> None:
    scene = Scene()
    scene.says(Packet(packet.DIAL_REQ, random=7))
    scene.says(Packet(packet.DIAL_CLS, random=7))
    tunnel, task = scene.dials[0]
    assert task.cancelled
    assert not tunnel.connected(RecordingEndpoint())
    assert scene.link.take() == []


def test_losing_the_server_cancels_dials_and_flushes_endpoints() -> None:
    """Scenario 66."""
    scene = Scene()
    _, endpoint = scene.open(1)
    scene.says(Packet(packet.DIAL_REQ, random=2))
    scene.packets.lost()
    assert scene.dials[1][1].cancelled
    assert endpoint.ended == "finished"
    assert (scene.packets.tunnels, scene.packets.pending) == ({}, {})


def test_dials_under_way_are_bounded_and_ids_are_not_taken_over() -> None:
    scene = Scene()
    for random in (1, 1, 2, 3):
        scene.says(Packet(packet.DIAL_REQ, random=random))
    errors = [each.error for each in scene.link.take()]
    assert errors == ["a dial with this id is pending already", "too many dials pending"]
    assert len(scene.dials) == 2


@pytest.mark.parametrize("kind", [*(set(packet.NAMES) - {packet.DIAL_REQ}), 99])
def test_w18_packets_without_payload_are_harmless(kind: int) -> None:
    scene = Scene(credit=True)
    _, endpoint = scene.open(1)
    scene.packets.message(memoryview(b"\x08" + packet.varint(kind)))
    assert endpoint.ended == ""


def test_w18_an_empty_message_is_a_dial_of_nothing() -> None:
    scene = Scene()
    scene.packets.message(memoryview(b""))
    assert scene.dials[0][0].address == ""


def test_w13_an_oversized_packet_ends_only_the_tunnel_it_belongs_to() -> None:
    scene = Scene()
    _, big = scene.open(1)
    _, other = scene.open(2)
    head = packet.encode(Packet(packet.DATA, connect_id=1, data=bytes(300)))[:64]
    scene.packets.message(Oversized(5 << 20, head))
    assert (big.ended, other.ended) == ("aborted", "")
    assert scene.link.take() == [Packet(packet.CLOSE_RSP, connect_id=1, error="packet too large")]
    with pytest.raises(PacketError, match="belongs to no tunnel"):
        scene.packets.message(Oversized(5 << 20, b""))


def test_drain_is_one_packet() -> None:
    """Scenario 67."""
    scene = Scene()
    scene.packets.drain()
    assert scene.link.take() == [Packet(packet.DRAIN)]


def test_an_agent_that_stops_ends_its_tunnels_behind_their_data_and_answers_all_dials() -> None:
    scene = Scene()
    tunnel, endpoint = scene.open(1)
    scene.link.full = True
    tunnel.endpoint_data(memoryview(b"last words"))
    scene.says(Packet(packet.DIAL_REQ, protocol="tcp", address="h:1", random=2))
    scene.packets.shut_down()
    scene.says(Packet(packet.DIAL_REQ, protocol="tcp", address="h:2", random=3))
    scene.link.full = False
    scene.packets.outbox.flow()
    refused = "dial tcp h:{}: the agent is stopping"
    assert scene.link.take() == [
        Packet(packet.DIAL_RSP, random=2, error=refused.format(1)),
        Packet(packet.DIAL_RSP, random=3, error=refused.format(2)),
        Packet(packet.DATA, connect_id=1, data=b"last words"),
        Packet(packet.CLOSE_RSP, connect_id=1),
    ]
    assert endpoint.ended == "finished"
    assert tunnel.reason is Reason.SHUTDOWN
    assert len(scene.dials) == 2
    assert scene.dials[1][1].cancelled
