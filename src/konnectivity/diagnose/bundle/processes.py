"""What servers and agents tell of themselves on their admin addresses, as it is."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

from konnectivity.diagnose.admin_client import AdminClient, Silence, tls_context
from konnectivity.diagnose.bundle.archive import File, Found, Miss, file_name
from konnectivity.diagnose.sources import ServerSource, Sources
from konnectivity.observe.status_json import to_plain

MOST_TUNNELS: Final = 10_000
ENTRIES: Final = 1000

Ask = Callable[[AdminClient, str], Awaitable[list[Found]]]
"""Asks one process; the text is the folder of its files."""


class Processes:
    """All admin addresses of a run; each question goes to all of them at once."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._folders = dict(_folders(sources.servers))

    async def ask(self, question: Ask) -> list[Found]:
        """What all of them answer, in the order of the addresses."""
        answers = await asyncio.gather(
            *(self._one(source, question) for source in self._sources.servers)
        )
        return [each for answer in answers for each in answer]

    async def _one(self, source: ServerSource, question: Ask) -> list[Found]:
        folder = self._folders[source.url]
        try:
            context = await asyncio.to_thread(tls_context, source)
            client = AdminClient(source, context, timeout=self._sources.timeout)
            return await question(client, folder)
        except Silence as silence:
            return [Miss(folder, str(silence))]


def _folders(sources: tuple[ServerSource, ...]) -> list[tuple[str, str]]:
    """A folder for each address, its own also where addresses look the same as names."""
    taken: defaultdict[str, int] = defaultdict(int)
    found = []
    for source in sources:
        url = source.url
        name = file_name(url.removeprefix("unix:") if url[:5] == "unix:" else urlsplit(url).netloc)
        taken[name] += 1
        suffix = f"-{taken[name]}" if taken[name] > 1 else ""
        found.append((url, f"processes/{name}{suffix}"))
    return found


async def status(client: AdminClient, folder: str) -> list[Found]:
    """Without tunnels and dials, which are parts of their own."""
    content = await _document(client, "/api/v1/status?tunnels=0")
    content.pop("tunnels", None)
    dials = content.get("dials")
    if isinstance(dials, dict):
        content["dials"] = {key: dials[key] for key in dials if not key.startswith("recent")}
    return [File(f"{folder}/status.json", content)]


async def tunnels(client: AdminClient, folder: str) -> list[Found]:
    content = await _document(client, f"/api/v1/status?tunnels={MOST_TUNNELS}")
    return [File(f"{folder}/tunnels.json", content.get("tunnels"))]


async def dials(client: AdminClient, folder: str) -> list[Found]:
    content = await _document(client, "/api/v1/status?tunnels=0")
    return [File(f"{folder}/dials.json", content.get("dials"))]


async def configuration(client: AdminClient, folder: str) -> list[Found]:
    """The flags in force."""
    return [File(f"{folder}/flags.json", await _document(client, "/api/v1/flags"))]


async def logs(client: AdminClient, folder: str) -> list[Found]:
    """The last records, a line of JSON each."""
    content = await _document(client, f"/api/v1/logs?entries={ENTRIES}")
    return [File(f"{folder}/logs.json", content.get("entries"))]


async def events(client: AdminClient, folder: str) -> list[Found]:
    status = await client.status(tunnels=0)
    found = await client.events(last=status.last_event)
    return [File(f"{folder}/events.json", [to_plain(each) for each in found])]


async def stacks(client: AdminClient, folder: str) -> list[Found]:
    try:
        page = await client.page("/debug/pprof/goroutine")
    except Silence as silence:
        if silence.status != 404:
            raise
        return [Miss(f"{folder}/stacks.txt", "profiling is off; --enable-profiling turns it on")]
    return [File(f"{folder}/stacks.txt", page.decode(errors="replace"))]


def metrics(interval: float) -> Ask:
    """Two looks at the metrics, `interval` seconds apart."""

    async def ask(client: AdminClient, folder: str) -> list[Found]:
        try:
            first = await client.metrics()
        except Silence as silence:
            if silence.status != 301:
                raise
            why = "an agent's metrics are on its health port, without a token"
            return [Miss(f"{folder}/metrics-1.txt", why)]
        await asyncio.sleep(interval)
        return [
            File(f"{folder}/metrics-1.txt", first),
            File(f"{folder}/metrics-2.txt", await client.metrics()),
        ]

    return ask


async def _document(client: AdminClient, path: str) -> dict[str, Any]:
    body = await client.page(path)
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise Silence("unreadable", f"{path.partition('?')[0]} is no JSON object")
    return content
