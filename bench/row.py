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
class Goal:
    """How many times better than the reference a figure is to be, by mode.

    `mixed` is for pairs of which one process is the reference's; None: they have no goal.
    """

    connect: float
    grpc: float
    mixed: float | None = None

    def least(self, mode: str, pair: str) -> float | None:
        """The ratio at which `pair` has reached it."""
        if "+" in pair:
            return self.mixed
        return self.grpc if mode == "grpc" else self.connect


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a row, and its goal if it is held against the reference."""

    label: str
    unit: str
    value: Callable[[Sample], float]
    less_is_better: bool = False
    goal: Goal | None = None

    def least(self, mode: str, pair: str) -> float | None:
        """The ratio that `pair` is to reach; None: no goal."""
        return self.goal.least(mode, pair) if self.goal is not None else None


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
    figure = Figure(label, "MB/s", rate, goal=Goal(connect=4, grpc=3, mixed=1.5))
    return Row(f"{direction}-{tunnels}", (f"--{direction}s={tunnels}",), (figure,))


def _latency(label: str, percentile: str, goal: Goal | None = None) -> Figure:
    value = _plain(f"echo_{percentile}_us")
    return Figure(f"{label} {percentile}", "us", value, less_is_better=True, goal=goal)


def _memory(label: str, *keys: str, goal: Goal | None = None) -> Figure:
    return Figure(label, "MB", _plain(*keys, scale=1e6), less_is_better=True, goal=goal)


def _dial(name: str, dialers: int) -> Row:
    figure = Figure(f"dial+close, {name}", "/s", _rate("dials"), goal=TWICE)
    return Row(f"dial-{dialers}", (f"--dialers={dialers}",), (figure,))


TWICE = Goal(connect=2, grpc=2)


ROWS = (
    Row(
        "rest",
        (),
        (
            _memory("at rest, both, RSS", "server_rss", "agent_rss", goal=Goal(connect=1, grpc=1)),
            _memory("at rest, both, PSS", "server_pss", "agent_pss"),
        ),
    ),
    Row(
        "idle",
        (f"--idles={IDLE_TUNNELS}",),
        (
            _memory(f"{IDLE_TUNNELS} idle tunnels, server RSS", "server_rss", goal=TWICE),
            _memory(f"{IDLE_TUNNELS} idle tunnels, agent RSS", "agent_rss", goal=TWICE),
            _memory(f"{IDLE_TUNNELS} idle tunnels, server PSS", "server_pss"),
            _memory(f"{IDLE_TUNNELS} idle tunnels, agent PSS", "agent_pss"),
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
            _latency("echo 64 B, 1 tunnel,", "p50", Goal(connect=1 / 0.7, grpc=1 / 0.7)),
            _latency("echo 64 B, 1 tunnel,", "p99"),
        ),
    ),
    Row(
        "echo-64",
        ("--echoes=64",),
        (
            Figure("echo 64 B, 64 tunnels", "/s", _rate("echoes"), goal=TWICE),
            _latency("echo 64 B, 64 tunnels,", "p99"),
        ),
    ),
    Row(
        "echo-199",
        ("--echoes=199",),
        (
            _latency("echo 64 B, 199 tunnels,", "p50"),
            _latency("echo 64 B, 199 tunnels,", "p99"),
        ),
    ),
    Row(
        "stalled-199",
        ("--stalls=1", "--echoes=199"),
        (
            _latency("the same beside a stalled reader,", "p50"),
            _latency("the same beside a stalled reader,", "p99"),
        ),
    ),
    _dial("sequential", 1),
    _dial("32 parallel", 32),
    Row(
        "busy",
        ("--downloads=8", "--echoes=1"),
        (
            _latency("echo under 8 downloads,", "p50"),
            _latency("echo under 8 downloads,", "p99", Goal(connect=10, grpc=10)),
            Figure("those 8 downloads", "MB/s", _rate("download_bytes", 1e6)),
        ),
    ),
)
