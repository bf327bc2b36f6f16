"""Many time limits of one length, on one timer of the loop.

A connection or a dial needs a time limit that nearly always ends unused; a timer of the loop for
each is a good part of what a dial costs. Limits of one length expire in the order they were
started, so the oldest is the only one to look at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadline:
    """One running limit."""

    __slots__ = ("_running", "at", "expired")

    def __init__(
        self, running: dict[Deadline, None], at: float, expired: Callable[[], object]
    ) -> None:
        self._running = running
        self.at = at
        self.expired: Callable[[], object] | None = expired

    def cancel(self) -> None:
        """The limit is not needed any more; safe to repeat. The timer finds out when it fires."""
        self.expired = None
        self._running.pop(self, None)


class Guard:
    """Cancels the task inside a `with` block when the limit runs out, as `asyncio.timeout` does.

    Raises:
        TimeoutError: from the block, when that happened.
    """

    __slots__ = ("_deadline", "_deadlines", "_expired", "_task")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._expired = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a guard needs a task to cancel")
        self._task = task
        self._deadline = self._deadlines.start(self._expire)

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._deadline.cancel()
        if (
            self._expired
            and self._task.uncancel() <= 0
            and kind is not None
            and issubclass(kind, asyncio.CancelledError)
        ):
            raise TimeoutError


class Deadlines:
    """Starts limits of `limit` seconds each. They run out a little late, never early."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._loop = asyncio.get_running_loop()
        self._running: dict[Deadline, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self, expired: Callable[[], object]) -> Deadline:
        """Call `expired` after the limit, unless the result is cancelled before."""
        deadline = Deadline(self._running, self._loop.time() + self.limit, expired)
        self._running[deadline] = None
        if self._timer is None:
            self._timer = self._loop.call_at(deadline.at, self._expire)
        return deadline

    def guard(self) -> Guard:
        """A block of the current task that must end within the limit: `with limits.guard():`."""
        return Guard(self)

    def _expire(self) -> None:
        now = self._loop.time()
        due = []
        for deadline in self._running:
            if deadline.at > now:
                break
            due.append(deadline)
        for deadline in due:
            del self._running[deadline]
        oldest = next(iter(self._running), None)
        self._timer = self._loop.call_at(oldest.at, self._expire) if oldest else None
        for deadline in due:
            if deadline.expired is not None:
                deadline.expired()

    def close(self) -> None:
        """Drop all limits."""
        self._running.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
