"""`konnectivity top`: servers, agents and the busiest tunnels, live.

On a terminal it redraws itself and takes keys; without one it prints one look after the other. A
server that goes away is shown as such, and comes back when it does.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Final

from rich.console import Console, Group
from rich.live import Live

from konnectivity.cli import look
from konnectivity.cli.run import OK, Description
from konnectivity.diagnose.facts import Facts
from konnectivity.diagnose.gather import gather
from konnectivity.diagnose.sources import SourceOptions, Sources
from konnectivity.diagnose.top_screen import ORDERS, top_screen
from konnectivity.flag import flag
from konnectivity.gotext import quote

COMMAND: Final = Description(
    name="konnectivity top",
    about=(
        "Show servers, agents and the busiest tunnels with their rates, live. It reads the "
        "servers' admin API alone. Keys: q quits, the first line names those that sort."
    ),
    examples=(
        "# on a host of the control plane",
        "{command}",
        "",
        "# all servers, each five seconds, those with most failures first",
        "{command} --server=http://10.0.0.11:8095,http://10.0.0.12:8095 --interval=5s --sort=f",
        "",
        "# into a file",
        "{command} --count=2 > top.txt",
    ),
)
QUIT: Final = frozenset(["q", "Q", "\x03", "\x04", "\x1b"])
TALL: Final = 200
"""Lines of a look that is printed, not shown on a terminal."""


@dataclass(frozen=True)
class TopOptions(SourceOptions):
    """All flags of the command."""

    flags_title: ClassVar[str] = "Flags"

    interval: float = flag(2.0, "Time between two looks.")
    sort: str = flag("t", "Key that sorts the agents: t, n, r, d, f or a.")
    count: int = flag(0, "How many looks; 0: until it is stopped.", short="n")


def main(argv: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    return look.run(COMMAND, TopOptions, argv, _start, check=lambda it: list(_problems(it)))


def _problems(options: TopOptions) -> Iterator[str]:
    if options.sort not in ORDERS:
        yield f"sort must be one of {', '.join(ORDERS)}, not {quote(options.sort)}"
    if options.interval <= 0:
        yield "interval must be > 0s"
    if options.count < 0:
        yield "count must be >= 0"


def _start(options: TopOptions, sources: Sources) -> int:
    sources = dataclasses.replace(
        sources, cluster=None, tunnels=10_000, events=False, metrics=False
    )
    console = look.console()
    live = console.is_terminal and sys.stdin.isatty()
    return asyncio.run((_live if live else _plain)(options, sources, console))


async def _plain(options: TopOptions, sources: Sources, console: Console) -> int:
    before: Facts | None = None
    done = 0
    while True:
        now = await gather(sources)
        for part in top_screen(before, now, order=options.sort, height=TALL):
            console.print(part)
        sys.stdout.flush()
        before, done = now, done + 1
        if done == options.count:
            return OK
        await asyncio.sleep(options.interval)


async def _live(options: TopOptions, sources: Sources, console: Console) -> int:
    before: Facts | None = None
    now: Facts | None = None
    order, done = options.sort, 0
    with _keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            before, now = now, await gather(sources)
            done += 1
            deadline = asyncio.get_running_loop().time() + options.interval
            while True:
                parts = top_screen(before, now, order=order, height=console.height)
                live.update(Group(*parts), refresh=True)
                key = await _key(keys, deadline)
                if key in QUIT or (not key and done == options.count):
                    return OK
                if not key:
                    break
                order = key if key in ORDERS else order


async def _key(keys: asyncio.Queue[str], deadline: float) -> str:
    """The next key, or an empty string when it is time for the next look."""
    try:
        async with asyncio.timeout_at(deadline):
            return await keys.get()
    except TimeoutError:
        return ""


@contextmanager
def _keys() -> Iterator[asyncio.Queue[str]]:
    """Keys as they are pressed, without an echo; the terminal is as before at the end."""
    keys: asyncio.Queue[str] = asyncio.Queue()
    loop, number = asyncio.get_running_loop(), sys.stdin.fileno()

    def read() -> None:
        try:
            text = os.read(number, 64).decode(errors="ignore")
        except OSError:
            text = ""
        if not text:
            loop.remove_reader(number)  # the terminal is gone
        if len(text) > 1 and text.startswith("\x1b"):
            return  # an arrow, or the like
        for key in text or "q":
            keys.put_nowait(key)

    before = termios.tcgetattr(number)
    tty.setcbreak(number)
    loop.add_reader(number, read)
    try:
        yield keys
    finally:
        loop.remove_reader(number)
        termios.tcsetattr(number, termios.TCSADRAIN, before)
