"""The command line of the benchmark suite."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import relay, report
from bench.error import BenchError
from bench.pair import pair_spec, reference
from bench.row import MODES, ROWS, chosen
from bench.run import LIMITS, Plan, Taken, run


def main() -> int:
    """Run what the arguments ask for; 0 if no row failed, 1 if one did, 2 if it could not run."""
    signal.signal(signal.SIGTERM, _interrupt)
    arguments = _parser().parse_args()
    try:
        plan = _plan(arguments)
        taken = _run_with_progress(plan)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    report.print_tables(Console(width=None if sys.stdout.isatty() else 240), plan, taken)
    if arguments.json:
        text = json.dumps(report.document(plan, taken), indent=1) + "\n"
        arguments.json.write_text(text)
    return 1 if any(one.errors for one in taken) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure a server and an agent, and a reference pair beside them if "
        "REF_SERVER and REF_AGENT name its programs.",
        epilog="rows: " + ", ".join(row.name for row in ROWS),
    )
    add = parser.add_argument
    add("--rounds", type=int, default=3, help="rounds, of which the median counts (3)")
    add("--seconds", type=float, default=2.0, help="measured per row (2)")
    add("--warmup", type=float, default=0.5, help="seconds before that (0.5)")
    add("--rows", default="*", metavar="PATTERN", help="comma-separated shell patterns (*)")
    add("--modes", default=",".join(MODES), help=f"comma-separated ({','.join(MODES)})")
    add(
        "--pairs",
        metavar="NAMES",
        help="comma-separated: ours, ref, mixed as server+agent: ours+ref, ref+ours, and the "
        "limits relay, bare (all but the mixed, as far as they are there)",
    )
    add("--json", type=Path, metavar="FILE", help="write everything there as well")
    return parser


def _plan(arguments: argparse.Namespace) -> Plan:
    """Check the arguments and turn them into a plan."""
    default = "ours,ref,relay,bare" if len(reference()) == 2 else "ours,relay,bare"
    modes = arguments.modes.split(",")
    if unknown := [mode for mode in modes if mode not in MODES]:
        raise BenchError(f"--modes {unknown[0]!r}: use {', '.join(MODES)}")
    if not 1 <= arguments.rounds <= 100:
        raise BenchError(f"--rounds {arguments.rounds}: use 1 to 100")
    if not (0 < arguments.seconds <= 300 and 0 <= arguments.warmup <= 300):
        raise BenchError("--seconds and --warmup: use up to 300 seconds")
    rows = chosen(arguments.rows)
    if not rows:
        raise BenchError(
            f"--rows {arguments.rows!r} matches none of " + ", ".join(row.name for row in ROWS)
        )
    if arguments.json and not arguments.json.parent.is_dir():
        raise BenchError(f"--json {arguments.json}: there is no directory {arguments.json.parent}")
    names = list(dict.fromkeys((arguments.pairs or default).split(",")))
    limits = [name for name in LIMITS if name in names and (name != relay.NAME or _has_relay())]
    names = [name for name in names if name not in LIMITS]
    if not names and not limits:
        raise BenchError("no pair is left to measure")
    return Plan(
        pairs=[pair_spec(name) for name in names],
        modes=modes,
        rows=rows,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        warmup=arguments.warmup,
        limits=limits,
    )


def _has_relay() -> bool:
    """Whether there is a program for it; without one it is left out, and that is said."""
    try:
        relay.find()
    except BenchError as error:
        print(f"bench: pair relay is left out: {error}", file=sys.stderr)
        return False
    return True


def _run_with_progress(plan: Plan) -> list[Taken]:
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("starting", total=plan.samples)
        begun = 0

        def tell(what: str) -> None:
            nonlocal begun
            progress.update(task, completed=begun, description=what)
            begun += 1

        taken = run(plan, tell)
        progress.update(task, completed=plan.samples, description="done")
    return taken


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    """End by SIGTERM as by Ctrl-C: whatever was started is stopped."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
