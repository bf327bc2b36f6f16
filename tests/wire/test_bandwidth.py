from __future__ import annotations

from konnectivity.wire.bandwidth import REST, WindowTuner

WINDOW = 1000


def measure(tuner: WindowTuner, *, now: float, trip: float, arrived: int) -> int:
    """Let data flow until a PING is asked for, then answer it after `trip` seconds."""
    while not tuner.received(100, now):
        pass
    tuner.received(arrived, now)
    return tuner.acknowledged(now + trip)


def test_the_window_grows_while_distance_fills_it() -> None:
    tuner = WindowTuner(WINDOW, largest=5000)
    grown = [measure(tuner, now=n, trip=0.05, arrived=tuner.window) for n in range(3)]
    assert grown == [1000, 2000, 1000]
    assert tuner.window == 5000


def test_it_does_not_grow_where_a_queue_fills_it() -> None:
    tuner = WindowTuner(WINDOW, largest=5000)
    assert measure(tuner, now=0, trip=0.001, arrived=10) == 0
    assert measure(tuner, now=1, trip=0.003, arrived=5000) == 0


def test_it_does_not_grow_while_it_is_not_filled() -> None:
    tuner = WindowTuner(WINDOW, largest=5000)
    assert measure(tuner, now=0, trip=0.05, arrived=600) == 0


def test_a_measurement_that_changed_nothing_is_not_repeated_soon() -> None:
    tuner = WindowTuner(WINDOW, largest=5000)
    measure(tuner, now=0, trip=0.05, arrived=0)
    assert not tuner.received(WINDOW * REST - 1, 1)
    assert tuner.received(1, 1)


def test_one_ping_is_under_way_at_a_time_and_none_at_the_largest_window() -> None:
    tuner = WindowTuner(WINDOW, largest=2000)
    assert tuner.received(WINDOW, 0)
    assert not tuner.received(WINDOW, 0)
    assert tuner.acknowledged(0.05) == 1000
    assert not tuner.received(WINDOW * 1000, 1)


def test_an_answer_nobody_asked_for_changes_nothing() -> None:
    assert WindowTuner(WINDOW, largest=2000).acknowledged(1) == 0
