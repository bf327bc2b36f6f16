"""The bucket that counts floods, and the bounds of the limits themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from konnectivity.wire import frames
from konnectivity.wire.limits import Bucket, Http2Limits


def test_a_bucket_gives_its_burst_at_once_and_no_more() -> None:
    bucket = Bucket(3, 1)

    assert [bucket.take(50.0) for _ in range(4)] == [True, True, True, False]


def test_a_bucket_refills_at_its_rate() -> None:
    bucket = Bucket(3, 2)
    for _ in range(3):
        bucket.take(50.0)

    assert [bucket.take(51.0) for _ in range(3)] == [True, True, False]


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    bucket = Bucket(2, 1000)
    bucket.take(50.0)

    assert [bucket.take(5000.0) for _ in range(3)] == [True, True, False]


def test_a_clock_that_stands_still_or_goes_back_refills_nothing() -> None:
    bucket = Bucket(2, 1000)

    assert [bucket.take(now) for now in (50.0, 50.0, 49.0)] == [True, True, False]


@pytest.mark.parametrize(
    "wrong",
    [
        {"stream_window": 0},
        {"stream_window": 2**31},
        {"connection_window": frames.DEFAULT_WINDOW - 1},
        {"connection_window": 2**31},
        {"max_frame_size": frames.DEFAULT_FRAME_SIZE - 1},
        {"max_frame_size": 2**24},
    ],
)
def test_limits_that_http2_cannot_announce_are_a_bug_of_the_caller(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(Http2Limits(), **wrong)


def test_limits_may_go_to_the_bounds_of_http2() -> None:
    Http2Limits(stream_window=1, connection_window=65_535, max_frame_size=16_384)
    Http2Limits(stream_window=2**31 - 1, connection_window=2**31 - 1, max_frame_size=2**24 - 1)
