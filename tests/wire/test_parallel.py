"""The number of connections that an agent asks for, and what a server makes of it."""

from __future__ import annotations

import pytest

from konnectivity.wire import parallel


@pytest.mark.parametrize(
    ("values", "number"),
    [
        ([], 1),
        (["1"], 1),
        (["3"], 3),
        (["16"], 16),
        (["17"], 16),
        (["99"], 16),
        (["0"], 1),
        (["-3"], 1),
        (["three"], 1),
        (["³"], 1),
        (["1" * 5000], 1),
        ([""], 1),
        (["3", "4"], 1),
    ],
)
def test_numbers_are_bounded_and_nonsense_is_one(values: list[str], number: int) -> None:
    assert parallel.decode(values) == number
