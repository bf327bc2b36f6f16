"""Directories of certificates with a clock that the test sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from konnectivity.pki import files
from konnectivity.pki.authority import Authority
from konnectivity.pki.directory import Directory
from konnectivity.pki.inspection import Report, examine_leaf
from konnectivity.pki.issuing import initialise, settle
from konnectivity.pki.role import Leaf, Role
from konnectivity.pki.state import State

NOW = 1_800_000_000.0
DAY = 86400.0
SERVER = Leaf("server", Role.SERVER, ("127.0.0.1", "localhost"))
AGENT = Leaf("agent", Role.AGENT)


class Made:
    """A directory; what the package told of it is in `told`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = NOW
        self.told: list[str] = []

    @contextmanager
    def changing(self) -> Iterator[Directory]:
        with Directory.changing(self.path) as directory:
            yield directory

    def look(self, leaf: Leaf) -> Report:
        return examine_leaf(Directory(self.path), leaf, now=self.now)

    def renew(self, *, everything: bool = False) -> int:
        with self.changing() as directory:
            return settle(directory, now=self.now, tell=self.told.append, everything=everything)

    def contents(self) -> dict[str, bytes]:
        """Every file but the lock, and every folder."""
        return {
            str(each.relative_to(self.path)): each.read_bytes() if each.is_file() else b""
            for each in self.path.rglob("*")
            if each.name != "lock"
        }

    @contextmanager
    def obstacle(self, name: str) -> Iterator[None]:
        """While the block runs, this one file cannot be written."""
        where = files.aside_path(self.path / name)
        where.mkdir()
        yield
        where.rmdir()


Make = Callable[[Path], Made]


@pytest.fixture
def make() -> Make:
    def make_(path: Path) -> Made:
        made = Made(path)
        authority = Authority.create("CA of a test", now=NOW)
        state = State((SERVER, AGENT))
        initialise(path, state, authority=authority, now=NOW, tell=made.told.append)
        return made

    return make_


@pytest.fixture
def made(make: Make, tmp_path: Path) -> Made:
    return make(tmp_path / "pki")
