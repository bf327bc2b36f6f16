"""What holds the event loop (`--enable-contention-profiling`).

The loop is the one thing that all tunnels of a process wait for. It leaves a beat ten times a
second; a thread listens, and when one is late it notes what the loop's thread is doing.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import Counter
from typing import Final, Self

from konnectivity.observe.stacks import Stack, stack_of

BEAT: Final = 0.1
"""Seconds between beats."""
LATE: Final = 0.02
"""Seconds behind its time at which a beat is late; such a pause is felt in a tunnel."""
MOST_STACKS: Final = 1000


class LagWatch:
    """Watches the running loop from `async with` on until its block ends."""

    def __init__(self) -> None:
        self.beats = 0
        self.late = 0
        """Beats that were late."""
        self.longest = 0.0
        """Seconds by which the latest beat was late."""
        self._stacks: Counter[Stack] = Counter()
        self._lock = threading.Lock()
        self._due = 0.0  # by time.monotonic
        self._timer: asyncio.TimerHandle | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    async def __aenter__(self) -> Self:
        self._wait()
        thread = threading.get_ident()
        self._thread = threading.Thread(
            target=self._listen, args=(thread,), name="lag-watch", daemon=True
        )
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._stop.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _wait(self) -> None:
        self._due = time.monotonic() + BEAT
        self._timer = asyncio.get_running_loop().call_later(BEAT, self._beat)

    def _beat(self) -> None:
        lag = time.monotonic() - self._due
        self.beats += 1
        self.longest = max(self.longest, lag)
        self.late += lag > LATE
        self._wait()

    def _listen(self, loop_thread: int) -> None:
        """In the thread: note where the loop is while it is late, each time we look."""
        while not self._stop.wait(LATE):
            if time.monotonic() - self._due > LATE:
                stack = stack_of(sys._current_frames().get(loop_thread))
                with self._lock:
                    if stack in self._stacks or len(self._stacks) < MOST_STACKS:
                        self._stacks[stack] += 1

    def stacks(self) -> Counter[Stack]:
        """Stacks of the loop's thread while it was late; one count is about `LATE` seconds."""
        with self._lock:
            return self._stacks.copy()

    def summary(self) -> str:
        """One line."""
        return (
            f"{self.beats} beats, {self.late} late by more than {LATE * 1000:.0f} ms, "
            f"the latest by {self.longest * 1000:.0f} ms"
        )
