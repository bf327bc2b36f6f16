"""One browser for all tests, a page of its own for each, and the programs of tests/e2e."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest
from tests.e2e.conftest import (  # noqa: F401 - fixtures
    agent_options,
    echoing,
    fakes,
    grpcio_stays,
    http_connect,
    log,
    server_options,
    start_agent,
    start_endpoint,
    start_server,
)
from tests.page.browser import Browser, Page
from tests.page.scenes import Scene

from konnectivity.observe.status import Status

Serve = Callable[[Status], Awaitable[Scene]]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with Browser() as made:
        yield made


@pytest.fixture
async def page(browser: Browser, exits: AsyncExitStack) -> AsyncIterator[Page]:
    """A page that may ask nobody but the program it is from, and complain of nothing.

    It ends before the programs, which `exits` ends.
    """
    async with browser.page() as made:
        yield made
        assert made.complaints == []
        assert {"/".join(each.split("/")[:3]) for each in made.requests} <= {made.origin}


@pytest.fixture
def serve(exits: AsyncExitStack) -> Serve:
    async def start(status: Status) -> Scene:
        return await exits.enter_async_context(Scene(status).served())

    return start
