"""What the process is doing right now, under `/debug/pprof/` (`--enable-profiling`).

The paths are those of Go's `net/http/pprof`; what they answer is text about Python. `profile` is
a sampling profiler: a thread looks at all stacks a hundred times a second and counts equal ones,
in the "collapsed" form that flame graph tools read. Time that the loop spends waiting shows as
the stack of its `run`.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import tracemalloc
from collections import Counter
from typing import Final

from konnectivity.observe.lag import LagWatch
from konnectivity.observe.route import Answer, Request, Response, Route, bad_request, get_only
from konnectivity.observe.stacks import DEEPEST, Stack, collapsed, listed, places, stack_of

INTERVAL: Final = 0.01
"""Seconds between samples, as Go's."""
DEFAULT_SECONDS: Final = 30
MOST_SECONDS: Final = 60
MOST_LINES: Final = 100
"""Lines of code in an answer about memory."""

INDEX: Final = b"""Profiles of this process:

profile?seconds=30   where time goes: sampled stacks of all threads, collapsed, with counts
goroutine            what waits: stacks of all asyncio tasks and threads, equal ones counted
heap                 where memory came from; needs PYTHONTRACEMALLOC=1 in the environment
block                what held the event loop; needs --enable-contention-profiling
"""
NO_TRACE: Final = b"""Memory is not traced. Start the process with PYTHONTRACEMALLOC=1 in its
environment; it then takes about twice the time and memory.
"""
NOT_WATCHED: Final = b"The event loop is not watched: start with --enable-contention-profiling.\n"


class Profiling:
    """The routes. `lag` is the watch over the loop, where there is one."""

    def __init__(self, lag: LagWatch | None = None) -> None:
        self._lag = lag
        self._busy = False

    @property
    def routes(self) -> dict[str, Route]:
        """By path."""
        return {
            "/debug/pprof": lambda _: Response(b"", status=301, location="/debug/pprof/"),
            "/debug/pprof/": lambda _: Response(INDEX),
            "/debug/pprof/profile": get_only(self._profile),
            "/debug/pprof/heap": get_only(self._heap),
            "/debug/pprof/goroutine": self._tasks,
            "/debug/pprof/block": self._block,
        }

    async def _profile(self, request: Request) -> Answer:
        try:
            seconds = request.number("seconds", default=DEFAULT_SECONDS, least=1, most=MOST_SECONDS)
        except ValueError as error:
            return bad_request(str(error))
        if self._busy:
            return Response(b"a profile is being taken already\n", status=503)
        self._busy = True
        stop = threading.Event()
        try:
            counts = await asyncio.to_thread(sample, seconds, stop)
        finally:
            stop.set()  # the peer left: nobody wants the rest
            self._busy = False
        return Response(collapsed(counts).encode())

    async def _heap(self, _request: Request) -> Answer:
        if not tracemalloc.is_tracing():
            return Response(NO_TRACE, status=501)
        if self._busy:
            return Response(b"a profile is being taken already\n", status=503)
        self._busy = True
        try:
            return Response(await asyncio.to_thread(_memory))
        finally:
            self._busy = False

    def _tasks(self, _request: Request) -> Response:
        tasks = asyncio.all_tasks()
        waiting = Counter(places(task.get_stack(limit=DEEPEST)) for task in tasks)
        running = Counter(stack_of(frame) for frame in sys._current_frames().values())
        lines = [f"{len(tasks)} tasks\n", *listed(waiting)]
        lines += [f"{running.total()} threads\n", *listed(running)]
        return Response("\n".join(lines).encode())

    def _block(self, _request: Request) -> Response:
        if self._lag is None:
            return Response(NOT_WATCHED, status=501)
        return Response(f"{self._lag.summary()}\n{collapsed(self._lag.stacks())}".encode())


def sample(seconds: float, stop: threading.Event) -> Counter[Stack]:
    """Count the stacks of all other threads for some time; to be run in a thread."""
    counts: Counter[Stack] = Counter()
    ourselves = threading.get_ident()
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stop.wait(INTERVAL):
        for thread, frame in sys._current_frames().items():
            if thread != ourselves:
                counts[stack_of(frame)] += 1
    return counts


def _memory() -> bytes:
    """The lines of code that hold most memory; to be run in a thread, it takes a while."""
    held, peak = tracemalloc.get_traced_memory()
    found = tracemalloc.take_snapshot().statistics("lineno")
    lines = [f"{held} bytes traced, {peak} at the most, {gc.get_count()} objects since collections"]
    lines += [
        f"{each.size} bytes in {each.count} blocks: {each.traceback[0]}"
        for each in found[:MOST_LINES]
    ]
    return ("\n".join(lines) + "\n").encode()
