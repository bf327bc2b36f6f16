"""What is simulated: fleets, and what happens to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.scale.simulation import Costs, Fleet, Outcome, Server, Simulation

BEGIN = 1.0  # seconds into a run at which it happens
AWAY = 5.0  # seconds for which a server that restarts is away
STEP = 60.0  # seconds from one server to the next in a rolling restart
UNTIL = 900.0  # seconds that are simulated


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fleet, something that happens, and from when on the way to the full mesh is timed."""

    name: str
    fleet: Fleet
    happen: Callable[[Simulation], float]

    def run(self, costs: Costs) -> tuple[float, Outcome]:
        """When timing begins, and all that was seen."""
        simulation = Simulation(self.fleet, costs)
        begin = self.happen(simulation)
        return begin, simulation.run(UNTIL)


def storm(simulation: Simulation) -> float:
    """All servers are away at once; timed from their return."""
    simulation.connected()
    servers = [server for cluster in simulation.clusters for server in cluster]
    _restart(simulation, servers, BEGIN)
    return BEGIN + AWAY


def rolling(simulation: Simulation) -> float:
    """One server of each cluster after the other; timed from the last one's return."""
    simulation.connected()
    for number in range(simulation.fleet.servers):
        servers = [cluster[number] for cluster in simulation.clusters]
        _restart(simulation, servers, BEGIN + STEP * number)
    return BEGIN + STEP * (simulation.fleet.servers - 1) + AWAY


def arrival(simulation: Simulation) -> float:
    """All agents start at one moment."""
    simulation.arrive(0.0)
    return 0.0


def _restart(simulation: Simulation, servers: list[Server], when: float) -> None:
    simulation.at(when, lambda: simulation.stop(servers))
    simulation.at(when + AWAY, lambda: simulation.start(servers))


SMALL = Fleet(agents=1_000, servers=3)
LARGE = Fleet(agents=10_000, servers=3)
HUGE = Fleet(agents=100_000, servers=5, direct=True)
MANY = Fleet(agents=100, servers=3, clusters=1_000, cores=32)


def known(fleet: Fleet) -> Fleet:
    """The same fleet with servers that agents can find one by one."""
    return Fleet(fleet.agents, fleet.servers, fleet.clusters, fleet.cores, direct=True)


SCENARIOS = (
    Scenario("storm, 1 000 agents, 3 servers behind a balancer", SMALL, storm),
    Scenario("storm, 1 000 agents, 3 servers known", known(SMALL), storm),
    Scenario("storm, 10 000 agents, 3 servers behind a balancer", LARGE, storm),
    Scenario("storm, 10 000 agents, 3 servers known", known(LARGE), storm),
    Scenario("storm, 100 000 agents, 5 servers known", HUGE, storm),
    Scenario("storm, 1 000 clusters of 100, 3 machines, balancers", MANY, storm),
    Scenario("storm, 1 000 clusters of 100, 3 machines, known", known(MANY), storm),
    Scenario("rolling, 10 000 agents, 3 servers known", known(LARGE), rolling),
    Scenario("rolling, 100 000 agents, 5 servers known", HUGE, rolling),
    Scenario("rolling, 1 000 clusters of 100, 3 machines, known", known(MANY), rolling),
    Scenario("arrival, 100 000 agents, 5 servers known", HUGE, arrival),
)
