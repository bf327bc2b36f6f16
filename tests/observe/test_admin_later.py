"""Answers of the admin endpoints that take time, and those without end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest
from tests.peers.admin import connected, get, serving

from konnectivity.observe.route import Answer, Request, Response, Stream, bad_request, get_only

pytestmark = pytest.mark.both_loops


class Slow:
    """A route that answers when it is told to, and knows what became of it."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, request: Request) -> Answer:
        self.asked.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return Response(f"late {request.query}".encode())

    @property
    def route(self) -> object:
        async def answer(request: Request) -> Answer:
            return await self(request)

        return answer


class Numbers:
    """A stream of `count` numbers, each when it is asked for."""

    def __init__(self, count: int, *, size: int = 0, hang: bool = False) -> None:
        self.closed = asyncio.Event()
        self.given = 0
        self._count = count
        self._padding = b"." * size
        self._hang = hang

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self.given == self._count:
            if self._hang:
                await asyncio.Event().wait()
            raise StopAsyncIteration
        self.given += 1
        await asyncio.sleep(0)
        return b"<%d>%s" % (self.given, self._padding)

    async def aclose(self) -> None:
        self.closed.set()

    async def route(self, _request: Request) -> Answer:
        return Stream(self, "text/numbers")


async def passed(event: asyncio.Event) -> None:
    async with asyncio.timeout(5):
        await event.wait()


# Late answers


async def test_requests_behind_a_late_answer_wait_for_it() -> None:
    slow = Slow()
    routes = {"/slow": slow.route, "/fast": lambda _: Response(b"fast")}
    async with serving(routes) as port, connected(port) as client:
        await client.ask("/slow?1")
        await passed(slow.asked)
        await client.ask("/fast")
        await client.ask("/slow?2", "Connection: close")
        await asyncio.sleep(0.05)
        slow.go_on.set()
        bodies = [(await client.answer())[2] for _ in range(3)]
        assert bodies == ["late 1", "fast", "late 2"]
        assert await client.rest() == ""


async def test_a_late_answer_has_longer_than_a_request() -> None:
    slow = Slow()
    async with (
        serving({"/": slow.route}, request_timeout=0.1, idle_timeout=0.1) as port,
        connected(port) as client,
    ):
        await client.ask("/")
        await asyncio.sleep(0.3)
        slow.go_on.set()
        assert (await client.answer())[0] == 200


async def test_a_peer_that_leaves_ends_what_it_asked_for() -> None:
    slow = Slow()
    async with serving({"/": slow.route}) as port, connected(port) as client:
        await client.ask("/")
        await passed(slow.asked)
        client.writer.transport.abort()
        await passed(slow.cancelled)


async def test_a_peer_that_only_says_no_more_gets_its_answer() -> None:
    slow = Slow()
    async with serving({"/": slow.route}) as port, connected(port) as client:
        await client.ask("/?x")
        client.writer.write_eof()
        await passed(slow.asked)
        await asyncio.sleep(0.05)
        slow.go_on.set()
        assert (await client.rest()).endswith("late x")


async def test_closing_the_server_ends_what_is_awaited() -> None:
    slow = Slow()
    async with serving({"/": slow.route}) as port, connected(port) as client:
        await client.ask("/")
        await passed(slow.asked)
    assert slow.cancelled.is_set()


async def test_a_late_route_that_breaks_is_an_internal_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(_request: Request) -> Answer:
        await asyncio.sleep(0)
        raise RuntimeError("broken")

    async with serving({"/": broken}) as port:
        with caplog.at_level(logging.ERROR):
            status, _, body = await get(port, "/")
    assert (status, "RuntimeError" in body) == (500, False)
    assert [record.getMessage() for record in caplog.records] == ["Request failed path=/"]


async def test_requests_that_mean_to_change_something_are_refused() -> None:
    numbers = Numbers(1)
    async with serving({"/": get_only(numbers.route)}) as port:
        status, headers, _ = await get(port, "/", method="POST")
        assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert numbers.given == 0


# Streams


