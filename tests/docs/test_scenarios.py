"""Every case of upstream's test suites has a test of ours that names it, or a reason why not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/scenarios.md").read_text()
ROWS = re.findall(r"^\| (\d+) \| ([^|]+) \|([^|]*)\|$", PAGE, flags=re.MULTILINE)
NAMED = re.compile(r"\bScenarios? (\d+(?:(?:,? and |, | to )\d+)*)")
LAST = 101
TEST = (ast.FunctionDef, ast.AsyncFunctionDef)


def numbers(text: str) -> Iterator[int]:
    """The numbers that a docstring names: `Scenario 1`, `Scenarios 1, 2 and 4 to 6`."""
    for listed in NAMED.findall(text):
        for part in re.split(r",? and |, ", listed):
            first, _, last = part.partition(" to ")
            yield from range(int(first), int(last or first) + 1)


def docstrings() -> Iterator[str]:
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, TEST) and node.name.startswith("test_"):
                yield ast.get_docstring(node) or ""


def test_numbers_are_read_from_text() -> None:
    text = "Scenario 3. Scenarios 5, 7 to 9, and 12: odd ones. Scenarios 20 and 22."
    assert list(numbers(text)) == [3, 5, 7, 8, 9, 12, 20, 22]


def test_the_page_has_every_case_once() -> None:
    assert [int(number) for number, _, _ in ROWS] == list(range(1, LAST + 1))


def test_each_case_is_named_by_a_test_or_the_page_says_why_not() -> None:
    tested = {number for text in docstrings() for number in numbers(text)}
    reasons = {int(number) for number, _, reason in ROWS if reason.strip()}
    assert tested <= set(range(1, LAST + 1))
    missing = set(range(1, LAST + 1)) - tested
    assert missing == reasons
