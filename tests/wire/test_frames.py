"""Serialisers of frames, against bytes written by hand from RFC 9113."""

from __future__ import annotations

import pytest
from tests.wire.peer import cut

from konnectivity.wire import frames


def test_a_frame_is_nine_bytes_of_header_and_its_payload() -> None:
    data = frames.frame(frames.DATA, frames.END_STREAM, 0x01020304, b"abc")

    assert data == b"\x00\x00\x03\x00\x01\x01\x02\x03\x04abc"


def test_the_length_of_a_frame_has_24_bits() -> None:
    header = frames.frame_header(frames.DATA, 0, 1, 0x123456)

    assert header == b"\x12\x34\x56\x00\x00\x00\x00\x00\x01"


def test_settings_have_six_bytes_an_entry() -> None:
    data = frames.settings_frame({frames.ENABLE_PUSH: 0, frames.INITIAL_WINDOW_SIZE: 1 << 20})

    assert data == (
        b"\x00\x00\x0c\x04\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x04\x00\x10\x00\x00"
    )


def test_control_frames_look_as_the_rfc_draws_them() -> None:
    assert frames.settings_ack_frame() == b"\x00\x00\x00\x04\x01\x00\x00\x00\x00"
    assert frames.ping_frame(b"12345678") == b"\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"
    assert frames.ping_frame(b"12345678", ack=True)[4] == frames.ACK
    assert frames.window_update_frame(3, 5) == (
        b"\x00\x00\x04\x08\x00\x00\x00\x00\x03\x00\x00\x00\x05"
    )
    assert frames.reset_frame(7, frames.CANCEL) == (
        b"\x00\x00\x04\x03\x00\x00\x00\x00\x07\x00\x00\x00\x08"
    )
    assert frames.goaway_frame(9, frames.ENHANCE_YOUR_CALM, b"why") == (
        b"\x00\x00\x0b\x07\x00\x00\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x0bwhy"
    )


@pytest.mark.parametrize("size", [0, 1, 9, 10])
def test_a_header_block_that_fits_is_one_frame(size: int) -> None:
    (frame,) = cut(frames.headers_frames(1, bytes(size), end_stream=True, max_size=10))

    assert frame == (frames.HEADERS, frames.END_STREAM | frames.END_HEADERS, 1, bytes(size))


@pytest.mark.parametrize(("size", "count"), [(11, 2), (20, 2), (21, 3), (35, 4)])
def test_a_longer_header_block_continues(size: int, count: int) -> None:
    block = bytes(range(size))

    first, *others = cut(frames.headers_frames(5, block, end_stream=True, max_size=10))

    assert (first.kind, first.flags) == (frames.HEADERS, frames.END_STREAM)
    assert [other.kind for other in others] == [frames.CONTINUATION] * (count - 1)
    assert [other.flags for other in others] == [0] * (count - 2) + [frames.END_HEADERS]
    assert b"".join(part.payload for part in (first, *others)) == block


def test_error_codes_have_the_names_of_the_rfc() -> None:
    assert frames.error_name(frames.ENHANCE_YOUR_CALM) == "ENHANCE_YOUR_CALM"
    assert frames.error_name(frames.HTTP_1_1_REQUIRED) == "HTTP_1_1_REQUIRED"
    assert frames.error_name(0x1234) == "error code 0x1234"
