"""The process above the workers: starts them and the front, and starts again what has died.

It holds the listening sockets, so whoever dies takes none with it: frontends and agents wait for a
moment in the kernel's queues or meet another worker. It is small and waits, without an event loop,
so that it can fork at any time.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Final, NoReturn

from konnectivity.errors import ConfigError
from konnectivity.gotext import one_line
from konnectivity.net import bind
from konnectivity.net.backoff import Backoff
from konnectivity.net.loop import Signals
from konnectivity.net.loop import run as run_loop
from konnectivity.observe import logs
from konnectivity.server.app import agent_socket, frontend_socket, serve
from konnectivity.server.options import ServerOptions
from konnectivity.server.workers import handing
from konnectivity.server.workers.front import Front
from konnectivity.server.workers.handing import HandedSocket
from konnectivity.server.workers.worker import Place, Worker

log = logs.get(__name__)

SIGNALS: Final = frozenset([signal.SIGCHLD, signal.SIGTERM, signal.SIGINT])
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # seconds until what has died is started again
SETTLED: Final = 30.0
"""Seconds of life after which a death is the first one again."""
STARTING: Final = 10.0
"""Seconds from the start of the program in which a wrong flag or file ends it."""
STOPPING: Final = 15.0
"""Seconds beyond `--graceful-shutdown-timeout` until what is left is killed."""
LONGEST_WAIT: Final = 3600.0
"""Seconds; `sigtimedwait` takes no infinity."""
FRONT: Final = "front"
OK, FAILED, MISUSED = 0, 1, 2

Main = Callable[[], Coroutine[object, object, int]]


@dataclass(slots=True)
class Child:
    """One process, and when it may be started again; `pid` 0 while there is none."""

    name: str
    main: Main
    backoff: Backoff
    pid: int = 0
    started: float = 0.0
    due: float = 0.0


class Supervisor:
    """All processes of one server. `directory` is for the sockets at which workers answer."""

    def __init__(self, options: ServerOptions, directory: Path, doors: ExitStack) -> None:
        self._options = options
        self._frontends = doors.enter_context(frontend_socket(options))
        doors.callback(bind.remove_file, self._frontends, bind.file_of(self._frontends))
        self._agents = doors.enter_context(agent_socket(options))
        self._pairs = [handing.pair() for _ in range(options.workers)]
        for sock in (each for both in self._pairs for each in both):
            doors.enter_context(sock)
        self._paths = [str(directory / f"{number}.sock") for number in range(options.workers)]
        # Children hold the reading end: it ends when this process does, however that comes.
        self._alive, self._life = os.pipe()
        self._problems, self._problem = os.pipe()
        os.set_blocking(self._problems, False)
        mains = {FRONT: self._front}
        for number in range(options.workers):
            mains[f"worker {number}"] = lambda number=number: self._worker(number)  # type: ignore[misc]
        self._children = [
            Child(name, main, Backoff(FIRST_PAUSE, LONGEST_PAUSE)) for name, main in mains.items()
        ]
        self._signals = 0
        self._misused = False
        self._begun = time.monotonic()
        self._deadline = inf

    def run(self) -> int:
        """Keep all of them running until a signal; return the exit status.

        Raises:
            ConfigError: one of them cannot start.
        """
        gc.collect()
        gc.freeze()  # what is there now is shared by all of them
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            while not self._over():
                self._start_those_due()
                received = signal.sigtimedwait(SIGNALS, self._patience())
                if received is not None and received.si_signo != signal.SIGCHLD:
                    self._signals += 1
                    self._stop()
                self._reap()
                self._stop_front()
        finally:
            self._kill()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        if self._misused:
            raise ConfigError(self._cause())
        return OK if self._signals == 1 else FAILED

    @property
    def _stopping(self) -> bool:
        return self._signals > 0 or self._misused

    def _over(self) -> bool:
        nobody = not any(child.pid for child in self._children)
        return self._stopping and (nobody or time.monotonic() > self._deadline)

    # Children

    async def _worker(self, number: int) -> int:
        place = Place(
            number,
            frontends=self._frontends,
            agents=HandedSocket(self._pairs[number][1], self._agents),
            admin=self._paths[number],
        )
        return await serve(lambda: Worker(self._options, place))

    async def _front(self) -> int:
        givings = [giving for giving, _ in self._pairs]
        front = Front(self._options, agents=self._agents, givings=givings, paths=self._paths)
        with Signals() as signals:
            async with front:
                await signals.first.wait()
        return OK

    def _be(self, child: Child) -> NoReturn:
        """The life of a child, from the fork to its end."""
        os.setpgrp()  # a terminal's Ctrl-C is the supervisor's matter
        os.close(self._life)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        status = FAILED
        try:
            status = run_loop(lambda: self._until_orphaned(child.main))
        except ConfigError as error:
            os.write(self._problem, f"{one_line(str(error))}\n".encode())
            status = MISUSED
        except BaseException:
            log.exception("Ended by a fault of ours", process=child.name)
        finally:
            logs.close()
            os._exit(status)

    async def _until_orphaned(self, main: Main) -> int:
        loop = asyncio.get_running_loop()

        def orphaned() -> None:
            loop.remove_reader(self._alive)
            os.kill(os.getpid(), signal.SIGTERM)

        loop.add_reader(self._alive, orphaned)
        return await main()

    # Their lives

    def _start_those_due(self) -> None:
        for child in self._children:
            if not (child.pid or self._stopping) and time.monotonic() >= child.due:
                child.started = time.monotonic()
                child.pid = os.fork()
                if not child.pid:
                    self._be(child)

    def _patience(self) -> float:
        """Seconds until something is to be done without a signal."""
        times = [child.due for child in self._children if not child.pid]
        next_ = self._deadline if self._stopping else min(times, default=inf)
        return min(max(0.0, next_ - time.monotonic()), LONGEST_WAIT)

    def _reap(self) -> None:
        for child in self._children:
            if not child.pid:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                child.pid = 0
                self._buried(child, os.waitstatus_to_exitcode(status))

    def _buried(self, child: Child, status: int) -> None:
        now = time.monotonic()
        if self._stopping:
            return
        if status == MISUSED and now - self._begun < STARTING:
            self._misused = True
            self._stop()
            return
        if now - child.started > SETTLED:
            child.backoff.reset()
        pause = child.backoff.next()
        child.due = now + pause
        log.error("Process ended, starting it again", process=child.name, status=status)

    def _stop(self) -> None:
        """Ask the workers to stop; the front answers to the end."""
        for child in self._children:
            if child.pid and child.name != FRONT:
                os.kill(child.pid, signal.SIGTERM)
        limit = self._options.graceful_shutdown_timeout + STOPPING
        self._deadline = min(self._deadline, time.monotonic() + limit)

    def _stop_front(self) -> None:
        left = [child for child in self._children if child.pid]
        if self._stopping and [child.name for child in left] == [FRONT]:
            os.kill(left[0].pid, signal.SIGTERM)

    def _kill(self) -> None:
        for child in self._children:
            if child.pid:
                os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)

    def _cause(self) -> str:
        try:
            lines = os.read(self._problems, 64 << 10).decode().splitlines()
        except BlockingIOError:
            lines = []
        return "; ".join(dict.fromkeys(lines)) or "a worker cannot start"


def run(options: ServerOptions) -> int:
    """The program with workers; returns its exit status.

    Raises:
        ConfigError: it cannot start.
    """
    with ExitStack() as doors:
        directory = Path(doors.enter_context(tempfile.TemporaryDirectory(prefix="konnectivity-")))
        return Supervisor(options, directory, doors).run()
