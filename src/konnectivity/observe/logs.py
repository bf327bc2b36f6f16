"""Logs: what modules call to write a record, and where records go.

    log = logs.get(__name__)
    log.info("Agent connected", agent=agent_id, address=address)
    log.v(5, "Tunnel opened", destination=destination)

They are the standard library's; klog's levels V(0) to V(10) are its 20 down to 10.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Hashable, Mapping
from contextvars import ContextVar
from fnmatch import fnmatchcase

from konnectivity.errors import ConfigError
from konnectivity.gotext import quote
from konnectivity.observe.klog import KlogFormatter
from konnectivity.observe.log_entry import Entry
from konnectivity.observe.log_options import LogOptions
from konnectivity.observe.log_ring import Ring
from konnectivity.observe.summary import Summary

PACKAGE = "konnectivity"
MEGABYTE = 1 << 20

_vmodule: list[tuple[str, int]] = []  # for modules that are imported after setup
_handlers: list[logging.Handler] = []  # those of `setup`
_ring = Ring()
_summary = Summary()
_about: ContextVar[Mapping[str, object]] = ContextVar("_about", default={})  # noqa: B039 - frozen


def about(**values: object) -> None:
    """Put `values` in front of all records of this task, and of tasks that it starts."""
    _about.set({**_about.get(), **values})


def _extra(values: dict[str, object]) -> dict[str, object]:
    return {"values": {**_about.get(), **values}}


class Log:
    """The log of one module; made by `get`."""

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def info(self, message: str, /, **values: object) -> None:
        self._logger.log(logging.INFO, message, extra=_extra(values), stacklevel=2)

    def warning(self, message: str, /, **values: object) -> None:
        self._logger.log(logging.WARNING, message, extra=_extra(values), stacklevel=2)

    def error(self, message: str, /, **values: object) -> None:
        self._logger.log(logging.ERROR, message, extra=_extra(values), stacklevel=2)

    def exception(self, message: str, /, **values: object) -> None:
        """An error with the traceback of the exception being handled: for our own faults."""
        self._logger.log(logging.ERROR, message, extra=_extra(values), stacklevel=2, exc_info=True)

    def v(self, verbosity: int, message: str, /, **values: object) -> None:
        """A record that appears with `-v` at `verbosity` or above."""
        if self._logger.isEnabledFor(logging.INFO - verbosity):
            self._logger.log(logging.INFO - verbosity, message, extra=_extra(values), stacklevel=2)

    def summarised(
        self, key: Hashable, message: str, /, *, every: float = 60.0, **values: object
    ) -> None:
        """A warning that may come often: the first at once, its repeats as one line.

        Repeats are occurrences of `key` in this module; every `every` seconds a line such as
        `"No agent for a dial" repeated=412 seconds=60` says how many there were, until there are
        none. `message` is a literal: it takes the place of `key` where there are too many keys.
        For the event loop's thread.
        """
        module = self._logger.name
        series = _summary.first((module, key), (module, message), every)
        if series is None:
            return
        file, line, *_ = self._logger.findCaller(stacklevel=2)

        def warn(**values: object) -> None:
            record = self._logger.makeRecord(
                *(module, logging.WARNING, file, line, message, (), None),
                extra={"values": values},
            )
            self._logger.handle(record)

        series.tell = lambda count, seconds: warn(repeated=count, seconds=round(seconds))
        warn(**values)

    def enabled(self, verbosity: int) -> bool:
        """Whether `v(verbosity, ...)` would be written; ask first where values cost something."""
        return self._logger.isEnabledFor(logging.INFO - verbosity)


def get(name: str) -> Log:
    """The log of the module `name` (its `__name__`)."""
    logger = logging.getLogger(name)
    _apply_vmodule(logger)
    return Log(logger)


def setup(options: LogOptions) -> None:
    """Send all logs of the process where `options` say, in place of an earlier set-up.

    Raises:
        ConfigError: the log file cannot be written.
    """
    handlers = _open_handlers(options)
    close()
    formatter = _formatter(options)
    for handler in handlers:
        handler.setFormatter(formatter)
    _handlers[:] = [*handlers, _ring]
    for handler in _handlers:
        logging.root.addHandler(handler)
    logging.root.setLevel(logging.WARNING)  # of other libraries: httpx2 tells of each request
    logging.getLogger(PACKAGE).setLevel(_threshold(options.v))
    _vmodule[:] = [(pattern, max(level, options.v)) for pattern, level in options.vmodule]
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger) and logger.name.startswith(f"{PACKAGE}."):
            _apply_vmodule(logger)


def close() -> None:
    """End what `setup` began: no more records are written, the log file is closed."""
    _summary.flush()
    for handler in _handlers:
        logging.root.removeHandler(handler)
        handler.close()
    _handlers.clear()


def recent() -> tuple[Entry, ...]:
    """The last records since `setup`, the oldest first; about 1000 or 1 MiB of them."""
    return _ring.entries


def _threshold(verbosity: int) -> int:
    return max(1, logging.INFO - max(0, verbosity))


def _apply_vmodule(logger: logging.Logger) -> None:
    path = logger.name.replace(".", "/")
    for pattern, level in _vmodule:
        if fnmatchcase(path if "/" in pattern else path.rpartition("/")[2], pattern):
            logger.setLevel(_threshold(level))
            return
    if logger.name != PACKAGE:
        logger.setLevel(logging.NOTSET)


def _formatter(options: LogOptions) -> logging.Formatter:
    directory = options.add_dir_header
    if options.log_format == "text":
        return KlogFormatter(skip_headers=options.skip_headers, with_directory=directory)
    from konnectivity.observe.log_json import JsonFormatter  # only where it is used

    return JsonFormatter(with_directory=directory)


def _open_handlers(options: LogOptions) -> list[logging.Handler]:
    """Without a log file everything goes to stderr (differs: klog then writes to /tmp)."""
    stderr = logging.StreamHandler(sys.stderr)
    if options.logtostderr or not options.log_file:
        if not options.legacy_stderr_threshold_behavior:
            stderr.setLevel(_severity_level(options.stderrthreshold))
        return [stderr]
    least = options.stderrthreshold
    if options.alsologtostderr:
        least = min(least, options.alsologtostderrthreshold)
    stderr.setLevel(_severity_level(least))
    return [_open_file(options), stderr]


def _open_file(options: LogOptions) -> logging.Handler:
    from logging.handlers import RotatingFileHandler  # loads pickle: only where it is used

    try:
        return RotatingFileHandler(
            options.log_file,
            maxBytes=options.log_file_max_size * MEGABYTE,
            backupCount=1,
            encoding="utf-8",
            errors="backslashreplace",
        )
    except OSError as error:
        path = quote(options.log_file)
        raise ConfigError(f"cannot write to --log-file={path}: {error.strerror}") from error


def _severity_level(severity: int) -> int:
    return (logging.NOTSET, logging.WARNING, logging.ERROR, logging.CRITICAL)[severity]
