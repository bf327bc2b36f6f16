"""The first screen of `konnectivity status`: the four questions, the matrix, causes, last heal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from konnectivity.diagnose.matrix import AgentRow, Pair
from konnectivity.diagnose.view import StatusView
from konnectivity.diagnose.wording import UNKNOWN, age, cell, clean, left, number, seconds

FEW: Final = 20
"""Agents that are listed; of more only so many, those in trouble first."""
MOST_COLUMNS: Final = 6
"""Servers with a column each."""
MOST_LINES: Final = 10
"""Causes, and unknown things, that are told."""
STYLES: Final = {
    "healthy": "bold green",
    "degraded": "bold yellow",
    "down": "bold red",
    "unknown": "bold magenta",
    "ok": "",
    "bad": "red",
}
MARKS: Final = {"ok": "ok", "bad": "!!", "unknown": "??"}
WORDS: Final = {"draining": "drain", "missing": "--", "unknown": "?"}


def screen(view: StatusView, *, wide: bool = False) -> Iterator[RenderableType]:
    """The parts of the screen, from top to bottom."""
    yield _title(view)
    yield _first_questions(view)
    if view.agents:
        yield _matrix(view, wide=wide)
    if view.causes or view.last_heal or view.unknown:
        yield _notes(view, wide=wide)


def _title(view: StatusView) -> Text:
    text = Text("Tunnel ")
    text.append(view.verdict.upper(), STYLES[view.verdict])
    text.append(f": {clean(view.summary, 160)}")
    if view.cluster:
        text.append(f"\nCluster {clean(view.cluster, 80)} {clean(view.cluster_version)}".rstrip())
    return text


def _first_questions(view: StatusView) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    ready = sum(each.state == "ready" for each in view.servers)
    if view.servers:
        versions = _versions(each.version or each.state for each in view.servers)
        table.add_row("Servers", Text(f"{ready}/{len(view.servers)}"), Text(f"ready   {versions}"))
    connected = [each for each in view.agents if each.connected]
    versions = _versions(_version(each) for each in connected)
    table.add_row(
        "Agents", Text(f"{len(connected)}/{len(view.agents)}"), Text(f"connected   {versions}")
    )
    for step in view.steps:
        mark = Text(MARKS[step.answer], STYLES[step.answer])
        table.add_row(step.name.capitalize(), mark, Text(clean(step.text, 160)))
    return table


def _version(agent: AgentRow) -> str:
    """A stock agent tells its library's version, which is not its own."""
    return agent.version if agent.ours else "stock"


def _versions(found: Iterable[str]) -> str:
    counted = Counter(each or "?" for each in found).most_common(4)
    return ", ".join(f"{clean(name, 24)} x{count}" for name, count in counted)


# The matrix


def _matrix(view: StatusView, *, wide: bool) -> Table:
    shown = view.agents if wide else view.agents[:FEW]
    servers = [pair.server for pair in shown[0].pairs]
    own = servers if wide or len(servers) <= MOST_COLUMNS else []
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("Agent", no_wrap=True, overflow="ellipsis", min_width=12)
    for name in own or (["Servers"] if servers else []):
        table.add_column(cell(name, longest=20), no_wrap=True, min_width=4)
    for title in ("Tunnels", "p99 dial", "Failed 5m", "Cert", "Heard"):
        table.add_column(title, no_wrap=True, justify="right")
    if wide:
        for title in ("Node", "Pod", "Version"):
            table.add_column(title, no_wrap=True, overflow="ellipsis")
    table.add_column("Trouble", overflow="fold")
    for each in shown:
        table.add_row(*_row(each, columns=bool(own), wide=wide, now=view.taken_at))
    if len(shown) < len(view.agents):
        table.add_section()
        table.add_row(*_rest(view.agents[FEW:], columns=len(own) or bool(servers)))
    return table


def _row(agent: AgentRow, *, columns: bool, wide: bool, now: float) -> list[Text]:
    style = "yellow" if agent.trouble else ""
    found = [cell(agent.id, style)]
    if columns:
        found += [_pair(each) for each in agent.pairs]
    elif agent.pairs:
        here = sum(each.state in ("ok", "draining", "doubled") for each in agent.pairs)
        found.append(Text(f"{here}/{len(agent.pairs)}"))
    found += [
        Text(number(agent.tunnels)),
        Text(seconds(agent.dial_p99)),
        Text(number(agent.failed_recently), "red" if agent.failed_recently else ""),
        Text(left(agent.certificate_not_after, now)),
        Text(age(agent.heard_at, now)),
    ]
    if wide:
        version = agent.version or UNKNOWN
        found += [
            cell(agent.node or UNKNOWN),
            cell(agent.pod or UNKNOWN),
            cell(version, longest=24),
        ]
    return [*found, cell(agent.trouble, style, longest=120)]


def _pair(pair: Pair) -> Text:
    if pair.state in WORDS:
        style = "red" if pair.state == "missing" else "dim"
        return Text(WORDS[pair.state], style)
    trip = "" if pair.round_trip is None else f" {seconds(pair.round_trip)}"
    return Text(f"{'ok' if pair.state == 'ok' else 'twice'}{trip}")


def _rest(agents: Sequence[AgentRow], *, columns: int) -> list[Text]:
    """One row for all agents that are not listed."""
    troubled = sum(bool(each.trouble) for each in agents)
    words = f"{troubled} in trouble" if troubled else "all well"
    trips = [p.round_trip for each in agents for p in each.pairs if p.round_trip is not None]
    mean = f"~{seconds(sum(trips) / len(trips))}" if trips else ""
    return [
        Text(f"{len(agents)} more"),
        *(Text(mean if not at else "") for at in range(columns)),
        Text(str(sum(each.tunnels for each in agents))),
        Text(""),
        Text(str(sum(each.failed_recently for each in agents))),
        Text(""),
        Text(""),
        Text(f"{words}; -o wide lists them"),
    ]


# Below


def _notes(view: StatusView, *, wide: bool) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    most = len(view.causes) if wide else MOST_LINES
    for at, each in enumerate(view.causes[:most]):
        line = Text(f"{each.code} ", "red" if each.error else "yellow")
        line.append(f"{clean(each.subject, 80)}: {clean(each.text, 240)}", "default")
        table.add_row("" if at else "Why", line)
    if len(view.causes) > most:
        table.add_row("", Text(f"{len(view.causes) - most} more: konnectivity doctor"))
    if heal := view.last_heal:
        when = f"{age(heal.at, view.taken_at)} ago" if heal.at is not None else "once"
        text = f"{heal.object} {when}: {heal.reason}, {heal.message}"
        table.add_row("Last heal", Text(clean(text, 200)))
    for at, text in enumerate(view.unknown[:MOST_LINES]):
        table.add_row("" if at else "Not known", Text(clean(text, 240)))
    return table
