"""Who is asked for a sign of life, and who is given up. With real agents: `e2e/test_retries.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import chain, repeat

import pytest

from konnectivity.server import liveness
from konnectivity.server.liveness import GIVE_UP, Liveness

TICK = 0.01
DIAL = "the same dial"


@pytest.fixture(autouse=True)
def short_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "TICK", TICK)


class Agent:
    """An agent that is scripted look by look; `seen` is what had happened to it before each."""

    agent_id = "a"

    def __init__(
        self, waiting: Iterator[object | None], silence: Iterator[float | None] | None = None
    ) -> None:
        self.seen: list[str] = []
        self.silence: float | None = None
        self._waiting = waiting
        self._silence = silence or repeat(None)
        self._happened = ""

    @property
    def waiting(self) -> object | None:
        self.seen.append(self._happened)
        self.silence = next(self._silence)
        return next(self._waiting)

    def probe(self) -> None:
        self._happened += "probe "

    def give_up(self, cause: str) -> None:
        self._happened += "give up "


async def looked_at(agent: Agent, times: int) -> None:
    """Wait for so many looks at an agent that owes an answer."""
    Liveness().expect_answer(agent)  # type: ignore[arg-type]
    await reached(lambda: len(agent.seen) >= times)


async def reached(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(TICK)


async def test_an_agent_is_asked_when_the_same_dial_is_there_at_two_looks() -> None:
    agent = Agent(repeat(DIAL))
    await looked_at(agent, 3)
    assert agent.seen[:3] == ["", "", "probe "]


async def test_an_agent_whose_dials_change_is_not_asked() -> None:
    agent = Agent(iter(range(1000)))
    await looked_at(agent, 6)
    assert agent.seen[5] == ""


async def test_nobody_is_looked_at_when_no_dial_waits() -> None:
    agent = Agent(chain([DIAL, None], repeat(DIAL)))
    watch = Liveness()
    watch.expect_answer(agent)  # type: ignore[arg-type]
    await reached(lambda: len(agent.seen) == 2)
    await asyncio.sleep(10 * TICK)
    assert agent.seen == ["", ""]
    watch.expect_answer(agent)  # type: ignore[arg-type]
    await reached(lambda: len(agent.seen) == 5)
    assert agent.seen[4] == "probe "


async def test_w53_a_silent_agent_is_given_up_at_the_second_look() -> None:
    """The server may have slept itself, with the answer unread in its socket."""
    agent = Agent(repeat(DIAL), repeat(GIVE_UP))
    await looked_at(agent, 3)
    assert agent.seen[:3] == ["", "", "give up "]


async def test_an_agent_that_was_heard_between_two_looks_is_not_given_up() -> None:
    agent = Agent(repeat(DIAL), chain([GIVE_UP, None, GIVE_UP], repeat(None)))
    await looked_at(agent, 5)
    assert "give up" not in agent.seen[4]
