"""The page in a real browser: it shows what the API says as it happens, to whom it may."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.e2e.conftest import StartAgent, StartServer, until
from tests.page.browser import Page
from tests.page.conftest import Serve
from tests.page.reading import cells, column, rows, says
from tests.page.scenes import Scene, server
from tests.peers.admin import agent_status, get, server_status, serving
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ConnectClient, ping

from konnectivity.observe.api import api
from konnectivity.observe.events import Events
from konnectivity.observe.page import FILES
from konnectivity.observe.page import page as files
from konnectivity.observe.route import JSON, Request, Response

# A server and agents as they are


async def test_what_is_on_the_page_is_what_the_api_says(
    start_server: StartServer,
    start_agent: StartAgent,
    echoing: Endpoint,
    http_connect: ConnectClient,
    exits: AsyncExitStack,
    page: Page,
) -> None:
    running = await start_server()
    for number in (1, 2):
        await start_agent(
            agent_id=f"agent-{number}",
            agent_identifiers=f"host=node-{number}",
            health_server_port=0,
            admin_server_port=0,
        )
    await until(lambda: len(running.exchange.backends) == 2)
    held = [await http_connect.dial(echoing.address) for _ in range(3)]
    for each in held:
        await ping(each, b"12345")
    await page.open(f"http://127.0.0.1:{running.options.admin_port}/")
    await page.until(f"{rows('peers', 2)} && {rows('tunnels', 3)}")
    status = await server_status(running)
    assert await page.run("document.querySelector('#id').textContent") == status.server.id
    shown = {row[0]: row for row in await cells(page, "peers")}
    assert shown.keys() == {each.id for each in status.agents}
    for each in status.agents:
        row = shown[each.id]
        assert row[2] == str(each.tunnels.open)
        assert row[6] == f"{each.dials_failed} of {each.dials}"
        assert each.version in row
        assert each.address in row
        assert f"host={each.identifiers['host'][0]}" in row
    tunnels = await cells(page, "tunnels")
    assert [(row[0], row[1], row[2], row[8]) for row in tunnels] == [
        (each.destination, each.peer, each.state, each.mode) for each in status.tunnels
    ]
    assert {row[6] for row in tunnels} == {"5 B"}
    assert await column(page, "certificates") == [
        f"--{each.name}" for each in status.server.certificates
    ]
    assert len(await cells(page, "limits")) == len(status.server.limits)
    assert [(row[0], row[1]) for row in await cells(page, "listeners")] == [
        (each.name, each.address) for each in status.server.listeners
    ]


async def test_changes_are_shown_as_they_happen(
    start_server: StartServer,
    start_agent: StartAgent,
    echoing: Endpoint,
    http_connect: ConnectClient,
    page: Page,
) -> None:
    running = await start_server()
    await page.open(f"http://127.0.0.1:{running.options.admin_port}/")
    await page.until(says("#unready", "no connection to any proxy agent"))
    agent = await start_agent()
    await page.until(f"{rows('peers', 1)} && {says('#events', 'agent connected')}")
    await page.until("document.querySelector('#unready').hidden")
    held = await http_connect.dial(echoing.address)
    await page.until(rows("tunnels", 1))
    await held.close()
    await page.until(rows("tunnels", 0))
    await agent.stop()
    await page.until(says("#peers tbody", "gone since"))
    assert (await column(page, "peers"))[0] == "agent-1"
    assert "agent disconnected" in await page.run("document.querySelector('#events').textContent")


async def test_an_agent_has_the_same_page_of_its_servers(
    start_server: StartServer, start_agent: StartAgent, page: Page
) -> None:
    await start_server()
    running = await start_agent()
    await page.open(f"http://127.0.0.1:{running.options.admin_server_port}/")
    await page.until(rows("peers", 1))
    (found,) = (await agent_status(running)).servers
    assert await column(page, "peers") == [found.id]
    assert await page.run("document.querySelector('#peers h2').textContent") == "Servers"
    assert await page.run("document.querySelector('#role').textContent") == "Konnectivity agent"


# Who may see it


@pytest.fixture
def tokens(tmp_path: Path) -> str:
    path = tmp_path / "tokens"
    path.write_text("s3cret\n")
    return str(path)


async def submit(page: Page, token: str) -> None:
    await page.run("document.querySelector('#token').focus()")
    await page.type(token)
    await page.press("Enter", 13, text="\r")


async def test_a_token_is_asked_for_and_kept_for_the_tab(
    start_server: StartServer, tokens: str, page: Page
) -> None:
    running = await start_server(admin_token_file=tokens)
    await page.open(f"http://127.0.0.1:{running.options.admin_port}/")
    await page.until("document.querySelector('#ask').open")
    await submit(page, "wrong")
    await page.until(says("#ask-problem", "was refused"))
    await submit(page, "s3cret")
    await page.until("!document.querySelector('#ask').open && " + says("#link", "live"))
    await page.until("!document.querySelector('#forget').hidden")
    await page.open(f"http://127.0.0.1:{running.options.admin_port}/")
    await page.until(says("#link", "live"))
    assert not await page.run("document.querySelector('#ask').open")
    assert await page.run("[localStorage.length, document.cookie]") == [0, ""]
    await page.run("document.querySelector('#forget').click()")
    await page.until("document.querySelector('#ask').open")
    # The browser itself remarks on each answer with status 401, and on nothing else.
    assert all("401" in each for each in page.complaints)
    page.complaints.clear()


async def test_without_a_token_there_is_the_page_and_nothing_else(
    start_server: StartServer, tokens: str
) -> None:
    running = await start_server(admin_token_file=tokens)
    port = running.options.admin_port
    for path in FILES:
        assert (await get(port, path))[0] == 200
    for path in ("/api/v1/status", "/api/v1/events", "/metrics", "/other", "//", "/page.js/"):
        assert (await get(port, path))[0] == 401


async def test_the_page_is_for_reading_and_lets_nothing_else_in(start_server: StartServer) -> None:
    port = (await start_server()).options.admin_port
    for path, response in FILES.items():
        status, headers, body = await get(port, path)
        assert (status, body.encode()) == (200, response.body)
        assert headers["content-type"] == response.content_type
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    assert (await get(port, "/", method="POST"))[0] == 405
    assert (await get(port, "/", "Content-Length: 0", method="DELETE"))[0] == 405


# When it goes wrong


async def test_a_lost_connection_is_said_and_comes_back(serve: Serve, page: Page) -> None:
    scene = await serve(server(3))
    await page.open(scene.address)
    await page.until(rows("peers", 3))
    await page.call(
        "Network.emulateNetworkConditions",
        offline=True,
        latency=0,
        downloadThroughput=-1,
        uploadThroughput=-1,
    )
    await page.until(f"{says('#link', 'connection lost')} && {says('#as-of', 'data as of')}")
    assert len(await cells(page, "peers")) == 3
    await page.call(
        "Network.emulateNetworkConditions",
        offline=False,
        latency=0,
        downloadThroughput=-1,
        uploadThroughput=-1,
    )
    await page.until(says("#link", "live"))
    assert all("ERR_INTERNET_DISCONNECTED" in each for each in page.complaints)
    page.complaints.clear()


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b'{"apiVersion":"v1","server":{"id":"s', "the answer is not whole"),
        (b'{"apiVersion":"v9","kind":"Other"}', "the answer is not understood"),
        (b'{"apiVersion":"v1","server":{"id":"x"},"agents":[]}', "the answer is not understood"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_said_to(
    body: bytes, cause: str, exits: AsyncExitStack, page: Page
) -> None:
    def answer(_: Request) -> Response:
        return Response(body, content_type=JSON)

    routes = files() | api(Scene(server()).take, Events()) | {"/api/v1/status": answer}
    port = await exits.enter_async_context(serving(routes))
    await page.open(f"http://127.0.0.1:{port}/")
    await page.until(says("#link", f"connection lost: {cause}"))


async def test_without_a_place_among_the_readers_of_events_it_is_live_all_the_same(
    exits: AsyncExitStack, page: Page
) -> None:
    scene = await exits.enter_async_context(Scene(server(2), Events(readers=0)).served())
    await page.open(scene.address)
    await page.until(f"{rows('peers', 2)} && {says('#link', 'live: no events: 0 readers')}")
    scene.status = server(3)
    await page.until(rows("peers", 3))
    assert all("503" in each for each in page.complaints)
    page.complaints.clear()


async def test_who_reads_can_have_it_stand_still(serve: Serve, page: Page) -> None:
    scene = await serve(server(1))
    await page.open(scene.address)
    await page.until(rows("peers", 1))
    await page.run("document.querySelector('#pause').click()")
    await page.until(says("#link", "paused"))
    scene.status = server(5)
    scene.events.publish("agent_connected", agent="node-0004", address="10.0.0.7:1", version="")
    await asyncio.sleep(0.5)  # long enough for it to be shown by mistake
    assert len(await cells(page, "peers")) == 1
    await page.run("document.querySelector('#pause').click()")
    await page.until(f"{rows('peers', 5)} && {says('#events', 'node-0004')}")
