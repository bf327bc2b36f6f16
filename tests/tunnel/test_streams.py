"""Tunnels on streams of their own, both ends: what they say to their channel and hear from it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.tunnel.ports import RecordingEndpoint, RecordingFrontend, RecordingLink

from konnectivity.errors import ConnectionFault
from konnectivity.tunnel.agent import AgentTunnel
from konnectivity.tunnel.agent_packets import PacketLink
from konnectivity.tunnel.agent_streams import AgentStream
from konnectivity.tunnel.budget import Budget, TunnelLimits
from konnectivity.tunnel.carrier import ChannelHandler
from konnectivity.tunnel.reason import Failure, Reason
from konnectivity.tunnel.server import ServerTunnel, State
from konnectivity.tunnel.server_packets import PacketBackend
from konnectivity.tunnel.server_streams import ServerStream, ServerStreams
from konnectivity.wire import frames, packet
from konnectivity.wire.packet import Packet

LIMITS = TunnelLimits()


class RecordingChannel:
    """A channel; `said` is what was asked of it, and `room` how much it sends before it is full."""

    def __init__(self) -> None:
        self.handler: ChannelHandler | None = None
        self.said: list[Any] = []
        self.backlog = 0
        self.full = False
        self.consumed = 0

    def send(self, data: bytes | memoryview) -> bool:
        self.said.append(bytes(data))
        if self.full:
            self.backlog += len(data)
        return not self.full

    def consume(self, size: int) -> None:
        self.consumed += size

    def end(self) -> bool:
        self.said.append("end")
        return not self.backlog

    def leave(self, code: int) -> bool:
        self.said.append(code)
        return not self.backlog

    def abort(self, code: int) -> None:
        self.handler = None
        self.said.append(("abort", code))

    def flushed(self) -> None:
        self.backlog = 0
        self.full = False
        if self.handler is not None:
            self.handler.writable()


class Watcher:
    def __init__(self) -> None:
        self.dials: list[Failure | None] = []
        self.ends: list[str] = []

    def dialed(self, tunnel: ServerTunnel, failure: Failure | None, text: str) -> None:
        self.dials.append(failure)

    def ended(self, tunnel: ServerTunnel, error: str) -> None:
        self.ends.append(error)

    def retry(self, tunnel: ServerTunnel) -> bool:
        return False


class HalfClosingFrontend(RecordingFrontend):
    """As a client on a Unix socket; `can` says whether it can end one direction."""

    def __init__(self, *, can: bool = True) -> None:
        super().__init__()
        self.can = can

    def end_writing(self) -> bool:
        if self.can:
            self.heard.append("end")
        return self.can


class ServerSide:
    """One agent of the server, with a dial that its stream has answered."""

    def __init__(self, frontend: HalfClosingFrontend | None = None) -> None:
        self.budget = Budget(LIMITS.process)
        self.backend = PacketBackend(
            RecordingLink(), agent_id="a", credit=True, limits=LIMITS, budget=self.budget
        )
        self.streams = ServerStreams(self.backend, limits=LIMITS, budget=self.budget)
        self.frontend = frontend or HalfClosingFrontend()
        self.watcher = Watcher()
        self.channel = RecordingChannel()
        self.tunnel = self.dial(5)
        stream = self.streams.opened(self.channel, 5, 1)
        assert isinstance(stream, ServerStream)
        self.stream = self.channel.handler = stream

    def dial(self, dial_id: int) -> ServerTunnel:
        tunnel = ServerTunnel(
            self.frontend,
            self.backend,
            random=dial_id,
            protocol="tcp",
            address="a:1",
            watcher=self.watcher,
            limits=LIMITS,
        )
        self.backend.dial(tunnel)
        return tunnel


def test_a_stream_opens_its_dial() -> None:
    side = ServerSide()

    assert side.frontend.heard == [("opened", 1)]
    assert side.backend.tunnels == {1: side.tunnel}
    assert side.backend.pending == {}


def test_a_stream_for_no_dial_is_not_wanted() -> None:
    side = ServerSide()

    assert side.streams.opened(RecordingChannel(), 5, 2) is None
    assert side.streams.opened(RecordingChannel(), 99, 3) is None
    assert side.backend.unrecognized == 2
    assert side.backend.tunnels == {1: side.tunnel}


@pytest.mark.parametrize("number", [0, 1])
def test_a_number_that_is_not_free_fails_the_dial(number: int) -> None:
    side = ServerSide()
    side.dial(6)

    assert side.streams.opened(RecordingChannel(), 6, number) is None
    assert side.watcher.dials == [None, Failure.ERROR_RESPONSE]
    assert side.backend.tunnels == {1: side.tunnel}


def test_bytes_go_both_ways_and_are_given_back_once_taken() -> None:
    side = ServerSide()

    side.tunnel.send(b"up")
    side.stream.received(memoryview(bytes(10_000)))

    assert side.channel.said == [b"up"]
    assert side.frontend.written == [bytes(10_000)]
    assert side.channel.consumed == 10_000
    assert side.tunnel.traffic == (2, 10_000)


def test_a_slow_frontend_gets_no_more_window_until_it_has_caught_up() -> None:
    side = ServerSide()
    side.frontend.slow = True

    side.stream.received(memoryview(bytes(50_000)))
    assert side.channel.consumed == 0
    assert side.budget.held == 50_000
    side.frontend.slow = False
    side.tunnel.caught_up()

    assert side.channel.consumed == 50_000
    assert side.budget.held == 0


def test_a_full_channel_pauses_its_frontend_until_there_is_room() -> None:
    side = ServerSide()
    side.channel.full = True

    side.tunnel.send(b"more than goes")
    assert side.frontend.paused == [True]
    assert side.stream.waiting == 14
    side.channel.flushed()

    assert side.frontend.paused == [True, False]
    assert side.backend.outbox.pauses == 1


def test_a_frontend_that_asks_to_close_hears_at_once_that_it_is() -> None:
    side = ServerSide()

    side.tunnel.close()

    assert side.channel.said == [frames.NO_ERROR]
    assert side.frontend.heard[1:] == [(Reason.FRONTEND_CLOSE, "")]
    assert side.backend.tunnels == {}
    assert side.channel.handler is None


def test_a_frontend_that_leaves_is_remembered_until_its_bytes_are_sent() -> None:
    side = ServerSide()
    side.channel.full = True
    side.tunnel.send(b"last words")

    side.tunnel.leave()
    assert side.backend.tunnels == {1: side.tunnel}
    side.stream.received(memoryview(b"for nobody"))
    side.channel.flushed()

    assert side.channel.consumed == 10
    assert side.frontend.written == []
    assert side.backend.tunnels == {}


def test_bytes_that_an_endpoint_does_not_take_in_time_are_dropped() -> None:
    side = ServerSide()
    side.channel.full = True
    side.tunnel.send(b"last words")
    side.tunnel.leave()

    side.stream.cut(side.tunnel)

    assert side.channel.said[-1] == ("abort", frames.CANCEL)
    assert side.backend.tunnels == {}


@pytest.mark.parametrize("first", ["frontend", "endpoint"])
def test_the_tunnel_is_over_when_both_have_ended(first: str) -> None:
    side = ServerSide()
    ends = [side.tunnel.end_sending, side.stream.half_closed]
    ends = ends if first == "frontend" else ends[::-1]

    ends[0]()
    assert side.tunnel.state is State.OPEN
    ends[1]()

    assert side.tunnel.state is State.CLOSED
    assert side.tunnel.reason == (
        Reason.FRONTEND_CLOSE if first == "frontend" else Reason.ENDPOINT_CLOSE
    )
    assert "end" in side.channel.said


def test_an_end_that_the_frontend_cannot_be_told_ends_the_tunnel() -> None:
    side = ServerSide(HalfClosingFrontend(can=False))

    side.stream.half_closed()

    assert side.frontend.heard[1:] == [(Reason.ENDPOINT_CLOSE, "")]
    assert side.channel.said == [frames.NO_ERROR]
    assert side.backend.tunnels == {}


def test_a_lost_agent_ends_its_tunnels_on_streams() -> None:
    side = ServerSide()

    side.backend.lost()

    assert side.frontend.heard[1:] == [(Reason.AGENT_LOST, "")]
    assert side.channel.said == [frames.NO_ERROR]


# The agent


class Dialer:
    def __init__(self) -> None:
        self.tunnels: list[AgentTunnel] = []

    def dial(self, tunnel: AgentTunnel) -> None:
        self.tunnels.append(tunnel)


class HalfClosingEndpoint(RecordingEndpoint):
    def end_writing(self) -> None:
        self.ended = "half"

    def finish(self) -> None:
        self.ended = "finished"


class AgentSide:
    """One server of the agent, with a dial whose endpoint has answered."""

    def __init__(self, *, refuse: bool = False) -> None:
        self.link = RecordingLink()
        self.dialer = Dialer()
        self.channel = RecordingChannel()
        self.blocks: list[bytes] = []
        self.refuse = refuse
        self.packets = PacketLink(
            self.link,
            self.dialer,
            credit=True,
            limits=LIMITS,
            budget=Budget(LIMITS.process),
            open_channel=self.open,
        )
        request = Packet(packet.DIAL_REQ, random=5, protocol="tcp", address="a:1")
        self.packets.message(memoryview(packet.encode(request)))
        (self.tunnel,) = self.dialer.tunnels
        self.endpoint = HalfClosingEndpoint()
        self.tunnel.connected(self.endpoint)

    def open(self, block: bytes) -> RecordingChannel:
        if self.refuse:
            raise ConnectionFault(frames.REFUSED_STREAM, "no more")
        self.blocks.append(block)
        return self.channel

    @property
    def stream(self) -> AgentStream:
        assert isinstance(self.channel.handler, AgentStream)
        return self.channel.handler


def test_the_answer_to_a_dial_is_its_stream_alone() -> None:
    side = AgentSide()

    assert side.blocks == [b"\x83\x87\x04\x19/konnectivity.Tunnels/5/1"]
    assert side.link.sent == []


def test_a_dial_that_no_stream_is_left_for_goes_on_packets() -> None:
    side = AgentSide(refuse=True)

    assert side.link.take() == [Packet(packet.DIAL_RSP, random=5, connect_id=1)]
    side.tunnel.endpoint_data(memoryview(b"on packets"))
    assert side.link.take() == [Packet(packet.DATA, connect_id=1, data=b"on packets")]
    assert not side.tunnel.endpoint_ended()


def test_either_end_of_an_endpoint_has_its_frame() -> None:
    side = AgentSide()

    side.tunnel.endpoint_data(memoryview(b"down"))
    assert side.tunnel.endpoint_ended()
    side.stream.received(memoryview(b"up"))
    side.stream.half_closed()

    assert side.channel.said[:2] == [b"down", "end"]
    assert side.endpoint.written == [b"up"]
    assert side.endpoint.ended == "finished"
    assert side.tunnel.reason is Reason.ENDPOINT_CLOSE
    assert side.packets.tunnels == {}


def test_a_frontend_that_ended_leaves_its_endpoint_open_for_reading() -> None:
    side = AgentSide()

    side.stream.half_closed()
    assert side.endpoint.ended == "half"
    side.tunnel.endpoint_data(memoryview(b"answer"))
    assert not side.tunnel.endpoint_ended()
    side.tunnel.endpoint_closed(Reason.ENDPOINT_CLOSE)

    assert side.channel.said == [b"answer", frames.NO_ERROR]
    assert side.packets.tunnels == {}


@pytest.mark.parametrize(
    ("code", "reason", "ended"),
    [
        (frames.NO_ERROR, Reason.FRONTEND_CLOSE, "finished"),
        (frames.ENHANCE_YOUR_CALM, Reason.OVERFLOW, "finished"),
        (frames.REFUSED_STREAM, Reason.SHUTDOWN, "finished"),
        (frames.CANCEL, Reason.FRONTEND_CLOSE, "aborted"),
        (frames.FLOW_CONTROL_ERROR, Reason.FRONTEND_CLOSE, "aborted"),
    ],
)
def test_a_reset_by_the_server_flushes_what_is_whole_and_breaks_off_what_is_not(
    code: int, reason: Reason, ended: str
) -> None:
    side = AgentSide()

    side.stream.was_reset(code, "")

    assert (side.tunnel.reason, side.endpoint.ended) == (reason, ended)
    assert side.packets.tunnels == {}


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.ENDPOINT_RESET, frames.CONNECT_ERROR),
        (Reason.OVERFLOW, frames.ENHANCE_YOUR_CALM),
        (Reason.SHUTDOWN, frames.REFUSED_STREAM),
    ],
)
def test_the_reason_of_an_end_travels(reason: Reason, code: int) -> None:
    side = AgentSide()

    side.tunnel.fail(reason)

    assert side.channel.said == [code]


def test_an_ended_tunnel_is_remembered_until_its_bytes_are_sent() -> None:
    side = AgentSide()
    side.channel.full = True
    side.tunnel.endpoint_data(memoryview(b"last words"))
    side.tunnel.endpoint_closed(Reason.ENDPOINT_RESET)

    assert side.packets.tunnels == {1: side.tunnel}
    side.channel.flushed()

    assert side.packets.tunnels == {}
