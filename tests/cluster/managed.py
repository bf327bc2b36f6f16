"""A place that a manager process keeps, certificates too."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from tests.cluster.places import Place
from tests.peers import tool
from tests.peers.ports import free_port
from tests.peers.program import Program, running
from tests.peers.streams import PATIENCE

from konnectivity.lifecycle.reconciling.plan import Key


class Managed:
    """The manager, and all objects that it has made."""

    def __init__(self, program: Program, pki: Path, keys: list[Key]) -> None:
        self.program = program
        self.pki = pki
        self.keys = keys

    def key(self, *kinds: str) -> Key:
        return next(key for key in self.keys if key.kind in kinds)


Manage = Callable[[str], AbstractAsyncContextManager[Managed]]


@asynccontextmanager
async def managed(place: Place, mode: str) -> AsyncIterator[Managed]:
    """A manager; everything is installed when the block begins, and stays when it ends."""
    port, pki = free_port(), place.folder / "pki"
    flags = (
        f"--spec={place.specification(mode)}",
        f"--kubeconfig={place.kubeconfig}",
        f"--pki-directory={pki}",
        "--certificate-reload-interval=100ms",
        "--health-server-host=127.0.0.1",
        f"--health-server-port={port}",
    )
    async with running("manager", *flags) as program:
        await program.line("Manager is up")
        async with asyncio.timeout(PATIENCE):
            while not await _is_installed(port):  # noqa: ASYNC110 - another process is waited for
                await asyncio.sleep(0.05)
        yield Managed(program, pki, await place.owned())
        program.signal(signal.SIGTERM)
        assert await program.status() == 0


async def _is_installed(port: int) -> bool:
    page = json.loads(await tool.run("curl", "-s", f"http://127.0.0.1:{port}/conditions"))
    return any(
        each["type"] == "Installed" and each["status"] == "True" for each in page["conditions"]
    )
