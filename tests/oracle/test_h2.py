"""Our HTTP/2 against the h2 library, in memory: each of us as client and as server."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    Event,
    PingAckReceived,
    PingReceived,
    RequestReceived,
    ResponseReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.events import DataReceived as TheirData
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from konnectivity.wire import events as our
from konnectivity.wire import frames
from konnectivity.wire.blocks import GRPC_RESPONSE
from konnectivity.wire.events import Headers
from konnectivity.wire.http2 import Connection
from konnectivity.wire.limits import Http2Limits

REQUEST: Headers = [
    (":method", "POST"),
    (":scheme", "https"),
    (":path", "/AgentService/Connect"),
    (":authority", "server:8091"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]
RESPONSE: Headers = [(":status", "200"), ("content-type", "application/grpc")]
TRAILERS: Headers = [("grpc-status", "0")]
PATIENT = Http2Limits(
    resets_burst=1 << 20, empty_burst=1 << 20, control_burst=1 << 20, max_frame_size=16_384
)


def text(headers: Iterable[tuple[bytes | str, bytes | str]]) -> Headers:
    return [
        (
            name if isinstance(name, str) else name.decode(),
            value if isinstance(value, str) else value.decode(),
        )
        for name, value in headers
    ]


class Talk:
    """Our connection and theirs, and all that either reported."""

    def __init__(
        self,
        *,
        client: bool,
        limits: Http2Limits = PATIENT,
        settings: dict[SettingCodes | int, int] | None = None,
        consume: bool = True,
    ) -> None:
        self.ours = Connection(client=client, limits=limits)
        self.theirs = H2Connection(H2Configuration(client_side=not client, header_encoding=None))
        self.theirs.initiate_connection()
        self.theirs.update_settings(settings or {})
        self.heard: list[our.Event] = []
        self.content: dict[int, bytes] = {}
        self.reported: list[Event] = []
        self.their_content: dict[int, bytes] = {}
        self._consume = consume
        self.exchange()

    def exchange(self, chunk: int = 1 << 30) -> None:
        """Carry bytes until both have nothing left to say, `chunk` bytes at a time."""
        while True:
            said = self.ours.data_to_send()
            answer = self.theirs.data_to_send()
            if not said and not answer:
                return
            for at in range(0, len(said), chunk):
                self.they_hear(said[at : at + chunk])
            for at in range(0, len(answer), chunk):
                self.we_hear(answer[at : at + chunk])

    def we_hear(self, data: bytes) -> None:
        for event in self.ours.receive_data(data, 1.0):
            if isinstance(event, our.DataReceived):
                before = self.content.get(event.stream_id, b"")
                self.content[event.stream_id] = before + bytes(event.data)
                if self._consume:
                    self.ours.consume(event.stream_id, event.size)
            else:
                self.heard.append(event)

    def they_hear(self, data: bytes) -> None:
        for event in self.theirs.receive_data(data):
            if isinstance(event, TheirData):
                before = self.their_content.get(event.stream_id, b"")
                self.their_content[event.stream_id] = before + event.data
                if self._consume and event.flow_controlled_length:
                    self.they_consume(event.stream_id, event.flow_controlled_length)
            else:
                self.reported.append(event)

    def they_consume(self, stream_id: int, size: int) -> None:
        self.theirs.acknowledge_received_data(size, stream_id)

    def opened(self) -> Talk:
        """The same with stream 1 open and a response head on it."""
        if self.ours.client:
            self.ours.open_stream(REQUEST)
            self.exchange()
            self.theirs.send_headers(1, RESPONSE)
        else:
            self.theirs.send_headers(1, REQUEST)
            self.exchange()
            self.ours.send_headers(1, RESPONSE)
        self.exchange()
        self.heard.clear()
        self.reported.clear()
        return self

    def saw(self, kind: type[Event]) -> Event:
        """The one event of this kind that they reported."""
        (found,) = [event for event in self.reported if isinstance(event, kind)]
        return found


BOTH = pytest.mark.parametrize("client", [True, False], ids=["we-are-client", "we-are-server"])


@BOTH
def test_the_handshake_leaves_both_content(client: bool) -> None:
    talk = Talk(client=client)

    assert talk.heard == [our.SettingsReceived()] * 2
    assert any(isinstance(event, SettingsAcknowledged) for event in talk.reported)
    assert talk.theirs.remote_settings.initial_window_size == PATIENT.stream_window
    assert talk.theirs.remote_settings.max_header_list_size == PATIENT.max_header_list
    if not client:
        assert talk.theirs.remote_settings.max_concurrent_streams == PATIENT.max_streams


def test_our_request_arrives_and_its_answer_comes_back() -> None:
    talk = Talk(client=True)
    stream_id = talk.ours.open_stream([*REQUEST, ("agentid", "a")])
    talk.ours.send_data(stream_id, b"question")
    talk.ours.end_stream(stream_id)
    talk.exchange()
    request = talk.saw(RequestReceived)
    assert isinstance(request, RequestReceived)
    assert text(request.headers) == [*REQUEST, ("agentid", "a")]
    assert talk.their_content == {1: b"question"}
    assert talk.saw(StreamEnded)

    talk.heard.clear()
    talk.theirs.send_headers(1, RESPONSE)
    talk.theirs.send_data(1, b"answer")
    talk.theirs.send_headers(1, TRAILERS, end_stream=True)
    talk.exchange()

    assert talk.heard == [
        our.HeadersReceived(1, RESPONSE, True, False),
        our.HeadersReceived(1, TRAILERS, False, True),
        our.StreamEnded(1, closed=True),
    ]
    assert talk.content == {1: b"answer"}
    assert talk.ours.streams == {}


def test_their_request_arrives_and_our_answer_comes_back() -> None:
    talk = Talk(client=False)
    talk.heard.clear()
    talk.theirs.send_headers(1, REQUEST)
    talk.theirs.send_data(1, b"question", end_stream=True)
    talk.exchange()
    assert talk.heard == [our.HeadersReceived(1, REQUEST, True, False), our.StreamEnded(1)]
    assert talk.content == {1: b"question"}

    talk.ours.send_headers(1, RESPONSE)
    talk.ours.send_data(1, b"answer")
    talk.ours.end_stream(1, TRAILERS)
    talk.exchange()

    response, trailers = talk.saw(ResponseReceived), talk.saw(TrailersReceived)
    assert isinstance(response, ResponseReceived)
    assert isinstance(trailers, TrailersReceived)
    assert (text(response.headers), text(trailers.headers)) == (RESPONSE, TRAILERS)
    assert talk.their_content == {1: b"answer"}
    assert talk.saw(StreamEnded)
    assert talk.ours.streams == {}


def test_a_refusal_without_content_arrives_as_one_head() -> None:
    talk = Talk(client=False)
    talk.theirs.send_headers(1, REQUEST)
    talk.exchange()
    talk.ours.send_headers(1, [*RESPONSE, ("grpc-status", "12")], end_stream=True)
    talk.exchange()

    assert talk.saw(StreamEnded)
    reset = talk.saw(StreamReset)
    assert isinstance(reset, StreamReset)
    assert reset.error_code == ErrorCodes.NO_ERROR


@BOTH
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_half_a_megabyte_each_way_through_small_windows(client: bool, chunk: int) -> None:
    limits = Http2Limits(stream_window=3000, connection_window=65_535)
    size = 500_000 if chunk > 1 else 20_000
    talk = Talk(client=client, limits=limits, settings={SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    talk.opened()
    out = bytes(range(256)) * (size // 256)
    back = out[::-1]
    talk.ours.send_data(1, out)
    waiting = back
    while waiting or talk.their_content.get(1, b"") != out:
        room = min(talk.theirs.local_flow_control_window(1), len(waiting), 700)
        if room:
            talk.theirs.send_data(1, waiting[:room])
            waiting = waiting[room:]
        talk.exchange(chunk)

    assert talk.content[1] == back


@BOTH
def test_without_credit_nothing_is_sent_and_with_it_everything(client: bool) -> None:
    talk = Talk(client=client, settings={SettingCodes.INITIAL_WINDOW_SIZE: 100}, consume=False)
    talk.opened()
    talk.ours.send_data(1, bytes(1000))
    talk.exchange()
    assert len(talk.their_content[1]) == 100

    talk.theirs.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 300})
    talk.exchange()
    assert len(talk.their_content[1]) == 300
    talk.theirs.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 200})
    talk.exchange()
    talk.theirs.increment_flow_control_window(100, 1)
    talk.exchange()
    assert len(talk.their_content[1]) == 300
    talk.theirs.increment_flow_control_window(700, 1)
    talk.exchange()
    assert len(talk.their_content[1]) == 1000


@BOTH
def test_our_credit_comes_with_consumption(client: bool) -> None:
    talk = Talk(client=client, limits=Http2Limits(stream_window=1000), consume=False).opened()
    talk.theirs.send_data(1, bytes(1000))
    talk.exchange()
    assert talk.theirs.local_flow_control_window(1) == 0

    talk.ours.consume(1, 600)
    talk.exchange()

    assert talk.theirs.local_flow_control_window(1) == 600
    (update,) = [event for event in talk.reported if isinstance(event, WindowUpdated)]
    assert update.delta == 600


@BOTH
@given(sizes=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=8))
def test_their_padding_is_taken_off_and_given_back(
    client: bool, sizes: list[tuple[int, int]]
) -> None:
    talk = Talk(client=client, limits=Http2Limits(stream_window=2000)).opened()
    sent = b""
    for size, padding in sizes:
        data = bytes([size % 256]) * size
        talk.theirs.send_data(1, data, pad_length=padding)
        talk.exchange()
        sent += data

    assert talk.content.get(1, b"") == sent
    assert talk.theirs.local_flow_control_window(1) > 1000
    assert not talk.ours.closed


@BOTH
def test_heads_longer_than_a_frame_arrive_both_ways(client: bool) -> None:
    talk = Talk(client=client, settings={SettingCodes.MAX_HEADER_LIST_SIZE: 1 << 20})
    big = [("authorization", "Bearer " + "x" * 30_000)]
    if client:
        talk.ours.open_stream([*REQUEST, *big])
        talk.exchange()
        talk.theirs.send_headers(1, [*RESPONSE, *big])
    else:
        talk.theirs.send_headers(1, [*REQUEST, *big])
        talk.exchange()
        talk.ours.send_headers(1, [*RESPONSE, *big])
    talk.exchange()

    (theirs,) = [e for e in talk.reported if isinstance(e, RequestReceived | ResponseReceived)]
    (ours,) = [e for e in talk.heard if isinstance(e, our.HeadersReceived)]
    assert text(theirs.headers)[-1] == big[0]
    assert ours.headers[-1] == big[0]


@BOTH
def test_pings_are_answered_both_ways(client: bool) -> None:
    talk = Talk(client=client)
    talk.heard.clear()
    talk.ours.ping(b"konnect\0")
    talk.theirs.ping(b"12345678")
    talk.exchange()

    assert talk.heard == [our.PingReceived(False), our.PingAcknowledged(b"konnect\0")]
    ping, answer = talk.saw(PingReceived), talk.saw(PingAckReceived)
    assert isinstance(ping, PingReceived)
    assert isinstance(answer, PingAckReceived)
    assert (ping.ping_data, answer.ping_data) == (b"konnect\0", b"12345678")


@BOTH
def test_resets_arrive_both_ways(client: bool) -> None:
    talk = Talk(client=client).opened()
    talk.ours.send_data(1, bytes(100_000))
    talk.ours.reset_stream(1, frames.CANCEL)
    talk.exchange()
    reset = talk.saw(StreamReset)
    assert isinstance(reset, StreamReset)
    assert (reset.stream_id, reset.error_code) == (1, ErrorCodes.CANCEL)

    talk = Talk(client=client).opened()
    talk.theirs.reset_stream(1, ErrorCodes.INTERNAL_ERROR)
    talk.exchange()
    assert talk.heard == [our.StreamReset(1, frames.INTERNAL_ERROR, by_peer=True)]


@BOTH
def test_goaway_arrives_both_ways(client: bool) -> None:
    talk = Talk(client=client).opened()
    talk.theirs.close_connection(ErrorCodes.NO_ERROR, additional_data=b"bye")
    talk.we_hear(talk.theirs.data_to_send())
    last_stream_id = 1 if client else 0
    assert talk.heard == [our.GoAwayReceived(last_stream_id, frames.NO_ERROR, b"bye")]

    talk = Talk(client=client).opened()
    talk.ours.go_away(frames.ENHANCE_YOUR_CALM, b"too_many_pings")
    talk.they_hear(talk.ours.data_to_send())
    end = talk.saw(ConnectionTerminated)
    assert isinstance(end, ConnectionTerminated)
    assert end.error_code == ErrorCodes.ENHANCE_YOUR_CALM
    assert end.additional_data == b"too_many_pings"
    assert end.last_stream_id == (0 if client else 1)


@BOTH
def test_a_small_hpack_table_is_respected(client: bool) -> None:
    talk = Talk(client=client, settings={SettingCodes.HEADER_TABLE_SIZE: 60})
    for number in range(1, 20, 2):
        extra = [("agentid", f"agent-{number}"), ("x-other", "y" * 40)]
        if client:
            talk.ours.open_stream([*REQUEST, *extra])
        else:
            talk.theirs.send_headers(number, REQUEST)
            talk.exchange()
            talk.ours.send_headers(number, [*RESPONSE, *extra])
        talk.exchange()
    talk.theirs.update_settings({SettingCodes.HEADER_TABLE_SIZE: 0})
    talk.exchange()
    talk.theirs.update_settings({SettingCodes.HEADER_TABLE_SIZE: 4096})
    talk.exchange()
    if client:
        talk.ours.open_stream(REQUEST)
    else:
        talk.theirs.send_headers(21, REQUEST)
        talk.exchange()
        talk.ours.send_headers(21, RESPONSE)
    talk.exchange()

    heads = [e for e in talk.reported if isinstance(e, RequestReceived | ResponseReceived)]
    assert len(heads) == 11
    assert ("agentid", "agent-19") in text(heads[9].headers)


def test_a_constant_head_tells_of_a_smaller_hpack_table_too() -> None:
    """RFC 7541, 4.2: the first block after the change says so, whatever block that is."""
    talk = Talk(client=False, settings={SettingCodes.HEADER_TABLE_SIZE: 0})
    for stream_id in (1, 3):
        talk.theirs.send_headers(stream_id, REQUEST)
        talk.exchange()
        talk.ours.send_block(stream_id, GRPC_RESPONSE)
        talk.ours.end_stream(stream_id, TRAILERS)
        talk.exchange()

    heads = [e for e in talk.reported if isinstance(e, ResponseReceived)]
    assert [text(head.headers) for head in heads] == [RESPONSE, RESPONSE]


def test_streams_beyond_our_limit_are_not_even_tried() -> None:
    talk = Talk(client=False, limits=Http2Limits(max_streams=3))
    for stream_id in (1, 3, 5):
        talk.theirs.send_headers(stream_id, REQUEST)

    with pytest.raises(ProtocolError):
        talk.theirs.send_headers(7, REQUEST)


@pytest.mark.parametrize(
    "headers",
    [
        [("grpc-status", "0"), *REQUEST],
        [*REQUEST, ("Upper", "x")],
        [*REQUEST, ("connection", "close")],
        [*REQUEST, ("te", "gzip")],
        [field for field in REQUEST if field[0] != ":path"],
        [*REQUEST[:4], REQUEST[0]],
        [(":status", "200"), *REQUEST],
    ],
)
def test_what_h2_refuses_as_malformed_we_refuse_too(headers: Headers) -> None:
    """Their client sends it unchecked; their server is asked for its judgement."""
    config = H2Configuration(
        client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False
    )
    client = H2Connection(config)
    client.initiate_connection()
    client.send_headers(1, headers)
    said = client.data_to_send()
    server = H2Connection(H2Configuration(client_side=False))
    ours = Connection(client=False)

    with pytest.raises(ProtocolError):
        server.receive_data(said)
    last = ours.receive_data(said, 1.0)[-1]

    assert isinstance(last, our.StreamReset)
    assert last.code == frames.PROTOCOL_ERROR


NAMES = st.sampled_from(["ours", "theirs"])
NUMBERS = st.integers(0, 3)


class AnyConversation(RuleBasedStateMachine):
    """Random calls on both sides; neither library may ever find fault with the other."""

    @initialize(
        client=st.booleans(),
        window=st.sampled_from([100, 2000, 70_000]),
        their_window=st.sampled_from([100, 2000, 70_000]),
    )
    def start(self, client: bool, window: int, their_window: int) -> None:
        limits = Http2Limits(
            stream_window=window,
            connection_window=65_535,
            max_frame_size=16_384,
            resets_burst=1 << 20,
            empty_burst=1 << 20,
        )
        self.talk = Talk(
            client=client,
            limits=limits,
            settings={SettingCodes.INITIAL_WINDOW_SIZE: their_window},
        )
        self.client, self.server = ("ours", "theirs") if client else ("theirs", "ours")
        self.most = 10 * min(window, their_window)
        self.sent: dict[str, dict[int, bytes]] = {"ours": {}, "theirs": {}}
        self.ended: set[tuple[str, int]] = set()
        self.cut_off: set[int] = set()

    def may_send(self, name: str, stream_id: int) -> bool:
        """h2 forgives no wrong call, so that it is asked only what is right."""
        if stream_id not in self.sent[name] or (name, stream_id) in self.ended:
            return False
        return stream_id in self.talk.ours.streams if name == "ours" else self.they_know(stream_id)

    def they_know(self, stream_id: int) -> bool:
        stream = self.talk.theirs.streams.get(stream_id)
        return stream is not None and not stream.closed

    @rule()
    def open(self) -> None:
        if self.client == "ours":
            stream_id = self.talk.ours.open_stream(REQUEST)
        else:
            stream_id = self.talk.theirs.get_next_available_stream_id()
            self.talk.theirs.send_headers(stream_id, REQUEST)
        self.sent[self.client][stream_id] = b""

    @rule(number=NUMBERS)
    def answer(self, number: int) -> None:
        stream_id = 2 * number + 1
        if stream_id in self.sent[self.server]:
            return
        if self.server == "ours" and stream_id in self.talk.ours.streams:
            self.talk.ours.send_headers(stream_id, RESPONSE)
        elif self.server == "theirs" and self.they_know(stream_id):
            self.talk.theirs.send_headers(stream_id, RESPONSE)
        else:
            return
        self.sent[self.server][stream_id] = b""

    @rule(name=NAMES, number=NUMBERS, size=st.sampled_from([1, 99, 3000, 40_000]))
    def send(self, name: str, number: int, size: int) -> None:
        stream_id = 2 * number + 1
        if not self.may_send(name, stream_id):
            return
        data = bytes([stream_id]) + bytes(min(size, self.most) - 1)
        if name == "ours":
            self.talk.ours.send_data(stream_id, data)
        else:
            room = self.talk.theirs.local_flow_control_window(stream_id)
            data = data[: max(0, min(room, 16_384))]
            self.talk.theirs.send_data(stream_id, data)
        self.sent[name][stream_id] += data

    @rule(name=NAMES, number=NUMBERS)
    def end(self, name: str, number: int) -> None:
        stream_id = 2 * number + 1
        if not self.may_send(name, stream_id):
            return
        self.ended.add((name, stream_id))
        if name == "ours":
            self.talk.ours.end_stream(stream_id, TRAILERS if name == self.server else None)
        elif name == self.server:
            self.talk.theirs.send_headers(stream_id, TRAILERS, end_stream=True)
        else:
            self.talk.theirs.end_stream(stream_id)
        if name == self.server:
            self.cut_off.add(stream_id)  # the rest of the request is not wanted any more

    @rule(name=NAMES, number=st.integers(0, 1))
    def reset(self, name: str, number: int) -> None:
        stream_id = 2 * number + 1
        if name == "ours":
            self.talk.ours.reset_stream(stream_id, frames.CANCEL)
        elif self.they_know(stream_id):
            self.talk.theirs.reset_stream(stream_id, ErrorCodes.CANCEL)
        self.ended |= {(name, stream_id)}
        self.cut_off.add(stream_id)

    @rule()
    def ping(self) -> None:
        self.talk.theirs.ping(b"12345678")

    @rule(chunk=st.sampled_from([3, 100, 1 << 30]))
    def exchange(self, chunk: int) -> None:
        self.talk.exchange(chunk)

    @invariant()
    def neither_finds_fault(self) -> None:
        talk = self.talk
        assert not talk.ours.closed, talk.heard
        assert not any(isinstance(event, ConnectionTerminated) for event in talk.reported)
        for event in talk.heard:
            assert not isinstance(event, our.StreamReset) or event.by_peer, event

    def teardown(self) -> None:
        self.talk.exchange()
        for sent, received in (
            (self.sent["ours"], self.talk.their_content),
            (self.sent["theirs"], self.talk.content),
        ):
            for stream_id, data in sent.items():
                arrived = received.get(stream_id, b"")
                assert data.startswith(arrived)
                assert arrived == data or stream_id in self.cut_off


AnyConversation.TestCase.settings = settings(
    max_examples=60, stateful_step_count=50, report_multiple_bugs=False
)
TestAnyConversation = AnyConversation.TestCase
