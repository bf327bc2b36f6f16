"""Which event loop runs the programs, and how signals reach them."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Coroutine
from typing import Final, TypeVar

from konnectivity.net.memory import keep_read_buffers

T = TypeVar("T")

GC_THRESHOLDS: Final = (20_000, 20, 50)
"""Objects of a tunnel are freed by their counts; looking for cycles at each 700 is for nothing."""


def run(main: Callable[[], Coroutine[object, object, T]]) -> T:
    """Run `main` to its end: on uvloop where it is installed, else on asyncio's own loop.

    uvloop was measured ahead on small packets (docs/decisions/event-loop.md).
    """
    factory: Callable[[], asyncio.AbstractEventLoop]
    try:
        from uvloop import new_event_loop as factory
    except ImportError:
        factory = asyncio.new_event_loop
    keep_read_buffers()
    with asyncio.Runner(loop_factory=factory) as runner:
        # What start-up made lives as long as the process: keep the collector off it.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        return runner.run(main())


class Signals:
    """Counts SIGTERM and SIGINT, which mean the same here."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    def __enter__(self) -> Signals:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    def _arrived(self) -> None:
        (self.second if self.first.is_set() else self.first).set()
