"""The screen of `konnectivity top`: servers, agents, busiest tunnels, the last failures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from konnectivity.diagnose.facts import Facts
from konnectivity.diagnose.rates import AgentRate, TunnelRate, agent_rates, dial_rate, tunnel_rates
from konnectivity.diagnose.wording import age, cell, clean, seconds, size

ORDERS: Final[dict[str, tuple[str, Callable[[AgentRate], Any]]]] = {
    "t": ("traffic", lambda each: (-each.traffic, -each.tunnels, each.id)),
    "n": ("tunnels", lambda each: (-each.tunnels, each.id)),
    "r": ("round trip", lambda each: (-(each.round_trip or 0.0), each.id)),
    "d": ("dials", lambda each: (-each.dials, each.id)),
    "f": ("failures", lambda each: (-each.failed, each.id)),
    "a": ("name", lambda each: each.id),
}
"""How agents are sorted, by the key that asks for it."""
FRAME: Final = 14
"""Lines for headings and the like, which are not for rows."""
FAILURES: Final = 4


def top_screen(
    before: Facts | None, now: Facts, *, order: str, height: int
) -> Iterator[RenderableType]:
    """The parts of the screen for so many lines; without `before` all rates are 0."""
    agents = sorted(agent_rates(before, now), key=ORDERS[order][1])
    tunnels = tunnel_rates(before, now)
    failures = list(_failures(now))
    rows = max(4, height - FRAME - len(now.servers) - len(failures))
    few = min(len(tunnels), max(2, rows // 3))
    yield _title(now, agents, order)
    yield _servers(before, now)
    yield _agents(agents[: max(2, rows - few)], len(agents))
    if tunnels:
        yield _tunnels(tunnels[:few], sum(1 for _ in tunnels))
    if failures:
        yield Text("\n").join([Text("Last failures", "bold"), *failures])


def _title(now: Facts, agents: Sequence[AgentRate], order: str) -> Text:
    clock = time.strftime("%H:%M:%S", time.localtime(now.taken_at))
    up, down = sum(each.up for each in agents), sum(each.down for each in agents)
    text = Text(f"{clock}  {len(agents)} agents  ")
    text.append(f"{sum(each.tunnels for each in agents)} tunnels  up {size(up)}/s  ")
    text.append(f"down {size(down)}/s")
    keys = " ".join(f"{key}={name}" for key, (name, _) in ORDERS.items())
    text.append(f"\nsorted by {ORDERS[order][0]}; {keys} q=quit", "dim")
    return text


def _servers(before: Facts | None, now: Facts) -> Table:
    table = _table("Server", "State", "Agents", "Tunnels", "Pending", "Dials/s", "Failed/s")
    known = {each.url: each for each in before.servers} if before else {}
    elapsed = now.taken_at - before.taken_at if before else 0.0
    for each in now.servers:
        status = each.status
        if status is None:
            why = "stock" if each.samples else each.trouble or "unknown"
            table.add_row(cell(each.name), Text(why, "red"), *[Text("-")] * 5)
            continue
        dials, failed = dial_rate(known.get(each.url), each, elapsed)
        state = "ready" if status.server.ready else status.server.unready or status.server.state
        table.add_row(
            cell(each.name),
            cell(state, "" if status.server.ready else "red"),
            Text(str(len(status.agents))),
            Text(str(status.tunnel_counts.open)),
            Text(str(status.dials.pending)),
            Text(f"{dials:.1f}"),
            Text(f"{failed:.1f}", "red" if failed else ""),
        )
    if not now.servers:
        told = str(next(iter(now.problems), "no server was asked"))
        table.add_row(Text("-"), Text(clean(told, 120), "red"), *[Text("-")] * 5)
    return table


def _agents(shown: Sequence[AgentRate], of: int) -> Table:
    heads = ("Agent", "Servers", "Trip", "Tunnels", "Up/s", "Down/s", "Dials/s", "Failed/s")
    table = _table(*heads)
    for each in shown:
        table.add_row(
            cell(each.id, "dim" if each.draining else ""),
            Text(f"{each.servers}{' drain' if each.draining else ''}"),
            Text(seconds(each.round_trip)),
            Text(str(each.tunnels)),
            Text(size(each.up)),
            Text(size(each.down)),
            Text(f"{each.dials:.1f}"),
            Text(f"{each.failed:.1f}", "red" if each.failed else ""),
        )
    return _with_rest(table, of - len(shown))


def _tunnels(shown: Sequence[TunnelRate], of: int) -> Table:
    table = _table("Busiest tunnels", "State", "For", "Up/s", "Down/s", "Total", "Agent", "Server")
    for each in shown:
        table.add_row(
            cell(each.destination),
            Text(each.state),
            Text(seconds(each.seconds)),
            Text(size(each.up)),
            Text(size(each.down)),
            Text(size(each.total)),
            cell(each.agent, longest=32),
            cell(each.server, longest=24),
        )
    return _with_rest(table, of - len(shown))


def _failures(now: Facts) -> Iterator[Text]:
    """The newest failed dials of all servers."""
    found = [
        (dial, server.name)
        for server in now.servers
        if server.status is not None
        for dial in server.status.dials.recent_failures[:FAILURES]
    ]
    for dial, server in sorted(found, key=lambda each: -each[0].time)[:FAILURES]:
        text = Text(f"{age(dial.time, now.taken_at)} ago  {clean(dial.result)}  ", "red")
        text.append(f"{clean(dial.destination)}  {clean(server, 24)}  {clean(dial.error, 80)}")
        text.no_wrap, text.overflow = True, "ellipsis"
        yield text


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column(first, no_wrap=True, overflow="ellipsis", min_width=16)
    for title in others:
        left = title in ("State", "Agent", "Server")
        table.add_column(title, no_wrap=True, justify="left" if left else "right")
    return table


def _with_rest(table: Table, rest: int) -> Table:
    if rest > 0:
        table.caption, table.caption_justify = Text(f"{rest} more", "dim"), "left"
    return table
