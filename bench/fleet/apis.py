"""A process with many API servers, which deletes objects in them and times their return.

It is told what to do by lines of JSON on its standard input, and answers each with one.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from tests.net.authority import Identity
from tests.peers.kube_http2 import Http2KubeApi, server_context
from tests.peers.kube_store import Object, Place

from bench.fleet.broken import BREAKS

BOOKMARKS = 60.0
"""Seconds between bookmarks of one API server, as the real one's."""
PATIENCE = 60.0
"""Seconds after which an object is taken to be lost for good."""
IGNORED = ("events", "leases")


class TimedApi(Http2KubeApi):
    """Notes when objects are written."""

    def __init__(self, identity: Identity, context: Any) -> None:
        super().__init__(identity, None, context)  # type: ignore[arg-type]
        self.back: dict[Place, asyncio.Future[float]] = {}
        """Who waits for which object."""

    def _store(self, place: Place, item: Object) -> Object:
        stored = super()._store(place, item)
        waiting = self.back.pop(place, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(time.monotonic())
        return stored

    def _parse(self, head: Any, body: bytes) -> Any:
        request = super()._parse(head, body)
        del self.requests[:-1], self.bearers[:-1], self.answered[:-1]  # nobody will look
        return request

    def owned(self) -> list[Place]:
        """The objects that a manager has made."""
        return [each for each in self._objects if each.resource not in IGNORED]

    async def delete(self, place: Place) -> float:
        """Delete an object; the seconds until it is there again."""
        self.back[place] = waiting = asyncio.get_running_loop().create_future()
        started = time.monotonic()  # the next line gives the event to the watches
        self._delete(place)
        try:
            async with asyncio.timeout(PATIENCE):
                restored: float = await waiting
                return restored - started
        except TimeoutError:
            return PATIENCE


class Apis:
    """The API servers of this process."""

    def __init__(self, identity: Identity, count: int, *, http2: bool) -> None:
        context = server_context(identity, http2=http2)
        self.all = [TimedApi(identity, context) for _ in range(count)]
        self.broken: set[TimedApi] = set()

    async def start(self, folder: Path, bundle: str, first: int) -> None:
        """Listen, and register each in `folder`."""
        for number, api in enumerate(self.all, first):
            await api.start()
            path = folder / f"cluster-{number:05}.kubeconfig"
            path.write_text(_kubeconfig(api.url, bundle))

    async def bookmarks(self) -> None:
        """As long as this process runs."""
        while True:
            for api in self.all:
                api.bookmark()
                await asyncio.sleep(BOOKMARKS / len(self.all))

    async def installed(self, *, objects: int) -> dict[str, Any]:
        """Wait until every one that is whole has so many objects."""
        while True:
            left = sum(len(each.owned()) < objects for each in self._whole())
            if not left:
                return {"installed": len(self._whole())}
            await asyncio.sleep(0.02)

    async def disturb(self, *, seconds: float, rate: float) -> dict[str, Any]:
        """Delete `rate` objects a second, here and there, none twice; how long each took."""
        places = [(api, place) for api in self._whole() for place in api.owned()]
        random.shuffle(places)
        tasks = []
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and places:
            api, place = places.pop()
            tasks.append(asyncio.create_task(api.delete(place)))
            await asyncio.sleep(random.expovariate(rate))
        return {"restores": await asyncio.gather(*tasks)}

    async def damage(self, *, count: int) -> dict[str, Any]:
        """Break so many of them, in all ways in turn."""
        for number, api in enumerate(random.sample(self._whole(), count)):
            await BREAKS[number % len(BREAKS)](api)
            self.broken.add(api)
        return {"broken": count}

    async def watches(self) -> dict[str, Any]:
        return {
            "watches": sum(each.watches for each in self.all),
            "connections": sum(each.accepted for each in self.all),
        }

    def _whole(self) -> list[TimedApi]:
        return [each for each in self.all if each not in self.broken]


def _kubeconfig(url: str, bundle: str) -> str:
    authority = base64.b64encode(bundle.encode()).decode()
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "c", "cluster": {"server": url, "certificate-authority-data": authority}}
            ],
            "users": [{"name": "u", "user": {"token": "none"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
    )


async def serve(line: argparse.Namespace) -> None:
    """Do what standard input says until it ends."""
    loop = asyncio.get_running_loop()
    apis = Apis(Identity(line.cert, line.key), line.clusters, http2=not line.http1)
    await apis.start(Path(line.folder), Path(line.bundle).read_text(), line.first)  # noqa: ASYNC240
    bookmarks = asyncio.create_task(apis.bookmarks())
    print(json.dumps({"up": line.clusters}), flush=True)
    while command := await loop.run_in_executor(None, sys.stdin.readline):
        name, options = json.loads(command)
        print(json.dumps(await getattr(apis, name)(**options)), flush=True)
    bookmarks.cancel()


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("cert", "key", "bundle", "folder"):
        parser.add_argument(f"--{name}")
    for name in ("clusters", "first"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--http1", action="store_true")
    import uvloop

    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
