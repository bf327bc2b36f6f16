"""The other views of `konnectivity status`: servers, agents, tunnels, dials, history.

Each is a list of records, for JSON as they are, and a table of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich import box
from rich.table import Table
from rich.text import Text

from konnectivity.diagnose.facts import Facts
from konnectivity.diagnose.matrix import AgentRow
from konnectivity.diagnose.view import ServerRow, StatusView
from konnectivity.diagnose.wording import UNKNOWN, age, cell, left, number, seconds, size
from konnectivity.observe.status import Event, Time

VIEWS: Final = ("servers", "agents", "tunnels", "dials", "history")
FEW: Final = 50
"""Records that a table shows; `-o wide` shows all, JSON has all."""


@dataclass(frozen=True, slots=True)
class TunnelRecord:
    """One tunnel at one server; bytes `up` go to the endpoint."""

    server: str
    agent: str
    destination: str
    mode: str
    frontend: str
    state: str
    since: Time
    up: int
    down: int


@dataclass(frozen=True, slots=True)
class DialRecord:
    """One dial that ended."""

    at: Time
    server: str
    agent: str
    destination: str
    result: str
    seconds: float
    error: str


@dataclass(frozen=True, slots=True)
class HistoryRecord:
    """Something that happened: `source` is a server, or the cluster's Events."""

    at: Time
    source: str
    kind: str
    about: str
    text: str


Record = ServerRow | AgentRow | TunnelRecord | DialRecord | HistoryRecord


def records(name: str, facts: Facts, view: StatusView) -> list[Any]:
    """The records of one of `VIEWS`, the most interesting first."""
    if name == "servers":
        return list(view.servers)
    if name == "agents":
        return list(view.agents)
    if name == "tunnels":
        return sorted(_tunnels(facts), key=lambda each: -(each.up + each.down))
    if name == "dials":
        return sorted(_dials(facts), key=lambda each: (each.result == "ok", -each.at))
    return sorted(_history(facts), key=lambda each: -each.at)


def _tunnels(facts: Facts) -> Iterator[TunnelRecord]:
    for server in facts.servers:
        for each in server.status.tunnels if server.status else ():
            yield TunnelRecord(
                server=server.name,
                agent=each.peer,
                destination=each.destination,
                mode=each.mode,
                frontend=each.frontend,
                state=each.state,
                since=each.since,
                up=each.traffic.up,
                down=each.traffic.down,
            )


def _dials(facts: Facts) -> Iterator[DialRecord]:
    for server in facts.servers:
        dials = server.status.dials if server.status else None
        seen = {*dials.recent, *dials.recent_failures} if dials else ()
        for each in seen:
            yield DialRecord(
                each.time,
                server.name,
                each.peer,
                each.destination,
                each.result,
                each.seconds,
                each.error,
            )


def _history(facts: Facts) -> Iterator[HistoryRecord]:
    for server in facts.servers:
        for each in server.events:
            yield _event(server.name, each)
    for told in facts.cluster.events if facts.cluster else ():
        if told.time is not None:
            times = f" (x{told.count})" if told.count > 1 else ""
            text = told.message + times
            yield HistoryRecord(Time(told.time), "cluster", told.reason, told.object, text)


def _event(server: str, event: Event) -> HistoryRecord:
    facts = {key: value for key, value in event.facts.items() if value not in (None, "")}
    about = str(facts.pop("agent", "") or facts.pop("flag", ""))
    text = ", ".join(f"{key}={value}" for key, value in facts.items())
    return HistoryRecord(event.time, server, event.kind, about, text)


# Tables

_RIGHT: Final = frozenset(
    ["Agents", "Tunnels", "Pending", "Failed", "p99 dial", "Took", "Up", "Down", "Failed 5m"]
)


def table(name: str, found: Sequence[Any], *, now: float, wide: bool) -> Table:
    """The records of a view as a table, which says how many it leaves out."""
    heads, row = _TABLES[name]
    titles = heads.split("|")
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title in titles:
        made.add_column(
            title,
            justify="right" if title in _RIGHT else "left",
            no_wrap=title != titles[-1],
            overflow="fold" if title == titles[-1] else "ellipsis",
        )
    shown = found if wide else found[:FEW]
    for each in shown:
        made.add_row(*row(each, now))
    if len(shown) < len(found):
        made.caption = Text(f"{len(found) - len(shown)} more: -o wide")
        made.caption_justify = "left"
    return made


def _server_row(each: ServerRow, now: float) -> list[Text]:
    return [
        cell(each.name),
        cell(each.state, "" if each.state == "ready" else "red"),
        cell(each.version or UNKNOWN, longest=24),
        Text(age(each.started_at, now)),
        Text(number(each.agents)),
        Text(number(each.tunnels)),
        Text(number(each.pending_dials)),
        Text(number(each.dials_failed)),
        Text(left(each.certificate_not_after, now)),
        cell(each.url, longest=80),
        cell(each.error, "red", longest=160),
    ]


def _agent_row(each: AgentRow, now: float) -> list[Text]:
    here = sum(pair.state in ("ok", "draining", "doubled") for pair in each.pairs)
    return [
        cell(each.id),
        Text(f"{here}/{len(each.pairs)}"),
        cell(each.version or UNKNOWN, longest=24),
        cell(each.node or UNKNOWN),
        cell(each.pod or UNKNOWN),
        Text(number(each.tunnels)),
        Text(seconds(each.dial_p99)),
        Text(number(each.failed_recently)),
        Text(left(each.certificate_not_after, now)),
        Text(age(each.heard_at, now)),
        cell(each.trouble, "yellow", longest=160),
    ]


def _tunnel_row(each: TunnelRecord, now: float) -> list[Text]:
    return [
        cell(each.destination),
        cell(each.state),
        cell(each.server),
        cell(each.agent),
        cell(each.mode),
        Text(age(each.since, now)),
        Text(size(each.up)),
        Text(size(each.down)),
        cell(each.frontend),
    ]


def _dial_row(each: DialRecord, now: float) -> list[Text]:
    return [
        Text(f"{age(each.at, now)} ago"),
        cell(each.result, "" if each.result == "ok" else "red"),
        cell(each.destination),
        cell(each.server),
        cell(each.agent or UNKNOWN),
        Text(seconds(each.seconds)),
        cell(each.error, longest=200),
    ]


def _history_row(each: HistoryRecord, now: float) -> list[Text]:
    return [
        Text(f"{age(each.at, now)} ago"),
        cell(each.source),
        cell(each.kind),
        cell(each.about),
        cell(each.text, longest=200),
    ]


_TABLES: Final[dict[str, tuple[str, Any]]] = {
    "servers": (
        "Server|State|Version|Up for|Agents|Tunnels|Pending|Failed|Cert|Address|Error",
        _server_row,
    ),
    "agents": (
        "Agent|Servers|Version|Node|Pod|Tunnels|p99 dial|Failed 5m|Cert|Heard|Trouble",
        _agent_row,
    ),
    "tunnels": (
        "Destination|State|Server|Agent|Mode|For|Up|Down|Frontend",
        _tunnel_row,
    ),
    "dials": (
        "When|Result|Destination|Server|Agent|Took|Error",
        _dial_row,
    ),
    "history": ("When|Source|Event|About|Details", _history_row),
}
