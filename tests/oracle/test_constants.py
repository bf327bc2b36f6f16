"""Our numbers against those of h2 and hyperframe."""

from __future__ import annotations

import pytest
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from h2.windows import LARGEST_FLOW_CONTROL_WINDOW
from hyperframe import frame as hyperframe

from konnectivity.wire import frames


def test_frame_types_are_theirs() -> None:
    theirs = {kind.__name__: number for number, kind in hyperframe.FRAMES.items()}
    del theirs["AltSvcFrame"]  # RFC 7838, which is none of our business

    assert theirs == {
        "DataFrame": frames.DATA,
        "HeadersFrame": frames.HEADERS,
        "PriorityFrame": frames.PRIORITY,
        "RstStreamFrame": frames.RST_STREAM,
        "SettingsFrame": frames.SETTINGS,
        "PushPromiseFrame": frames.PUSH_PROMISE,
        "PingFrame": frames.PING,
        "GoAwayFrame": frames.GOAWAY,
        "WindowUpdateFrame": frames.WINDOW_UPDATE,
        "ContinuationFrame": frames.CONTINUATION,
    }


def test_flags_are_theirs() -> None:
    theirs = {flag.name: flag.bit for flag in hyperframe.HeadersFrame.defined_flags}
    theirs |= {flag.name: flag.bit for flag in hyperframe.PingFrame.defined_flags}

    assert theirs == {
        "END_STREAM": frames.END_STREAM,
        "END_HEADERS": frames.END_HEADERS,
        "PADDED": frames.PADDED,
        "PRIORITY": frames.PRIORITY_FLAG,
        "ACK": frames.ACK,
    }


@pytest.mark.parametrize("code", ErrorCodes, ids=lambda code: code.name)
def test_error_codes_are_theirs(code: ErrorCodes) -> None:
    assert getattr(frames, code.name) == code
    assert frames.error_name(code) == code.name


@pytest.mark.parametrize("code", list(SettingCodes)[:6], ids=lambda code: code.name)
def test_settings_are_theirs(code: SettingCodes) -> None:
    assert getattr(frames, code.name) == code


def test_bounds_are_theirs() -> None:
    assert frames.DEFAULT_FRAME_SIZE == hyperframe.FRAME_MAX_LEN
    assert frames.LARGEST_FRAME_SIZE == hyperframe.FRAME_MAX_ALLOWED_LEN
    assert frames.MAX_WINDOW == LARGEST_FLOW_CONTROL_WINDOW
    assert frames.MAX_STREAM_ID == H2Connection.HIGHEST_ALLOWED_STREAM_ID
    assert H2Connection(None).local_settings.initial_window_size == frames.DEFAULT_WINDOW
