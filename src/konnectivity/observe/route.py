"""What a route of the admin endpoints gets and what it gives: at once, later, or bit by bit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import parse_qs

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Request:
    """A request's head. `path` is percent-decoded, `query` as sent."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]  # names in lower case; of repeated ones the last

    @property
    def host(self) -> str:
        """The `Host` header, with its port if it has one."""
        return self.headers.get("host", "")

    def asks(self, name: str) -> bool:
        """Whether the query has a parameter `name`, with a value or without."""
        return any(part.partition("=")[0] == name for part in self.query.split("&"))

    def value(self, name: str) -> str:
        """The last value of the query's parameter `name`, decoded; empty without one."""
        return parse_qs(self.query).get(name, [""])[-1]

    def number(self, name: str, *, default: int, least: int, most: int) -> int:
        """The parameter `name` as a number between bounds, to which larger ones are cut.

        Raises:
            ValueError: it is there and no such number; the text is for the peer.
        """
        text = self.value(name)
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) >= least):
            raise ValueError(f"{name} must be a number of {least} or more")
        return min(int(text), most)


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer; `location` makes it a redirect."""

    body: bytes
    status: int = 200
    content_type: str = TEXT
    location: str = ""
    headers: tuple[tuple[str, str], ...] = ()


class Chunks(Protocol):
    """Bytes that come bit by bit, as of an async generator."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Wait for the next ones."""

    async def aclose(self) -> None:
        """Nobody wants more."""


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer whose length nobody knows; the next chunk is asked for when one is written."""

    chunks: Chunks
    content_type: str


Answer = Response | Stream
Route = Callable[[Request], Response] | Callable[[Request], Awaitable[Answer]]
"""Called on the event loop: a function answers at once, an `async def` when it can."""

NOT_FOUND: Final = Response(b"404 page not found\n", status=404)
BROKEN: Final = Response(b"internal error; the log says more", status=500)


def bad_request(cause: str) -> Response:
    """The answer to a request whose query makes no sense."""
    return Response(f"{cause}\n".encode(), status=400)


def get_only(route: Callable[[Request], Awaitable[Answer]]) -> Route:
    """`route` for those who ask; 405 for those who mean to change something."""

    async def answer(request: Request) -> Answer:
        if request.method in ("GET", "HEAD"):
            return await route(request)
        return Response(b"only GET\n", status=405, headers=(("Allow", "GET, HEAD"),))

    return answer
