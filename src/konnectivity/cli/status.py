"""`konnectivity status`: agents, servers and what is between them, at a glance or as JSON.

Exit statuses: 0 healthy, 1 not, 2 misused, 3 it cannot be told.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live

from konnectivity.cli import look
from konnectivity.cli.run import Description
from konnectivity.diagnose import tables
from konnectivity.diagnose.facts import Facts
from konnectivity.diagnose.gather import gather
from konnectivity.diagnose.screen import screen
from konnectivity.diagnose.sources import SourceOptions, Sources
from konnectivity.diagnose.view import EXIT_STATUS, SCHEMA, StatusView
from konnectivity.diagnose.view import look as judge
from konnectivity.diagnose.wording import clean
from konnectivity.flag import flag
from konnectivity.gotext import quote
from konnectivity.observe.status_json import to_plain

COMMAND: Final = Description(
    name="konnectivity status",
    about=(
        "Show whether agents run, whether each is connected to each server, and why not. It reads "
        "the servers' admin API, the cluster's API and the agents' heartbeats, never the tunnel, "
        "and changes nothing. Exit status: 0 healthy, 1 not, 3 it cannot be told."
    ),
    examples=(
        "# on a host of the control plane",
        "{command} --kubeconfig=/etc/kubernetes/admin.conf",
        "",
        "# all servers of an installation",
        "{command} --server=https://10.0.0.11:8095,https://10.0.0.12:8095 \\",
        "    --server-ca=ca.crt --server-token-file=token",
        "",
        "# in a pipeline: until all is well, for five minutes at most",
        "{command} --wait --wait-timeout=5m",
        "",
        "# what has failed, and what has happened",
        "{command} --dials",
        "{command} --history",
    ),
)
FORMATS: Final = ("text", "wide", "json", "name")


@dataclass(frozen=True)
class StatusOptions(SourceOptions):
    """All flags of the command."""

    flags_title: ClassVar[str] = "Flags"

    servers: bool = flag(False, "Servers alone, in detail.")
    agents: bool = flag(False, "Agents alone, in detail.")
    tunnels: bool = flag(False, "Tunnels, the busiest first.")
    dials: bool = flag(False, "The last dials, failed ones first.")
    history: bool = flag(False, "What has happened, newest first: servers' events and Kubernetes'.")
    output: str = flag("text", "Format: text, wide (all rows), json or name (ids).", short="o")
    watch: bool = flag(False, "Show it again and again.", short="w")
    interval: float = flag(2.0, "Time between two looks.")
    wait: bool = flag(False, "Look until all is healthy, then show it.")
    wait_timeout: float = flag(300.0, "For how long at most.")


def main(argv: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    return look.run(COMMAND, StatusOptions, argv, _start, check=lambda it: list(_problems(it)))


def _problems(options: StatusOptions) -> Iterator[str]:
    if options.output not in FORMATS:
        yield f"output must be one of {', '.join(FORMATS)}, not {quote(options.output)}"
    if len(_views(options)) > 1:
        yield f"one of {', '.join(f'--{each}' for each in _views(options))} at a time"
    if options.interval <= 0:
        yield "interval must be > 0s"
    if options.watch and options.wait:
        yield "watch and wait exclude each other"


def _views(options: StatusOptions) -> list[str]:
    return [name for name in tables.VIEWS if getattr(options, name)]


def _start(options: StatusOptions, sources: Sources) -> int:
    sources = dataclasses.replace(
        sources,
        tunnels=10_000 if options.tunnels else 0,
        nodes=False,
    )
    return asyncio.run(_run(options, sources))


async def _run(options: StatusOptions, sources: Sources) -> int:
    if options.watch:
        return await _watch(options, sources)
    deadline = time.monotonic() + options.wait_timeout
    while True:
        facts = await gather(sources)
        view = judge(facts)
        over = time.monotonic() + options.interval > deadline
        if not options.wait or view.verdict == "healthy" or over:
            break
        await asyncio.sleep(options.interval)
    _show(options, facts, view, look.console())
    return EXIT_STATUS[view.verdict]


async def _watch(options: StatusOptions, sources: Sources) -> int:
    """On a terminal in place, else one after the other."""
    console = look.console()
    if options.output in ("json", "name") or not console.is_terminal:
        while True:
            facts = await gather(sources)
            _show(options, facts, judge(facts), console)
            sys.stdout.flush()
            await asyncio.sleep(options.interval)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            facts = await gather(sources)
            live.update(Group(*_parts(options, facts, judge(facts))), refresh=True)
            await asyncio.sleep(options.interval)


def _show(options: StatusOptions, facts: Facts, view: StatusView, console: Console) -> None:
    if options.output == "json":
        sys.stdout.write(json.dumps(_plain(options, facts, view), indent=2) + "\n")
    elif options.output == "name":
        sys.stdout.write("".join(f"{name}\n" for name in _names(options, facts, view)))
    else:
        for part in _parts(options, facts, view):
            console.print(part)


def _parts(options: StatusOptions, facts: Facts, view: StatusView) -> Iterator[RenderableType]:
    wide = options.output == "wide"
    for name in _views(options):
        found = tables.records(name, facts, view)
        yield tables.table(name, found, now=view.taken_at, wide=wide)
        return
    yield from screen(view, wide=wide)


def _plain(options: StatusOptions, facts: Facts, view: StatusView) -> object:
    """The document; of one view the list under its name."""
    for name in _views(options):
        found = tables.records(name, facts, view)
        return {"schema": SCHEMA, "takenAt": to_plain(view)["takenAt"]} | {
            name: [to_plain(each) for each in found]
        }
    return to_plain(view)


def _names(options: StatusOptions, facts: Facts, view: StatusView) -> Iterator[str]:
    """Ids, a line each: of servers, else of agents."""
    rows = view.servers if options.servers else view.agents
    ids = (getattr(each, "name", "") or getattr(each, "id", "") for each in rows)
    return (clean(each, 1 << 16) for each in ids)
