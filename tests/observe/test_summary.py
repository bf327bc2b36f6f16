"""Repeats are counted, and told of when their interval is over."""

import asyncio

from konnectivity.observe.summary import MAX_KEYS, Series, Summary


class Told:
    """What a test's series told; the clock of the summary is turned by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.summary = Summary(lambda: self.now)

    def occurred(self, key: str, *, every: float = 60.0, default: str = "others") -> bool:
        series = self.summary.first(key, default, every)
        if isinstance(series, Series):
            series.tell = lambda count, seconds: self.lines.append(f"{key} {count} {seconds:g}")
        return series is not None


def test_the_first_of_each_key_is_told_and_repeats_are_not() -> None:
    told = Told()
    assert [told.occurred(key) for key in ("a", "a", "b", "b", "a")] == [
        True,
        False,
        True,
        False,
        False,
    ]
    assert told.lines == []


def test_without_a_loop_the_next_occurrence_after_the_interval_tells() -> None:
    told = Told()
    told.occurred("a")
    told.occurred("a")
    told.now = 59.9
    assert not told.occurred("a")
    told.now = 70.0
    assert told.occurred("a")
    assert told.lines == ["a 2 70"]


async def test_the_loop_tells_of_repeats_by_itself_and_again() -> None:
    told = Told()
    told.occurred("a", every=0.05)
    told.occurred("a", every=0.05)
    told.now = 0.05
    await asyncio.sleep(0.07)
    assert told.lines == ["a 1 0.05"]
    for _ in range(3):
        assert not told.occurred("a", every=0.05)
    told.now = 0.11
    await asyncio.sleep(0.05)
    assert told.lines == ["a 1 0.05", "a 3 0.06"]


async def test_after_an_interval_without_repeats_the_next_one_is_a_first() -> None:
    told = Told()
    told.occurred("a", every=0.02)
    await asyncio.sleep(0.05)
    assert told.occurred("a", every=0.02)
    assert told.lines == []
    told.summary.flush()


async def test_flushing_tells_what_was_counted_and_ends_the_timers() -> None:
    told = Told()
    told.occurred("a", every=0.02)
    told.occurred("a", every=0.02)
    told.occurred("b", every=0.02)
    told.now = 5.0
    told.summary.flush()
    assert told.lines == ["a 1 5"]
    await asyncio.sleep(0.04)
    assert told.lines == ["a 1 5"]
    assert told.occurred("a", every=0.02)
    told.summary.flush()


def test_a_series_of_a_loop_that_is_closed_is_over() -> None:
    told = Told()

    async def occur() -> bool:
        return told.occurred("a")

    assert asyncio.run(occur())
    assert asyncio.run(occur())
    assert told.occurred("a")


def test_beyond_so_many_keys_the_default_takes_their_place() -> None:
    told = Told()
    for number in range(MAX_KEYS):
        assert told.occurred(f"key {number}")
    assert told.occurred("one more")
    assert not told.occurred("another")
    assert not told.occurred("key 0")
    told.now = 61.0
    assert told.occurred("yet another")
    assert told.lines == ["one more 1 61"]
