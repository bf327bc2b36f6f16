from __future__ import annotations

import pytest
from tests.tunnel.ports import RecordingLink

from konnectivity.tunnel.outbox import PAUSE_AT, SMALL, Lane, Outbox
from konnectivity.wire import packet
from konnectivity.wire.packet import Packet


def lane(connect_id: int, resumed: list[int], credit: int | None = None) -> Lane:
    return Lane(connect_id, credit, lambda: resumed.append(connect_id))


def ids(packets: list[Packet]) -> list[int]:
    return [each.connect_id for each in packets]


def test_data_goes_out_at_once_while_the_link_has_room() -> None:
    link = RecordingLink()
    outbox = Outbox(link)
    assert outbox.data(lane(7, []), b"hello")
    assert link.take() == [Packet(packet.DATA, connect_id=7, data=b"hello")]


def test_a_full_link_keeps_chunks_in_their_lanes_and_pauses_the_source() -> None:
    """Scenario 42."""
    link, resumed = RecordingLink(), list[int]()
    outbox, bulk = Outbox(link), lane(1, resumed)
    link.full = True
    assert outbox.data(bulk, bytes(PAUSE_AT - 1))
    assert not outbox.data(bulk, b"x")
    assert link.take() == []
    link.full = False
    outbox.flow()
    assert b"".join(each.data for each in link.take()) == bytes(PAUSE_AT - 1) + b"x"
    assert resumed == [1]


def test_control_packets_overtake_all_waiting_data() -> None:
    link = RecordingLink()
    outbox = Outbox(link)
    link.full = True
    outbox.data(lane(1, []), bytes(5000))
    outbox.control(Packet(packet.DIAL_RSP, random=3, connect_id=2))
    link.full = False
    outbox.flow()
    assert [each.type for each in link.take()] == [packet.DIAL_RSP, packet.DATA]


def test_a_keystroke_overtakes_bulk_and_bulk_tunnels_take_turns() -> None:
    link = RecordingLink()
    outbox = Outbox(link)
    first, second, keys = lane(1, []), lane(2, []), lane(3, [])
    link.full = True
    for _ in range(2):
        outbox.data(first, bytes(SMALL + 1))
    for _ in range(2):
        outbox.data(second, bytes(SMALL + 1))
    outbox.data(keys, b"k")
    link.full = False
    outbox.flow()
    assert ids(link.take()) == [3, 1, 2, 1, 2]


def test_flow_stops_when_the_link_is_full_again() -> None:
    link = RecordingLink()
    outbox, bulk = Outbox(link), lane(1, [])
    link.full = True
    for _ in range(3):
        outbox.data(bulk, bytes(10_000))
    link.full, link.room = False, 15_000
    outbox.flow()
    assert len(link.take()) == 2


def test_a_tunnel_without_credit_waits_alone_until_it_is_granted() -> None:
    link, resumed = RecordingLink(), list[int]()
    outbox = Outbox(link)
    starved, other = lane(1, resumed, credit=10), lane(2, resumed)
    assert outbox.data(starved, b"0123456789")
    outbox.data(starved, b"waits")
    outbox.data(other, b"goes")
    assert [each.data for each in link.take()] == [b"0123456789", b"goes"]
    outbox.grant(starved, 5)
    assert [each.data for each in link.take()] == [b"waits"]


def test_credit_may_be_overdrawn_by_the_rest_of_one_chunk_and_no_more() -> None:
    link = RecordingLink()
    outbox, tunnel = Outbox(link), lane(1, [], credit=1)
    outbox.data(tunnel, bytes(100))
    outbox.data(tunnel, bytes(100))
    assert len(link.take()) == 1
    outbox.grant(tunnel, 99)
    assert link.take() == []
    outbox.grant(tunnel, 1)
    assert len(link.take()) == 1


def ending(link: RecordingLink) -> tuple[Outbox, Lane, list[str]]:
    """A tunnel that has ended with one chunk that lacks credit."""
    sent: list[str] = []
    outbox, tunnel = Outbox(link), lane(1, [], credit=1)
    outbox.data(tunnel, b"first")
    outbox.data(tunnel, b"last")
    outbox.finish(tunnel, Packet(packet.CLOSE_RSP, connect_id=1), lambda: sent.append("sent"))
    assert [each.data for each in link.take()] == [b"first"]
    assert sent == []
    return outbox, tunnel, sent


def test_the_end_of_a_tunnel_goes_behind_its_data_and_waits_for_credit_with_it() -> None:
    link = RecordingLink()
    outbox, tunnel, sent = ending(link)
    outbox.grant(tunnel, 100)
    assert [each.type for each in link.take()] == [packet.DATA, packet.CLOSE_RSP]
    assert sent == ["sent"]


def test_a_peer_that_asked_for_the_end_gives_no_credit_and_gets_all_at_once() -> None:
    link = RecordingLink()
    outbox, tunnel, sent = ending(link)
    outbox.waive(tunnel)
    assert [each.type for each in link.take()] == [packet.DATA, packet.CLOSE_RSP]
    assert sent == ["sent"]


def test_a_cut_drops_what_waits_and_tells_the_end() -> None:
    link = RecordingLink()
    outbox, tunnel, sent = ending(link)
    outbox.cut(tunnel)
    outbox.cut(tunnel)
    outbox.flow()
    assert [each.type for each in link.take()] == [packet.CLOSE_RSP]
    assert sent == ["sent"]


@pytest.mark.parametrize("size", [0, -5])
def test_credit_that_is_none_is_ignored(size: int) -> None:
    link = RecordingLink()
    outbox, tunnel = Outbox(link), lane(1, [], credit=1)
    outbox.grant(tunnel, size)
    assert tunnel.credit == 1


def test_a_view_is_copied_because_its_buffer_is_used_again() -> None:
    link = RecordingLink()
    outbox, tunnel = Outbox(link), lane(1, [])
    link.full = True
    buffer = bytearray(b"kept")
    outbox.data(tunnel, memoryview(buffer))
    buffer[:] = b"lost"
    link.full = False
    outbox.flow()
    assert [each.data for each in link.take()] == [b"kept"]


def test_sent_packets_are_counted_by_type() -> None:
    link = RecordingLink()
    outbox, tunnel = Outbox(link), lane(1, [])
    outbox.data(tunnel, b"x")
    outbox.finish(tunnel, Packet(packet.CLOSE_REQ, connect_id=1))
    counted = {kind: count for kind, count in outbox.sent.items() if count}
    assert counted == {packet.DATA: 1, packet.CLOSE_REQ: 1}


def test_bytes_are_counted_when_they_are_taken_and_pauses_when_they_begin() -> None:
    link = RecordingLink()
    outbox, tunnel = Outbox(link), lane(1, [])
    outbox.data(tunnel, b"sent")
    link.full = True
    outbox.data(tunnel, bytes(PAUSE_AT))
    outbox.data(tunnel, b"more")
    assert (tunnel.bytes, outbox.pauses) == (PAUSE_AT + 8, 1)
    link.full = False
    outbox.flow()
    assert (tunnel.bytes, outbox.pauses, tunnel.paused) == (PAUSE_AT + 8, 1, False)
