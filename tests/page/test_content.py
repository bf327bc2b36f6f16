"""What the tables show: many rows, what is wrong first, and names that mean harm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.page.browser import Page
from tests.page.conftest import Serve
from tests.page.reading import cells, column, rows, says
from tests.page.scenes import PROGRAM, agent, certificate, failure, server, tunnel

from konnectivity.observe.status import Time, Traffic, TunnelCounts

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>document.title='taken'</script>",
    "\u202egnihtemos\u2066 \u200b\x00\x1b[31m\r\n",
    "javascript:alert(1)",
    "\ud800 lone",
    "é́́́́́́́́́́́́́́́",
    "${7*7}{{7*7}}",
    "n" * 65_536,
)


async def test_names_are_text_whatever_is_in_them(serve: Serve, page: Page) -> None:
    status = server()
    status = replace(
        status,
        server=replace(status.server, id=HOSTILE[0], ready=False, unready=HOSTILE[1]),
        agents=tuple(
            agent(number, id=each, version=each[:64], identifiers={each[:100]: (each,)})
            for number, each in enumerate(HOSTILE)
        ),
        tunnels=tuple(
            tunnel(number, destination=each, peer=each, mode=each, frontend=each)
            for number, each in enumerate(HOSTILE)
        ),
        dials=replace(
            status.dials,
            failed=dict.fromkeys(HOSTILE, 1),
            recent_failures=tuple(
                failure(number, destination=each, peer=each, error=each, result=each)
                for number, each in enumerate(HOSTILE)
            ),
        ),
    )
    scene = await serve(status)
    for each in HOSTILE:
        scene.events.publish(
            "agent_disconnected", agent=each + "2", address=each, cause=each, tunnels=1, seconds=1.0
        )
    await page.open(scene.address)
    await page.until(f"{rows('peers', 2 * len(HOSTILE))} && {rows('failures', len(HOSTILE))}")
    assert (
        await page.run("document.querySelectorAll('img, a[href^=javascript], iframe').length") == 0
    )
    assert await page.run("document.scripts.length") == 1
    assert "taken" not in await page.run("document.title")
    text = await page.run("document.body.textContent")
    assert HOSTILE[0] in text
    assert not set("\u202e\u2066\u200b\x00\x1b") & set(text)
    assert "\\u{202e}gnihtemos" in text
    # Nothing is wider than its cell may be, and the window not wider than it is.
    assert await page.run(
        "Math.max(...[...document.querySelectorAll('bdi')].map((each) => each.textContent.length))"
        " <= 1200"
    )
    assert await page.run("document.documentElement.scrollWidth <= window.innerWidth")


async def test_a_long_name_is_shown_whole_on_demand(serve: Serve, page: Page) -> None:
    name = "x" * 65_000 + "\x1b<end>"
    scene = await serve(replace(server(), agents=(agent(1, id=name),)))
    await page.open(scene.address)
    await page.until(rows("peers", 1))
    assert len((await column(page, "peers"))[0]) < 40
    await page.run("document.querySelector('#peers .more').focus()")
    await page.press("Enter", 13, text="\r")
    await page.until("document.querySelector('#whole').open")
    shown = await page.run("document.querySelector('#whole pre').textContent")
    assert shown == name.replace("\x1b", "\\u{1b}")
    await page.press("Escape", 27)
    await page.until("!document.querySelector('#whole').open")
    assert "show all" in await page.run("document.activeElement.ariaLabel")


# Many agents, and what is worth a look


async def fill(page: Page, section: str, text: str) -> None:
    await page.run(f"document.querySelector('#{section} input').focus()")
    await page.type(text)


async def test_a_thousand_agents_come_in_pages_and_are_found(serve: Serve, page: Page) -> None:
    scene = await serve(server(1000, tunnels=1000))
    await page.open(scene.address)
    await page.until(says("#peers .count", "1\u201320 of 1\u202f000 agents"))
    assert await page.run("document.querySelectorAll('tbody tr').length") < 100
    await page.run("document.querySelector('#peers nav button:last-child').click()")
    await page.until(says("#peers .count", "21\u201340 of 1\u202f000 agents"))
    await fill(page, "peers", "NODE-0731")
    await page.until(rows("peers", 1))
    assert await column(page, "peers") == ["node-0731"]
    assert await page.run("document.querySelector('#announcer').textContent") == "1 agent found"
    await page.type(" no such")
    await page.until(says("#peers tbody", "none matches the filter"))


def numbers(texts: list[str]) -> list[int]:
    return [int(text.replace("\u202f", "")) for text in texts]


async def test_tables_are_sorted_by_any_column_both_ways(serve: Serve, page: Page) -> None:
    made = [agent(each, tunnels=TunnelCounts(open=each * 37 % 100)) for each in range(100)]
    scene = await serve(replace(server(), agents=tuple(made)))
    await page.open(scene.address)
    await page.until(rows("peers", 20))
    button = "document.querySelectorAll('#peers thead button')[2]"
    await page.run(f"{button}.click()")
    assert numbers(await column(page, "peers", 2)) == list(range(99, 79, -1))
    assert await page.run(f"{button}.parentNode.ariaSort") == "descending"
    await page.run(f"{button}.click()")
    assert numbers(await column(page, "peers", 2)) == list(range(20))
    assert await page.run(f"{button}.parentNode.ariaSort") == "ascending"


async def test_what_is_wrong_comes_first_and_in_words(serve: Serve, page: Page) -> None:
    status = server(40)
    now = status.generated_at
    expired, expiring, draining, slow, failing = 7, 13, 21, 29, 33
    changed: dict[int, dict[str, Any]] = {
        expired: {
            "certificate": replace(status.agents[0].certificate, not_after=Time(now - 90_000))
        },
        expiring: {
            "certificate": replace(status.agents[0].certificate, not_after=Time(now + 90_000))
        },
        draining: {"draining": True},
        slow: {"round_trip": 2.5},
    }
    agents = [agent(each, **changed.get(each, {})) for each in range(40)]
    failed = failure(0, peer=agents[failing].id)
    scene = await serve(
        replace(
            status, agents=tuple(agents), dials=replace(status.dials, recent_failures=(failed,))
        )
    )
    scene.events.publish(
        "agent_disconnected",
        agent="node-gone",
        address="10.9.9.9:1",
        version="1.0.0",
        cause="connection reset by peer",
        tunnels=2,
        seconds=60.0,
    )
    await page.open(scene.address)
    await page.until(f"{rows('peers', 20)} && {says('#peers tbody', 'node-gone')}")
    found = {row[0]: row[1] for row in await cells(page, "peers")}
    first = list(found)[:6]
    assert set(first[:2]) == {"node-gone", agents[expired].id}
    assert set(first[2:5]) == {agents[each].id for each in (expiring, slow, failing)}
    assert first[5] == agents[draining].id
    assert found[agents[expired].id] == "✕ certificate expired 25 h ago"
    assert found[agents[expiring].id] == "▲ certificate expires in 24 h"
    assert found[agents[slow].id] == "▲ round trip 2.5 s"
    assert found[agents[failing].id] == "▲ 1 dial failed lately"
    assert found[agents[draining].id] == "◇ draining"
    assert "connection reset by peer" in found["node-gone"]
    assert found[list(found)[6]] == "● ok"


async def test_a_certificate_that_is_not_the_one_on_the_disk_is_told(
    serve: Serve, page: Page
) -> None:
    files = (
        certificate("a", 90),
        certificate("b", 90, disk_fingerprint_sha256="0" * 64),
        certificate("c", 90, disk_fingerprint_sha256=None, disk_not_after=None),
        certificate("d", 90, error="the key does not belong to the certificate"),
        certificate("e", 2.99),
    )
    scene = await serve(replace(server(), server=replace(PROGRAM, certificates=files)))
    await page.open(scene.address)
    await page.until(rows("certificates", 5))
    assert await column(page, "certificates", 1) == [
        "● ok",
        "▲ on disk: another one",
        "▲ on disk: none",
        "✕ on disk: the key does not belong to the certificate",
        "▲ expires in 2 d",
    ]


async def test_rates_are_what_came_between_two_looks(serve: Serve, page: Page) -> None:
    status = server(2, tunnels=1)
    scene = await serve(status)
    await page.open(scene.address)
    await page.until(rows("peers", 2))
    assert await column(page, "peers", 3) == ["\u2013", "\u2013"]
    more = replace(status.agents[1], traffic=Traffic(status.agents[1].traffic.up, 10**10))
    scene.change(replace(status, agents=(status.agents[0], more)))
    await page.until(
        "document.querySelectorAll('#peers tbody tr')[1].children[3].textContent !== '\u2013'"
    )
    assert (await column(page, "peers", 3))[0] == "\u2013"
    assert (await column(page, "peers", 3))[1].endswith("B/s")
    await page.until("document.querySelector('#traffic path.line').getAttribute('d').length > 3")
    label = await page.run("document.querySelector('#traffic svg').getAttribute('aria-label')")
    assert label.startswith("Traffic in the last five minutes: down ")
