"""The clusters of the scenarios, and the table of restore times at the end of a run.

`RESTORE_ROUNDS` says how often everything is done to every object, `RESTORE_TIMES` names a file
for all figures as JSON.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from tests.cluster.figures import Figures
from tests.cluster.managed import Manage, Managed, managed
from tests.cluster.places import PLACES, Place, parameters

FIGURES = pytest.StashKey[Figures]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = Figures()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    found = config.stash[FIGURES]
    if found.restores:
        terminalreporter.section(f"restore times, {found.version}")
        for line in found.table(brief=not found.real):
            terminalreporter.write_line(line)
        if path := os.environ.get("RESTORE_TIMES"):
            Path(path).write_text(f"{found.as_json()}\n")
    for text in found.unshown:
        terminalreporter.write_line(f"Not shown: {text}")


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    return request.config.stash[FIGURES]


@pytest.fixture(params=parameters())
async def place(
    request: pytest.FixtureRequest, folder: Path, figures: Figures
) -> AsyncIterator[Place]:
    async with PLACES[request.param](folder) as found:
        figures.version = found.version
        figures.real = request.param == "real"
        if figures.real:
            if found.heartbeats == found.namespace:
                figures.not_shown(
                    "a namespace for heartbeats: no controller of this cluster empties namespaces"
                )
            figures.not_shown("upgrades under load: no agent runs here (tests/e2e/test_rollout.py)")
        yield found


@pytest.fixture
def manage(place: Place) -> Manage:
    """Runs a manager of the place, until the block ends; all objects are there when it begins."""

    def run(mode: str) -> AbstractAsyncContextManager[Managed]:
        return managed(place, mode)

    return run