async def test_a_stream_is_chunked_and_the_connection_serves_on() -> None:
    numbers = Numbers(3)
    routes = {"/": numbers.route, "/healthz": lambda _: Response(b"ok")}
    async with serving(routes) as port, connected(port) as client:
        await client.ask("/")
        head = await client.until("\r\n\r\n")
        assert "Content-Type: text/numbers" in head
        assert "Transfer-Encoding: chunked" in head
        assert await client.until("0\r\n\r\n") == "3\r\n<1>\r\n3\r\n<2>\r\n3\r\n<3>\r\n0\r\n\r\n"
        assert numbers.closed.is_set()
        await client.ask("/healthz")
        assert (await client.answer())[2] == "ok"


async def test_a_stream_to_an_old_client_ends_with_the_connection() -> None:
    async with serving({"/": Numbers(3).route}) as port, connected(port) as client:
        await client.ask("/", version="1.0")
        assert (await client.rest()).partition("\r\n\r\n")[2] == "<1><2><3>"


async def test_head_of_a_stream_takes_nothing_from_it() -> None:
    numbers = Numbers(3)
    async with serving({"/": numbers.route}) as port, connected(port) as client:
        await client.ask("/", method="HEAD")
        await client.until("\r\n\r\n")
        await passed(numbers.closed)
        assert numbers.given == 0


@pytest.mark.parametrize("rudely", [True, False])
async def test_a_reader_that_leaves_ends_its_stream(rudely: bool) -> None:
    numbers = Numbers(2, hang=True)
    async with serving({"/": numbers.route}) as port, connected(port) as client:
        await client.ask("/")
        await client.until("<2>")
        client.writer.transport.abort() if rudely else client.writer.write_eof()
        await passed(numbers.closed)


async def test_a_reader_that_does_not_read_is_cut() -> None:
    numbers = Numbers(10_000, size=1 << 16)
    async with (
        serving({"/": numbers.route}, write_timeout=0.3) as port,
        connected(port, limit=1024) as client,
    ):
        await client.ask("/")
        await client.until("<1>")
        await passed(numbers.closed)
        assert numbers.given < 1000  # what buffers hold, of 10 000


async def test_a_reader_that_pauses_for_less_gets_all() -> None:
    numbers = Numbers(200, size=1 << 16)
    async with (
        serving({"/": numbers.route}, write_timeout=2) as port,
        connected(port, limit=1024) as client,
    ):
        await client.ask("/", "Connection: close")
        await client.until("<1>")
        await asyncio.sleep(0.3)
        assert numbers.given < 200
        assert "<200>" in await client.rest()


async def test_what_a_reader_sends_meanwhile_is_not_kept() -> None:
    numbers = Numbers(1, hang=True)
    async with serving({"/": numbers.route}) as port, connected(port) as client:
        await client.ask("/")
        await client.until("<1>")
        client.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000_000)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.writer.drain(), 0.5)
        client.writer.transport.abort()


async def test_a_stream_that_breaks_is_not_ended_as_if_it_were_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Numbers):
        async def __anext__(self) -> bytes:
            if self.given == 1:
                raise RuntimeError("broken")
            return await super().__anext__()

    async with serving({"/": Broken(5).route}) as port, connected(port) as client:
        await client.ask("/")
        await client.until("<1>\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert "0\r\n" not in await client.rest()
    assert [record.getMessage() for record in caplog.records] == ["Answer failed path=/"]


async def test_closing_the_server_ends_streams() -> None:
    numbers = Numbers(1, hang=True)
    async with serving({"/": numbers.route}) as port, connected(port) as client:
        await client.ask("/")
        await client.until("<1>")
    assert numbers.closed.is_set()


# Queries


@pytest.mark.parametrize(
    ("query", "number"), [("", 7), ("n=", 7), ("n=3", 3), ("n=99", 10), ("n=1&n=2", 2), ("m=3", 7)]
)
def test_a_number_of_the_query_is_cut_to_its_bounds(query: str, number: int) -> None:
    request = Request("GET", "/", query, {})
    assert request.number("n", default=7, least=1, most=10) == number


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5", "²", "9" * 30])
def test_what_is_no_such_number_is_an_error_for_the_peer(text: str) -> None:
    with pytest.raises(ValueError, match=r"^n must be a number of 1 or more$") as caught:
        Request("GET", "/", f"n={text}", {}).number("n", default=7, least=1, most=10)
    assert bad_request(str(caught.value)).status == 400
