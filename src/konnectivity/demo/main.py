"""`konnectivity demo`: sets a stage, plays the scenes, reports, and leaves nothing behind."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console

from konnectivity.demo.egress import FLAG, PROTOCOLS, egress_selector_configuration
from konnectivity.demo.network import Isolation, Network, cluster_network, find_isolation
from konnectivity.demo.performance import Performance
from konnectivity.demo.report import progress_bar, table
from konnectivity.demo.stage import PYTHON, Stage, set_up
from konnectivity.errors import KonnectivityError

TIMEOUT: Final = 55.0
"""Seconds for everything before `--hold`; about fifteen are usual."""

_DESCRIPTION: Final = """\
Start a server and an agent, and do through them what kube-apiserver does: fetch a page from a
kubelet, follow a log, run an interactive exchange, move 100 MB each way. Where the machine allows
it, the cluster is a network namespace that the control plane has no route into.
"""
_EXAMPLES: Final = """\
examples:
  konnectivity demo                      everything, through both frontends
  konnectivity demo --mode=http-connect  through one frontend
  konnectivity demo --json               the same, for a program to read
  konnectivity demo --hold               then keep it running, for a kube-apiserver to use

The exit status is 0 only if everything held.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit status: 0 passed, 1 failed, 2 usage, 128 + n on a signal."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(arguments)
    if args.inside:
        isolation = Isolation(args.inside)
    else:
        isolation = find_isolation()
        if isolation.kind != "loopback":
            inside = f"--inside={isolation.kind}"
            isolation.enter([*PYTHON, "konnectivity.demo.main", inside, *arguments])
    return asyncio.run(Demo(args, isolation).run())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="konnectivity demo",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--mode",
        type=_modes,
        default=list(PROTOCOLS),
        help="frontends to go through, separated by commas (default: grpc,http-connect)",
    )
    parser.add_argument(
        "--hold",
        action="store_true",
        help="stay up when everything held, print the files that point a kube-apiserver here, "
        "and wait for Ctrl-C",
    )
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    parser.add_argument("--inside", choices=("root", "user"), help=argparse.SUPPRESS)
    return parser


def _modes(text: str) -> list[str]:
    modes = list(dict.fromkeys(text.split(",")))
    unknown = [mode for mode in modes if mode not in PROTOCOLS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(PROTOCOLS)}")
    return modes


class Demo:
    """One run, from the empty directory to the last line of output."""

    def __init__(self, args: argparse.Namespace, isolation: Isolation) -> None:
        self._args = args
        self._isolation = isolation
        self._stdout = Console()
        self._stderr = Console(stderr=True)
        self._performance = Performance(args.mode)
        self._signal = 0
        self._passed = False

    async def run(self) -> int:
        """Set up, play, report, perhaps hold; whatever happens, take everything down again."""
        self._catch_signals()
        try:
            with tempfile.TemporaryDirectory(prefix="konnectivity-demo-") as directory:
                await self._run_in(Path(directory))
        except asyncio.CancelledError:
            if self._passed:  # Ctrl-C is how --hold ends
                return 0
            self._report(f"interrupted by {signal.Signals(self._signal).name}")
            return 128 + self._signal
        except TimeoutError:
            self._report(f"not done in {TIMEOUT:g} s")
        except (KonnectivityError, OSError) as error:
            self._report(str(error))
        return 0 if self._passed else 1

    async def _run_in(self, directory: Path) -> None:
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(TIMEOUT):
                with progress_bar(self._stderr, total=len(self._performance)) as bar:
                    network = await stack.enter_async_context(
                        cluster_network(self._isolation.kind, directory=directory)
                    )
                    self._announce(network)
                    stage = await stack.enter_async_context(set_up(network, directory=directory))
                    await self._performance.play(stage, network, bar)
            files = self._write_configurations(stage, directory) if self._args.hold else {}
            self._report(self._performance.failure, files)
            if self._args.hold and self._passed:
                self._explain_hold(files)
                await asyncio.Event().wait()

    def _catch_signals(self) -> None:
        """Turn the first signal into the cancellation of this task; further ones do nothing."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - run() is a coroutine of some task

        def stop(number: int) -> None:
            if not self._signal:
                self._signal = number
                task.cancel()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, partial(stop, number))

    def _announce(self, network: Network) -> None:
        if self._args.json:
            return
        self._say(f"cluster network: {network.description}")
        if self._isolation.reason:
            self._say(f"  no network namespace: {self._isolation.reason}")

    def _report(self, failure: str | None, files: dict[str, str] | None = None) -> None:
        """Say what held and how it ended; `files` are the configurations by protocol."""
        self._passed = failure is None
        if self._args.json:
            self._report_json(failure, files or {})
            return
        if self._performance.rows:
            self._stdout.print(table(self._performance.rows), "")
        self._say("demo passed" if failure is None else f"demo failed: {failure}")

    def _report_json(self, failure: str | None, files: dict[str, str]) -> None:
        outcome = {
            "passed": failure is None,
            "failure": failure,
            "network": {
                "kind": self._isolation.kind,
                "isolated": self._isolation.kind != "loopback",
                "reason": self._isolation.reason or None,
            },
            "rows": [row.as_json() for row in self._performance.rows],
            "egress_selector_configurations": files,
        }
        self._stdout.file.write(json.dumps(outcome, indent=2) + "\n")
        self._stdout.file.flush()

    def _write_configurations(self, stage: Stage, directory: Path) -> dict[str, str]:
        """One EgressSelectorConfiguration for each frontend; returns their paths by protocol."""
        files = {}
        for mode in self._args.mode:
            file = directory / f"egress-selector-{mode}.yaml"
            file.write_text(egress_selector_configuration(mode, stage.socket_path))
            files[PROTOCOLS[mode]] = str(file)
        return files

    def _explain_hold(self, files: dict[str, str]) -> None:
        if self._args.json:
            return
        for protocol, file in files.items():
            self._say(f"\nkube-apiserver {FLAG}={file}  # {protocol}\n")
            self._say(Path(file).read_text().rstrip())
        self._say("\nrunning until Ctrl-C")

    def _say(self, text: str) -> None:
        self._stdout.print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
