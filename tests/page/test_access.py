"""The page for whoever does not look, has no mouse, a small window, or paper."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.page.browser import Page
from tests.page.conftest import Serve
from tests.page.reading import cells, column, rows, says
from tests.page.scenes import server


async def tree(page: Page) -> list[dict[str, Any]]:
    return list((await page.call("Accessibility.getFullAXTree"))["nodes"])


async def test_everything_that_can_be_used_has_a_name(serve: Serve, page: Page) -> None:
    scene = await serve(server(30, tunnels=30, failures=30))
    await page.open(scene.address)
    await page.until(rows("failures", 20))
    nodes = [each for each in await tree(page) if not each["ignored"]]
    named = {
        role: [each["name"]["value"] for each in nodes if each["role"]["value"] == role]
        for role in ("button", "searchbox", "table", "image", "region", "link", "status")
    }
    assert len(named["searchbox"]) == 3
    assert len(named["table"]) == 6
    assert len(named["image"]) == 2
    assert all(name for role, names in named.items() if role != "status" for name in names)
    heads = [each for each in nodes if each["role"]["value"] == "columnheader"]
    assert len(heads) == await page.run("document.querySelectorAll('thead th').length")


async def test_the_page_is_walked_with_the_keyboard_alone(serve: Serve, page: Page) -> None:
    scene = await serve(server(30))
    await page.open(scene.address)
    await page.until(rows("peers", 20))
    seen = []
    for _ in range(8):
        await page.press("Tab", 9)
        seen.append(
            await page.run(
                "(document.activeElement.ariaLabel || document.activeElement.textContent).trim()"
            )
        )
        assert await page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert seen[:2] == ["Skip to the list", "Pause"]
    assert "Filter agents" in seen
    assert "Next page" in seen


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_stands_out_by_day_and_by_night(scheme: str, serve: Serve, page: Page) -> None:
    scene = await serve(server(30, tunnels=5, failures=3))
    await page.look(width=1280, height=900, scheme=scheme)
    await page.open(scene.address)
    await page.until(rows("failures", 3))
    contrasts = await page.run(CONTRASTS)
    assert len(contrasts) > 6
    # Source: WCAG 2.2, 1.4.3.
    assert {pair: ratio for pair, ratio in contrasts.items() if ratio < 4.5} == {}


CONTRASTS = """
(() => {
  const light = (text) => {
    const parts = text.match(/[\\d.]+/g).slice(0, 3).map((each) => each / 255)
      .map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4));
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const ground = (each) => {
    const found = getComputedStyle(each).backgroundColor;
    return found === 'rgba(0, 0, 0, 0)' && each.parentElement ? ground(each.parentElement) : found;
  };
  const found = {};
  for (const each of document.querySelectorAll('body *')) {
    const own = [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || each.disabled || each.closest('svg') || !each.checkVisibility()) continue;
    const [ink, paper] = [getComputedStyle(each).color, ground(each)];
    const [one, other] = [light(ink), light(paper)].sort((a, b) => b - a);
    found[`${ink} on ${paper}`] = (one + 0.05) / (other + 0.05);
  }
  return found;
})()
"""


async def test_a_phone_shows_it_without_scrolling_sideways(serve: Serve, page: Page) -> None:
    scene = await serve(server(30, tunnels=5, failures=3))
    await page.look(width=400, height=800)
    await page.open(scene.address)
    await page.until(rows("failures", 3))
    assert await page.run("document.documentElement.scrollWidth") <= 400
    assert await page.run(
        "[...document.querySelectorAll('.scroll')].every((each) => each.tabIndex === 0)"
    )


async def test_paper_shows_all_rows(serve: Serve, page: Page) -> None:
    scene = await serve(server(45))
    await page.open(scene.address)
    await page.until(rows("peers", 20))
    await page.run("window.dispatchEvent(new Event('beforeprint'))")
    assert len(await cells(page, "peers")) == 45
    await page.run("window.dispatchEvent(new Event('afterprint'))")
    assert len(await cells(page, "peers")) == 20


async def test_rows_do_not_move_under_the_focus(serve: Serve, page: Page) -> None:
    status = server(5)
    named = tuple(replace(each, id=each.id + "x" * 60) for each in status.agents)
    scene = await serve(replace(status, agents=named))
    await page.open(scene.address)
    await page.until(rows("peers", 5))
    await page.run("document.querySelectorAll('#peers .more')[2].focus()")
    scene.change(replace(status, agents=(*named[:4], replace(named[4], draining=True))))
    await page.until(says("#peers tbody", "draining"))
    assert "draining" in (await column(page, "peers", 1))[4]
    await page.run("document.activeElement.blur()")
    scene.change(scene.status)
    await page.until("document.querySelector('#peers tbody td').textContent.includes('draining')")


async def test_text_cannot_become_markup_even_by_mistake(serve: Serve, page: Page) -> None:
    scene = await serve(server(1))
    await page.open(scene.address)
    await page.until(rows("peers", 1))
    attempt = """
    (() => { try { document.body.innerHTML = '<b>x</b>'; } catch (error) { return error.name; } })()
    """
    assert await page.run(attempt) == "TypeError"
    assert any("TrustedHTML" in each for each in page.complaints)
    page.complaints.clear()
