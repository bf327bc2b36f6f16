"""The ways in which an API server can be broken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from tests.peers.kube_api import Fault
from tests.peers.kube_http2 import Http2KubeApi


async def dead(api: Http2KubeApi) -> None:
    """Its port is closed."""
    await api.stop()


async def black_hole(api: Http2KubeApi) -> None:
    """It takes connections and requests and answers nothing, watches neither."""
    api.faults.append(Fault(hang=True))
    api.end_watches()


async def failing(api: Http2KubeApi) -> None:
    """Everything is an internal error."""
    api.faults.append(Fault(status=500))
    api.end_watches()


async def slow(api: Http2KubeApi) -> None:
    """Each answer takes eight seconds, just within the limit of a request."""
    api.faults.append(Fault(delay=8.0))
    api.end_watches()


async def dropping(api: Http2KubeApi) -> None:
    """It ends the connection at each request."""
    api.faults.append(Fault(drop=True))
    api.end_watches()


BREAKS: Final[list[Callable[[Http2KubeApi], Awaitable[None]]]] = [
    dead,
    black_hole,
    failing,
    slow,
    dropping,
]
