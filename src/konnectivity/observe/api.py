"""The routes that both programs have: the admin API, probes, and what guards them.

Reference: docs/reference/admin-api.md.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Final

from konnectivity.flag import flags_of
from konnectivity.observe import logs
from konnectivity.observe.events import Events
from konnectivity.observe.log_ring import MAX_ENTRIES
from konnectivity.observe.route import (
    JSON,
    Answer,
    Request,
    Response,
    Route,
    bad_request,
    get_only,
)
from konnectivity.observe.status import API_VERSION, Status
from konnectivity.observe.status_json import render

DEFAULT_TUNNELS: Final = 1000
MOST_TUNNELS: Final = 10_000
"""Tunnels in one answer; about 250 bytes each."""
SLICE: Final = 50
"""Log records that are written in one go: about a millisecond."""
FRESH: Final = (("Cache-Control", "no-store"),)

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
    """`/api/v1/`: the status, with at most so many tunnels as `take` is told, events and logs."""

    # However many ask, the loop does one slice for them in each turn.
    turn = asyncio.Lock()

    async def status(request: Request) -> Answer:
        try:
            most = request.number("tunnels", default=DEFAULT_TUNNELS, least=0, most=MOST_TUNNELS)
        except ValueError as error:
            return bad_request(str(error))
        async with turn:
            body = b"".join([part async for part in render(await take(most))])
        return Response(body, content_type=JSON, headers=FRESH)

    return {
        "/api/v1/status": get_only(status),
        "/api/v1/events": get_only(events.follow),
        "/api/v1/logs": get_only(_logs),
    }


def flags(options: object) -> dict[str, Route]:
    """All flags in force, as a command line would have them; they name files, never secrets."""
    shown = {
        each.name: each.kind.show(getattr(options, each.field)) for each in flags_of(type(options))
    }
    body = json.dumps({"apiVersion": API_VERSION, "kind": "Flags", "flags": shown}).encode()

    async def answer(_: Request) -> Answer:
        return Response(body, content_type=JSON, headers=FRESH)

    return {"/api/v1/flags": get_only(answer)}


async def _logs(request: Request) -> Answer:
    """The last `entries` log records, the oldest first."""
    try:
        most = request.number("entries", default=MAX_ENTRIES, least=1, most=MAX_ENTRIES)
    except ValueError as error:
        return bad_request(str(error))
    recent = logs.recent()[-most:]
    lines: list[str] = []
    for start in range(0, len(recent), SLICE):
        lines += [json.dumps(each.as_json()) for each in recent[start : start + SLICE]]
        await asyncio.sleep(0)
    head = json.dumps({"apiVersion": API_VERSION, "kind": "Logs"})[:-1]
    body = f'{head}, "entries": [{", ".join(lines)}]}}'
    return Response(body.encode(), content_type=JSON, headers=FRESH)
