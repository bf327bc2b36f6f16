from __future__ import annotations

from dataclasses import dataclass

from konnectivity.tunnel.routing import SETTLED, Backends


@dataclass(eq=False)
class Agent:
    agent_id: str
    draining: bool = False


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def backends(*agents: Agent, at: int = 0, clock: Clock | None = None) -> Backends:
    table = Backends(lambda n: at % n, clock or Clock())
    for agent in agents:
        table.add(agent)  # type: ignore[arg-type]
    return table


def test_there_is_no_choice_without_agents() -> None:
    assert backends().choose() is None


def test_every_agent_gets_its_turn() -> None:
    a, b = Agent("a"), Agent("b")
    assert [backends(a, b, at=at).choose() for at in (0, 1)] == [a, b]


def test_a_draining_agent_is_the_last_resort() -> None:
    draining, fresh = Agent("a", draining=True), Agent("b")
    assert all(backends(draining, fresh, at=at).choose() is fresh for at in range(2))
    assert backends(draining).choose() is draining


def test_w54_of_two_streams_of_one_agent_the_newer_is_preferred_once_it_stays() -> None:
    clock = Clock()
    old, new = Agent("a"), Agent("a")
    table = backends(old, clock=clock)
    clock.now += 100 * SETTLED
    table.add(new)  # type: ignore[arg-type]
    assert len(table) == 1
    assert table.choose() is old  # the agent may be about to close a duplicate
    clock.now += SETTLED
    assert table.choose() is new
    table.remove(new)  # type: ignore[arg-type]
    assert table.choose() is old
    table.remove(old)  # type: ignore[arg-type]
    assert len(table) == 0


def test_of_two_streams_of_one_agent_the_one_that_drains_is_not_preferred() -> None:
    old, new = Agent("a", draining=True), Agent("a")
    assert backends(old, new).choose() is new


def test_removing_what_is_not_there_changes_nothing() -> None:
    agent = Agent("a")
    table = backends(agent)
    table.remove(Agent("a"))  # type: ignore[arg-type]
    assert len(table) == 1
