"""What is on the page, and conditions to wait for."""

from __future__ import annotations

import json

from tests.page.browser import Page

CELLS = """
[...document.querySelectorAll('#%s tbody tr')].map(
  (row) => [...row.children].map((cell) => cell.textContent))
"""


async def cells(page: Page, section: str) -> list[list[str]]:
    """The texts of a table, by row."""
    return list(await page.run(CELLS % section))


async def column(page: Page, section: str, number: int = 0) -> list[str]:
    return [row[number] for row in await cells(page, section)]


def rows(section: str, number: int) -> str:
    """The condition that a table has so many rows with content."""
    return f"document.querySelectorAll('#{section} tbody th').length === {number}"


def says(selector: str, text: str) -> str:
    return f"document.querySelector('{selector}')?.textContent.includes({json.dumps(text)})"
