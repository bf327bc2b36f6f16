"""The model of many agents, and the measurements that feed it."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from bench.plot import line_chart
from bench.scale import measure
from bench.scale.scenarios import SCENARIOS, rolling, storm
from bench.scale.simulation import Costs, Fleet, Outcome, Simulation

from bench import certificate

COSTS = Costs(accept=0.002)


def ran(simulation: Simulation, until: float = 300.0) -> Outcome:
    return simulation.run(until)


@pytest.mark.parametrize("direct", [False, True])
def test_all_links_come_back_after_a_storm(direct: bool) -> None:
    simulation = Simulation(Fleet(agents=200, servers=3, direct=direct), COSTS)
    begin = storm(simulation)
    outcome = ran(simulation)
    assert outcome.mesh[-1][1] == 1.0
    assert outcome.time_to(0.5, after=begin) <= outcome.time_to(1.0, after=begin) < 300


def test_no_server_does_more_than_its_core_allows() -> None:
    simulation = Simulation(Fleet(agents=5_000, servers=1, direct=True), COSTS)
    simulation.arrive(0.0)
    outcome = ran(simulation)
    assert outcome.time_to(1.0) >= 5_000 * COSTS.accept
    assert simulation.clusters[0][0].queue.work == pytest.approx(outcome.attempts * COSTS.accept)


def test_agents_that_know_where_servers_are_never_meet_one_twice() -> None:
    for direct in (True, False):
        simulation = Simulation(Fleet(agents=100, servers=3, direct=direct), COSTS)
        storm(simulation)
        assert (ran(simulation).surplus == 0) is direct


def test_servers_that_restart_in_turn_never_leave_an_agent_alone() -> None:
    simulation = Simulation(Fleet(agents=300, servers=3, direct=True), COSTS)
    rolling(simulation)
    outcome = ran(simulation)
    assert min(there for _, there in outcome.mesh) >= 2 / 3 - 0.01
    assert outcome.mesh[-1][1] == 1.0


def test_a_server_that_restarts_costs_the_others_next_to_nothing_if_it_is_known() -> None:
    needless = {}
    for direct in (True, False):
        simulation = Simulation(Fleet(agents=300, servers=3, direct=direct), COSTS)
        rolling(simulation)
        needless[direct] = ran(simulation).surplus
    assert needless[True] < 300 / 5 < 3 * 300 < needless[False]


def test_machines_shared_by_clusters_are_as_fast_as_their_cores() -> None:
    times = []
    for cores in (1, 4):
        simulation = Simulation(
            Fleet(agents=50, servers=2, clusters=20, cores=cores, direct=True), COSTS
        )
        simulation.arrive(0.0)
        times.append(ran(simulation).time_to(0.5))
    assert times[0] > times[1]


def test_a_run_is_repeatable() -> None:
    scenario = SCENARIOS[0]
    assert scenario.run(COSTS)[1].mesh == scenario.run(COSTS)[1].mesh


def test_a_mesh_that_breaks_again_is_not_whole() -> None:
    outcome = Outcome(mesh=[(0.0, 1.0), (1.0, 0.5), (2.0, 1.0)])
    assert outcome.time_to(1.0) == 2.0
    assert Outcome(mesh=[(0.0, 0.5)]).time_to(1.0) == float("inf")


def test_a_chart_is_an_image_of_all_its_points() -> None:
    points = [(0.1, 0.0), (1.0, 50.0), (100.0, 100.0)]
    text = line_chart("a < b", {"one & only": points}, x="s", y="%", logarithmic=True)
    root = ElementTree.fromstring(text)  # noqa: S314 - our own text
    assert root.attrib["aria-label"] == "a < b"
    tracks = [each.attrib["d"] for each in root.iter() if each.attrib.get("d", "").count("L") == 2]
    assert len(tracks) == 1
    xs = [float(found) for found in re.findall(r"[ML]([\d.]+) ", tracks[0])]
    assert xs == sorted(xs)
    assert xs[2] - xs[1] == pytest.approx(2 * (xs[1] - xs[0]), abs=0.3)  # two decades and one


def test_real_agents_and_tunnels_are_measured(tmp_path: Path) -> None:
    certificates = certificate.issue(tmp_path)
    told: list[str] = []
    pace = measure.Pace(settle=0.1, at_rest=0.1, warmup=0.05, dials=0.2)
    few, more = measure.agents([1, 5], certificates, told.append, pace=pace)
    assert told == ["1 agents", "5 agents"]
    assert (few.agents, more.agents) == (1, 5)
    assert more.rss > 10 << 20
    assert 0 < more.dial < 1
    assert 0 < more.dial_same < 1
    (step,) = measure.tunnels([3], certificates, told.append, pace=pace)
    assert step.tunnels == 3
    assert 0 < step.dial < 1
