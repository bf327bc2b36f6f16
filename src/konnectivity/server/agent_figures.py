"""What is counted for each agent, for so many agents as whoever scrapes them can bear."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

AGENTS: Final = 200
"""Agents with figures of their own: each costs five series at whoever scrapes them."""
OTHER: Final = "other"
"""Stands for all agents that have none."""


@dataclass(slots=True)
class AgentFigures:
    """What is counted for one agent over all its streams."""

    streams: int = 0
    """That are up."""
    tunnels: int = 0
    """That are open; counted at the scrape."""
    dials: int = 0
    """That ended, one way or the other."""
    failures: int = 0
    """Of these."""
    bytes_to_agent: int = 0
    bytes_from_agent: int = 0
    """Payload of tunnels that are over."""

    def add(self, gone: AgentFigures) -> None:
        """Take over what was counted for an agent that is gone."""
        self.dials += gone.dials
        self.failures += gone.failures
        self.bytes_to_agent += gone.bytes_to_agent
        self.bytes_from_agent += gone.bytes_from_agent


class AgentTable:
    """Figures by agent id, for `limit` agents; all further ones share those of `OTHER`.

    Agents that are gone make room, oldest first: by default each start of an agent makes up a new
    id. What was counted for them goes to `OTHER`, so that no sum ever shrinks.
    """

    __slots__ = ("_figures", "_limit", "_other")

    def __init__(self, limit: int = AGENTS) -> None:
        self._figures: dict[str, AgentFigures] = {}
        self._other = AgentFigures()
        self._limit = limit

    def of(self, agent_id: str) -> AgentFigures:
        """Where to count for an agent."""
        return self._figures.get(agent_id, self._other)

    def all(self) -> Iterator[tuple[str, AgentFigures]]:
        """Each agent's, and `OTHER`'s once there is something to tell."""
        yield from self._figures.items()
        if self._other != AgentFigures():
            yield OTHER, self._other

    def enter(self, agent_id: str) -> None:
        """A stream of the agent is up."""
        if agent_id not in self._figures:
            full = len(self._figures) >= self._limit and not self._make_room()
            if full or agent_id == OTHER:
                return
            self._figures[agent_id] = AgentFigures()
        self._figures[agent_id].streams += 1

    def leave(self, agent_id: str) -> None:
        """A stream of the agent is over."""
        figures = self._figures.get(agent_id)
        if figures is not None and figures.streams:
            figures.streams -= 1

    def _make_room(self) -> bool:
        gone = next((key for key, each in self._figures.items() if not each.streams), None)
        if gone is not None:
            self._other.add(self._figures.pop(gone))
        return gone is not None
