"""The page of differences names tests that exist, and every fault that has tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
PAGE = (TESTS.parent / "docs" / "compatibility.md").read_text()
ROWS = re.findall(r"^\| W(\d+): .*$", PAGE, flags=re.MULTILINE)
CITED = re.findall(r"`([\w/]+\.py)`: `(test_w(\d+)_)\*`", PAGE)


@pytest.mark.parametrize(("file", "prefix", "number"), CITED)
def test_the_tests_that_the_page_names_exist(file: str, prefix: str, number: str) -> None:
    assert f"def {prefix}" in (TESTS / file).read_text()
    assert str(int(number)) in ROWS


def test_every_fault_with_a_test_here_has_a_row() -> None:
    sources = [path.read_text() for path in (TESTS / "e2e").glob("test_*.py")]
    tested = {int(number) for text in sources for number in re.findall(r"def test_w(\d+)_", text)}
    assert tested == {int(number) for number in ROWS}
