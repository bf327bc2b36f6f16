"""The routes that both programs have: the admin API, probes, and what guards them.

Reference: docs/reference/admin-api.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from konnectivity.observe.events import Events
from konnectivity.observe.route import (
    JSON,
    Answer,
    Request,
    Response,
    Route,
    bad_request,
    get_only,
)
from konnectivity.observe.status import Status
from konnectivity.observe.status_json import render

DEFAULT_TUNNELS: Final = 1000
MOST_TUNNELS: Final = 10_000
"""Tunnels in one answer; about 250 bytes each."""

Take = Callable[[int], Awaitable[Status]]


def alive(_request: Request) -> Response:
    """A constant: who answers has a running loop."""
    return Response(b"ok")


def health(ready: Route, metrics: Route) -> dict[str, Route]:
    """What the health port serves; `/ready` is upstream's older name."""
    return {
        "/healthz": alive,
        "/livez": alive,
        "/readyz": ready,
        "/ready": ready,
        "/metrics": metrics,
    }


def api(take: Take, events: Events) -> dict[str, Route]:
    """`/api/v1/`: the status, with at most so many tunnels as `take` is told, and the events."""

    # However many ask, the loop does one slice for them in each turn.
    turn = asyncio.Lock()

    async def status(request: Request) -> Answer:
        try:
            most = request.number("tunnels", default=DEFAULT_TUNNELS, least=0, most=MOST_TUNNELS)
        except ValueError as error:
            return bad_request(str(error))
        async with turn:
            body = b"".join([part async for part in render(await take(most))])
        return Response(body, content_type=JSON, headers=(("Cache-Control", "no-store"),))

    return {"/api/v1/status": get_only(status), "/api/v1/events": get_only(events.follow)}
