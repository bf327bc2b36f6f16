"""The rows: what the load generator is told to do, and the figures that come out of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

IDLE_TUNNELS = 2000
DIRECT = "direct"  # no tunnel: the generator's own ceiling
CONNECT = "http-connect"
MODES = (DIRECT, CONNECT, "grpc")

Sample = Mapping[str, float]  # the generator's report, and what the pair's processes cost


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a row. `is_goal`: it is held against the reference."""

    label: str
    unit: str
    value: Callable[[Sample], float]
    less_is_better: bool = False
    is_goal: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """One run of the load generator, or a look at the pair at rest when `load` is empty."""

    name: str
    load: tuple[str, ...]
    figures: tuple[Figure, ...]

    @property
    def needs_pair(self) -> bool:
        """Whether the row says nothing without a server and an agent."""
        return any(figure.unit == "MB" for figure in self.figures)


def is_met(mode: str, ratio: float) -> bool:
    """Whether `ratio` (above 1: better than the reference) reaches the bar of `mode`."""
    return ratio >= 0.8 if mode == "grpc" else ratio > 1.0


def bar(mode: str) -> str:
    """Return the bar of `mode` for people."""
    return ">= 0.8" if mode == "grpc" else "> 1.0"


def chosen(patterns: str) -> tuple[Row, ...]:
    """Return the rows whose name matches one of the comma-separated shell `patterns`."""
    return tuple(
        row for row in ROWS if any(fnmatchcase(row.name, one) for one in patterns.split(","))
    )


def _rate(key: str, scale: float = 1.0) -> Callable[[Sample], float]:
    return lambda sample: sample[key] / sample["seconds"] / scale


def _plain(*keys: str, scale: float = 1.0) -> Callable[[Sample], float]:
    return lambda sample: sum(sample[key] for key in keys) / scale


def _bulk(direction: str, tunnels: int) -> Row:
    rate = _rate(f"{direction}_bytes", 1e6)
    label = f"{direction}, {tunnels} tunnel{'s' * (tunnels > 1)}"
    return Row(
        f"{direction}-{tunnels}", (f"--{direction}s={tunnels}",), (Figure(label, "MB/s", rate),)
    )


def _latency(label: str, percentile: str, *, is_goal: bool) -> Figure:
    return Figure(
        f"{label} {percentile}", "us", _plain(f"echo_{percentile}_us"), True, is_goal=is_goal
    )


def _memory(label: str, *keys: str, is_goal: bool = True) -> Figure:
    return Figure(label, "MB", _plain(*keys, scale=1e6), True, is_goal=is_goal)


ROWS = (
    Row(
        "rest",
        (),
        (
            _memory("at rest, both, RSS", "server_rss", "agent_rss"),
            _memory("at rest, both, PSS", "server_pss", "agent_pss", is_goal=False),
        ),
    ),
    Row(
        "idle",
        (f"--idles={IDLE_TUNNELS}",),
        (
            _memory(f"{IDLE_TUNNELS} idle tunnels, server RSS", "server_rss"),
            _memory(f"{IDLE_TUNNELS} idle tunnels, agent RSS", "agent_rss"),
            _memory(f"{IDLE_TUNNELS} idle tunnels, server PSS", "server_pss", is_goal=False),
            _memory(f"{IDLE_TUNNELS} idle tunnels, agent PSS", "agent_pss", is_goal=False),
        ),
    ),
    _bulk("download", 1),
    _bulk("download", 8),
    _bulk("upload", 1),
    _bulk("upload", 8),
    Row(
        "echo-1",
        ("--echoes=1",),
        (
            _latency("echo 64 B, 1 tunnel,", "p50", is_goal=True),
            _latency("echo 64 B, 1 tunnel,", "p99", is_goal=False),
        ),
    ),
    Row(
        "echo-64",
        ("--echoes=64",),
        (
            Figure("echo 64 B, 64 tunnels", "/s", _rate("echoes")),
            _latency("echo 64 B, 64 tunnels,", "p99", is_goal=False),
        ),
    ),
    Row(
        "echo-199",
        ("--echoes=199",),
        (
            _latency("echo 64 B, 199 tunnels,", "p50", is_goal=False),
            _latency("echo 64 B, 199 tunnels,", "p99", is_goal=False),
        ),
    ),
    Row(
        "stalled-199",
        ("--stalls=1", "--echoes=199"),
        (
            _latency("the same beside a stalled reader,", "p50", is_goal=False),
            _latency("the same beside a stalled reader,", "p99", is_goal=False),
        ),
    ),
    Row("dial-1", ("--dialers=1",), (Figure("dial+close, sequential", "/s", _rate("dials")),)),
    Row("dial-32", ("--dialers=32",), (Figure("dial+close, 32 parallel", "/s", _rate("dials")),)),
    Row(
        "busy",
        ("--downloads=8", "--echoes=1"),
        (
            _latency("echo under 8 downloads,", "p50", is_goal=False),
            _latency("echo under 8 downloads,", "p99", is_goal=True),
            Figure("those 8 downloads", "MB/s", _rate("download_bytes", 1e6), is_goal=False),
        ),
    ),
)
