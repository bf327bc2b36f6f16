"""Simulate many clusters, and show how fast one manager mends them and what it costs.

python -m bench.fleet --clusters 1000 --json fleet.json --plot docs/fleet.svg
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.net.authority import Authority

from bench.fleet.plot import plot
from bench.fleet.processes import OBJECTS, api_process, manager_process, share, usage


async def simulate(line: argparse.Namespace) -> dict[str, Any]:
    """One simulation; its figures."""
    async with AsyncExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory()))
        authority = Authority(folder)
        clusters = folder / "clusters"
        clusters.mkdir()
        identity = authority.issue("127.0.0.1")
        counts = [
            line.clusters // line.processes + (number < line.clusters % line.processes)
            for number in range(line.processes)
        ]
        apis = [
            await exits.enter_async_context(
                api_process(
                    *(f"--cert={identity.cert}", f"--key={identity.key}"),
                    *(f"--bundle={authority.bundle}", f"--folder={clusters}"),
                    *(f"--clusters={count}", f"--first={sum(counts[:number])}"),
                    *(["--http1"] if line.http1 else []),
                )
            )
            for number, count in enumerate(counts)
        ]

        async def all_of(name: str, **options: Any) -> list[dict[str, Any]]:
            return await asyncio.gather(*(each.ask(name, **options) for each in apis))

        async def disturbed() -> list[float]:
            rate = line.rate / len(apis)
            found = await all_of("disturb", seconds=line.seconds, rate=rate)
            return sorted(each for answer in found for each in answer["restores"])

        started = time.monotonic()
        flags = [*line.flag, f"--health-server-port={line.port}"]
        pid = await exits.enter_async_context(manager_process(clusters, *flags))
        figures: dict[str, Any] = {"clusters": line.clusters, "objects": OBJECTS * line.clusters}
        await all_of("installed", objects=OBJECTS)
        figures["install_seconds"] = time.monotonic() - started
        print(f"installed after {figures['install_seconds']:.1f} s", flush=True)
        await asyncio.sleep(line.settle)
        before = usage(pid)
        await asyncio.sleep(line.idle)
        after = usage(pid)
        figures["idle_cpu"] = share(before, after)
        figures["memory_bytes"] = after.memory
        counted = await all_of("watches")
        for name in ("watches", "connections"):
            figures[name] = sum(each[name] for each in counted)
        print(f"idle: {figures['idle_cpu']:.2%} of a core, {after.memory >> 20} MiB", flush=True)
        figures["all_whole"] = await disturbed()
        show("all whole", figures["all_whole"])
        figures["broken"] = line.broken
        for number, api in enumerate(apis):
            count = line.broken // len(apis) + (number < line.broken % len(apis))
            await api.ask("damage", count=count)
        before = usage(pid)
        figures["some_broken"] = await disturbed()
        figures["broken_cpu"] = share(before, usage(pid))
        show(f"{line.broken} broken", figures["some_broken"])
        if line.log:
            Path(line.log).write_bytes((clusters / "manager.log").read_bytes())  # noqa: ASYNC240
        return figures


def show(name: str, times: list[float]) -> None:
    shown = ", ".join(
        f"{label} {times[min(len(times) - 1, int(len(times) * part))]:.3f} s"
        for label, part in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    )
    print(f"{name}: {len(times)} restores, {shown}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__)
    parser.add_argument("--clusters", type=int, default=50)
    parser.add_argument("--broken", type=int, default=None, help="default: a twentieth")
    parser.add_argument("--processes", type=int, default=2, help="of API servers")
    parser.add_argument("--http1", action="store_true", help="API servers without HTTP/2")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each disturbance")
    parser.add_argument("--rate", type=float, default=10.0, help="deletions a second")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds of each idle figure")
    parser.add_argument("--settle", type=float, default=5.0, help="seconds before that")
    parser.add_argument("--port", type=int, default=18096, help="health port of the manager")
    parser.add_argument("--flag", action="append", default=[], help="of the manager")
    parser.add_argument("--json", default="", help="file for all figures")
    parser.add_argument("--plot", default="", help="file for the distribution, as SVG")
    parser.add_argument("--log", default="", help="file for the manager's log")
    line = parser.parse_args()
    if line.broken is None:
        line.broken = line.clusters // 20
    figures = asyncio.run(simulate(line))
    if line.json:
        Path(line.json).write_text(json.dumps(figures, indent=1) + "\n")
    if line.plot:
        Path(line.plot).write_text(plot(figures))


if __name__ == "__main__":
    main()
