"""The command line: `python -m bench.scale measure`, and `simulate` with what that has found."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import certificate
from bench.error import BenchError
from bench.plot import line_chart
from bench.run import raise_file_limit
from bench.scale import measure
from bench.scale.scenarios import SCENARIOS
from bench.scale.simulation import Costs

AGENTS = "1,100,1000,5000"
TUNNELS = "1,1000,5000,10000"
SHARES = (0.5, 0.9, 0.99, 1.0)


def main() -> int:
    """Do what the arguments ask for; 0, or 2 if it could not be done."""
    arguments = _parser().parse_args()
    try:
        found = arguments.do(arguments)
    except BenchError as error:
        print(f"bench.scale: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found, indent=1))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.scale", description="What thousands of agents and tunnels cost."
    )
    commands = parser.add_subparsers(required=True)
    measuring = commands.add_parser("measure", help="real processes on loopback; JSON")
    measuring.add_argument("--agents", default=AGENTS, help=f"steps ({AGENTS}); empty: none")
    measuring.add_argument("--tunnels", default=TUNNELS, help=f"steps ({TUNNELS}); empty: none")
    measuring.set_defaults(do=_measure)
    simulating = commands.add_parser("simulate", help="past one machine; JSON, and a chart")
    simulating.add_argument(
        "--accept", type=float, required=True, metavar="MS", help="CPU of one agent that comes"
    )
    simulating.add_argument("--only", default="", help="scenarios whose name has this in it")
    simulating.add_argument("--svg", type=Path, help="draw the storms there")
    simulating.set_defaults(do=_simulate)
    return parser


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    agents, tunnels = (
        [int(each) for each in text.split(",") if each]
        for text in (arguments.agents, arguments.tunnels)
    )
    raise_file_limit(2 * measure.HELD + 1000)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        certificates = certificate.issue(Path(directory))
        return {
            "agents": [asdict(each) for each in measure.agents(agents, certificates, _tell)],
            "tunnels": [asdict(each) for each in measure.tunnels(tunnels, certificates, _tell)],
        }


def _simulate(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    costs = Costs(arguments.accept / 1000)
    found, lines = [], {}
    for scenario in SCENARIOS:
        if arguments.only not in scenario.name:
            continue
        _tell(scenario.name)
        begin, outcome = scenario.run(costs)
        found.append(
            {
                "scenario": scenario.name,
                "seconds": {
                    f"{share:.0%}": round(outcome.time_to(share, after=begin), 1)
                    for share in SHARES
                },
                "attempts": outcome.attempts,
                "surplus": outcome.surplus,
                "timeouts": outcome.timeouts,
            }
        )
        if scenario.name.startswith("storm"):
            after = [(at - begin, share * 100) for at, share in outcome.mesh if at > begin]
            lines[scenario.name.removeprefix("storm, ")] = thinned(after)
    if arguments.svg and lines:
        title = "Full mesh after all servers were away for 5 s (simulated)"
        axes = {"x": "seconds since they are back", "y": "% of links"}
        arguments.svg.write_text(line_chart(title, lines, logarithmic=True, **axes))
    return found


def thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points of a curve less those that nobody would see: within a quarter of one percent."""
    kept = points[:1]
    for point in points:
        if abs(point[1] - kept[-1][1]) >= 0.25:
            kept.append(point)
    return [*kept, points[-1]] if points else []


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
