"""Credit granted to the peer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konnectivity.wire.windows import ReceiveWindow


def test_a_peer_may_use_its_window_to_the_last_byte_and_no_further() -> None:
    window = ReceiveWindow(10)

    assert window.take(10)
    assert not window.take(1)


@pytest.mark.parametrize(("consumed", "increment"), [(4, 0), (5, 5), (10, 10)])
def test_credit_is_announced_once_half_the_window_is_owed(consumed: int, increment: int) -> None:
    window = ReceiveWindow(10)
    window.take(10)

    assert window.consume(consumed) == increment
    assert window.available == increment


def test_a_peer_that_has_not_read_our_settings_is_borne_with() -> None:
    window = ReceiveWindow(10)

    window.allow(100)
    window.allow(50)

    assert window.take(100)
    assert window.consume(100) == 100


def test_a_wider_window_is_wider_for_good() -> None:
    window = ReceiveWindow(10)
    window.take(10)

    window.widen(30)

    assert window.available == 30
    assert window.consume(19) == 0
    assert window.consume(1) == 20


@given(st.integers(1, 1000), st.lists(st.integers(1, 300)))
def test_no_credit_is_lost_or_invented(size: int, wishes: list[int]) -> None:
    window = ReceiveWindow(size)
    sent = granted = 0
    for wish in wishes:
        taken = min(wish, window.available)
        assert window.take(taken)
        sent += taken
        granted += window.consume(taken)
        assert granted <= sent
        assert window.available == size + granted - sent
        assert window.available * 2 > size
