"""Clusters in a folder: each `NAME.kubeconfig` is one, and `NAME.toml` beside it what it wants.

The folder is looked at again and again, which works on every file system and costs little: a file
is read when its time, size or inode is another one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from konnectivity.errors import ConfigError
from konnectivity.lifecycle.managing.fleet import MOST_CLUSTERS, Fleet
from konnectivity.lifecycle.managing.registration import LARGEST, Registration
from konnectivity.observe import logs

log = logs.get(__name__)

INTERVAL: Final = 2.0
"""Seconds between looks, or ten times what a look takes, if that is more."""
KUBECONFIG: Final = ".kubeconfig"
OWN: Final = ".toml"

Stamp = tuple[int, int, int]


class ClusterDirectory:
    """Registers the clusters of a folder with `fleet` while `run` runs.

    `trouble` says why the folder cannot be read; what was there before goes on then.
    """

    def __init__(self, path: str, fleet: Fleet, *, interval: float = INTERVAL) -> None:
        self.synced = False
        self.trouble = ""
        self._path = Path(path)
        self._fleet = fleet
        self._interval = interval
        self._known: dict[str, tuple[Stamp, Stamp | None, Registration]] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            took = await self.look()
            await asyncio.sleep(max(self._interval, 10 * took))

    async def look(self) -> float:
        """Register what is there; return the seconds that it took.

        Raises nothing: a folder that cannot be read is said, and looked at again.
        """
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            found = await asyncio.to_thread(self._read)
        except OSError as error:
            text = f"{self._path}: {error.strerror or error}"
            if text != self.trouble:
                log.warning("The folder of clusters cannot be read; trying again", error=text)
            self.trouble = text
        else:
            self.trouble = ""
            self._fleet.replace(found)
            self.synced = True
        return clock() - started

    def _read(self) -> dict[str, Registration]:
        with os.scandir(self._path) as entries:
            stamps = {each.name: _stamp(each.stat()) for each in _files(entries)}
        known, self._known = self._known, {}
        for file, stamp in stamps.items():
            name, suffix = os.path.splitext(file)  # noqa: PTH122 - both halves at once
            if suffix != KUBECONFIG:
                continue
            own = stamps.get(name + OWN)
            before = known.get(name)
            if before is None or before[:2] != (stamp, own):
                before = (stamp, own, self._registration(name, own=own is not None))
            self._known[name] = before
        return {name: registration for name, (_, _, registration) in self._known.items()}

    def _registration(self, name: str, *, own: bool) -> Registration:
        place, own_place = self._path / (name + KUBECONFIG), self._path / (name + OWN)
        try:
            return Registration(
                name,
                f"kubeconfig {place}",
                _content(place),
                _content(own_place) if own else b"",
                str(own_place),
            )
        except ConfigError as error:
            return Registration(name, f"kubeconfig {place}", b"", trouble=str(error))


def check(path: str) -> None:
    """Do nothing if `path` is a folder that can be read.

    Raises:
        ConfigError: it is not.
    """
    try:
        with os.scandir(path):
            pass
    except OSError as error:
        raise ConfigError(f"--clusters {path}: {error.strerror}") from error


def _files(entries: Iterable[os.DirEntry[str]]) -> Iterable[os.DirEntry[str]]:
    """Those that may be ours, and no more than can be: a folder may be the wrong one."""
    left = 2 * MOST_CLUSTERS
    for each in entries:
        if (
            each.name.endswith((KUBECONFIG, OWN))
            and not each.name.startswith(".")
            and each.is_file()
        ):
            yield each
            left -= 1
        if not left:
            return


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _content(path: Path) -> bytes:
    """What is in a file.

    Raises:
        ConfigError: it cannot be read, or is too long to be what it should be.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if len(content) > LARGEST:
        raise ConfigError(f"{path}: longer than {LARGEST} bytes")
    return content
