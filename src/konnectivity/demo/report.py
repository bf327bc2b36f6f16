"""What the demo shows: a progress bar while it works, then a table, or JSON for machines."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from konnectivity.demo.scenes import Advance, Measurement

_BULK = 1_000_000  # bytes from which a rate in bytes says more than one in steps


_COLOURS = {True: "green", False: "red", None: "yellow"}


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was tried. `held` is None where it could not be tried."""

    frontend: str
    what: str
    held: bool | None
    measured: Measurement

    @property
    def p50(self) -> float | None:
        """Median latency of the steps, in seconds."""
        return statistics.median(self.measured.latencies) if self.measured.latencies else None

    @property
    def summary(self) -> str:
        """The row as a line of text."""
        place = f"{self.frontend}: " if self.frontend else ""
        return f"{place}{self.what}: {self.measured.result}"

    def as_json(self) -> dict[str, object]:
        """Sizes in bytes, times in seconds; null where nothing was measured."""
        measured = self.measured
        return {
            "frontend": self.frontend or None,
            "what": self.what,
            "held": self.held,
            "result": measured.result,
            "bytes": measured.size,
            "seconds": measured.duration,
            "steps": len(measured.latencies),
            "p50_latency": self.p50,
        }


def table(rows: Sequence[Row]) -> Table:
    """Everything that was tried, in order, one section for each frontend."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    drawn.add_column("what")
    drawn.add_column("result")
    for column in ("bytes", "rate", "p50 latency"):
        drawn.add_column(column, justify="right", no_wrap=True)
    frontend = ""
    for row in rows:
        if row.frontend != frontend:
            frontend = row.frontend
            drawn.add_section()
            drawn.add_row(frontend, style="bold")
        drawn.add_row(
            f"  {row.what}" if frontend else row.what,
            Text(row.measured.result, style=_COLOURS[row.held]),
            _bytes(row.measured.size),
            _rate(row.measured),
            "" if row.p50 is None else f"{row.p50 * 1e3:.2f} ms",
        )
    return drawn


def _bytes(size: int) -> str:
    if size >= _BULK:
        return f"{size / 1e6:.0f} MB"
    return f"{size / 1e3:.1f} kB" if size else ""


def _rate(measured: Measurement) -> str:
    if not measured.duration:
        return ""
    if measured.size >= _BULK:
        return f"{measured.size / measured.duration / 1e6:.0f} MB/s"
    return f"{len(measured.latencies) / measured.duration:.0f}/s"


class Bar:
    """Progress on stderr: a bar on a terminal, else a line for each row that is done."""

    def __init__(self, console: Console, progress: Progress, total: int) -> None:
        self._console = console
        self._progress = progress
        self._task = progress.add_task("setting up", total=total)
        self._done = 0

    def begin(self, what: str) -> Advance:
        """Show what is tried now; call the result with the part that is done, from 0 to 1."""
        self._progress.update(self._task, description=what)
        return lambda part: self._progress.update(self._task, completed=self._done + part)

    def finish(self, row: Row) -> None:
        """Count one row as done."""
        self._done += 1
        self._progress.update(self._task, completed=self._done)
        if self._progress.disable:
            self._console.print(row.summary, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def progress_bar(console: Console, *, total: int) -> Iterator[Bar]:
    """A bar of `total` rows, gone at the end."""
    progress = Progress(
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal or console.is_dumb_terminal,
    )
    with progress:
        yield Bar(console, progress, total)
