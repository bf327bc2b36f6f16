"""Cutting bytes into frames: the preface, cut-off frames, sizes."""

from __future__ import annotations

import pytest
from tests.wire.peer import Peer, data_frame, ended, padded

from konnectivity.wire import frames
from konnectivity.wire.events import DataReceived, SettingsReceived, StreamEnded
from konnectivity.wire.foreign import describe
from konnectivity.wire.framing import FrameReader
from konnectivity.wire.http2 import Connection
from konnectivity.wire.limits import Http2Limits

SETTINGS = frames.settings_frame({})


@pytest.mark.parametrize("at", range(1, len(frames.PREFACE) + len(SETTINGS)))
def test_a_preface_may_arrive_in_any_two_parts(at: int) -> None:
    server = Connection(client=False)
    hello = frames.PREFACE + SETTINGS

    events = server.receive_data(hello[:at], 0.0) + server.receive_data(hello[at:], 0.0)

    assert events == [SettingsReceived()]


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS ClientHello
        SETTINGS,
    ],
)
@pytest.mark.parametrize("chunk", [1, 100])
def test_a_client_that_does_not_speak_http2_is_named(first: bytes, chunk: int) -> None:
    server = Connection(client=False)
    server.data_to_send()

    for at in range(0, len(first), chunk):
        events = server.receive_data(first[at : at + chunk], 0.0)
        if events:
            break

    assert ended(events).code == frames.PROTOCOL_ERROR
    assert ended(events).message.startswith("not HTTP/2: the ")


@pytest.mark.parametrize(
    "first", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x28\x00\x00"]
)
def test_a_server_that_does_not_speak_http2_is_named(first: bytes) -> None:
    client = Connection(client=True)

    message = ended(client.receive_data(first, 0.0)).message

    assert message == f"not HTTP/2: {describe(first)}"


@pytest.mark.parametrize("client", [True, False])
@pytest.mark.parametrize(
    "first", [frames.ping_frame(bytes(8)), frames.settings_ack_frame(), data_frame(b"x")]
)
def test_the_first_frame_must_be_settings(first: bytes, client: bool) -> None:
    connection = Connection(client=client)

    events = connection.receive_data((b"" if client else frames.PREFACE) + first, 0.0)

    assert ended(events).code == frames.PROTOCOL_ERROR
    assert "not SETTINGS" in ended(events).message


def test_a_frame_beyond_the_announced_size_is_refused_by_its_header_alone() -> None:
    peer = Peer(limits=Http2Limits(max_frame_size=20_000)).opened()

    assert peer.say(data_frame(bytes(20_000))[:9]) == []
    assert peer.say(data_frame(bytes(20_000))[9:]) != []
    fault = ended(peer.say(data_frame(bytes(20_001))[:9]))

    assert fault.code == frames.FRAME_SIZE_ERROR
    assert fault.message == "a frame of 20001 bytes, the limit is 20000"


def test_a_padded_frame_that_trickles_in_is_kept_once_and_read_once() -> None:
    """A frame of n bytes must not cost n times n, nor its weight in small objects."""
    peer = Peer().opened()
    content = bytes(range(256)) * 1000
    frame = padded(frames.DATA, 0, 1, content, 5)

    for at in range(0, len(frame) - 1, 3):
        assert peer.say(frame[at : at + 3][: len(frame) - 1 - at]) == []
    assert peer.connection._receiver._cut_off.__sizeof__() < 1.3 * len(frame)
    (event,) = peer.say(frame[-1:])

    assert bytes(event.data) == content


@pytest.mark.parametrize("step", [1, 3, 10_000])
def test_content_that_trickles_in_is_passed_on_at_once_and_ends_with_its_last_byte(
    step: int,
) -> None:
    peer = Peer().opened()
    content = bytes(range(256)) * 100
    frame = data_frame(content, end_stream=True)

    arrived = b""
    for at in range(0, len(frame), step):
        for event in peer.say(frame[at : at + step]):
            if isinstance(event, DataReceived):
                arrived += event.data
            else:
                assert event == StreamEnded(1)
                assert at + step >= len(frame)
        assert arrived == content[: max(0, at + step - 9)]
    assert arrived == content


def test_content_of_a_stream_that_is_reset_meanwhile_is_skipped() -> None:
    peer = Peer().opened(1)
    peer.say(peer.head(3))
    frame = data_frame(bytes(100))
    peer.say(frame[:50])
    peer.connection.reset_stream(1, frames.CANCEL)

    (event,) = peer.say(frame[50:] + data_frame(b"next", stream_id=3))

    assert bytes(event.data) == b"next"


def test_a_reader_without_a_meaning_for_frames_is_a_bug() -> None:
    reader = FrameReader(preface=b"", max_frame_size=100)

    with pytest.raises(NotImplementedError):
        reader._parse(SETTINGS)
