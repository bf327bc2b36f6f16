"""Logs in klog's text format, on the standard library's logging.

    log = logs.get(__name__)
    log.info("Agent connected", agent=agent_id, address=address)
    log.v(5, "Tunnel opened", destination=destination)

gives `I1122 05:36:16.218186    6947 link.py:42] "Agent connected" agent="a1" address="..."`.
A record is one line whatever its values hold. Records of other libraries, which carry no values,
keep their text without quotes.

Source: k8s.io/klog/v2; its levels V(0) to V(10) are the standard library's 20 down to 10.
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar

from konnectivity.errors import ConfigError
from konnectivity.flag import UINT, Kind, flag, parse_int
from konnectivity.gotext import one_line, quote

PACKAGE = "konnectivity"
SEVERITIES = {"INFO": 0, "WARNING": 1, "ERROR": 2, "FATAL": 3}
MEGABYTE = 1 << 20

_vmodule: list[tuple[str, int]] = []  # for modules that are imported after setup


def _parse_severity(text: str) -> int:
    number = SEVERITIES.get(text.upper())
    number = parse_int(text) if number is None else number
    if number not in SEVERITIES.values():
        raise ValueError("a severity is 0 to 3, or one of INFO, WARNING, ERROR, FATAL")
    return number


def _parse_vmodule(text: str) -> tuple[tuple[str, int], ...]:
    settings = []
    for item in filter(None, text.split(",")):
        pattern, _, level = item.partition("=")
        if not pattern or not level.isascii() or not level.isdigit():
            raise ValueError("expected a comma-separated list of file=N")
        settings.append((pattern, int(level)))
    return tuple(settings)


def _show_vmodule(value: tuple[tuple[str, int], ...]) -> str:
    return ",".join(f"{pattern}={level}" for pattern, level in value)


LEVEL = Kind("Level", parse_int, str)
SEVERITY = Kind("severity", _parse_severity, str)
VMODULE = Kind("pattern=N,...", _parse_vmodule, _show_vmodule)


@dataclass(frozen=True, slots=True)
class LogOptions:
    """The flags of klog. Those marked "accepted" have no effect here."""

    flags_title: ClassVar[str] = "Logging flags"

    v: int = flag(4, "Verbosity; tunnels are logged one by one from 5.", kind=LEVEL, short="v")
    vmodule: tuple[tuple[str, int], ...] = flag(
        (), "Verbosity by source file, without .py; * and ? match.", kind=VMODULE
    )
    logtostderr: bool = flag(True, "Log to stderr, and not to --log-file.")
    alsologtostderr: bool = flag(False, "Log to stderr as well as to --log-file.")
    log_file: str = flag("", "File to log to, with --logtostderr=false.")
    log_file_max_size: int = flag(
        1800, "Megabytes after which the file is moved to <name>.1; 0 is no limit.", kind=UINT
    )
    stderrthreshold: int = flag(
        2, "With --log-file, records from this severity on go to stderr too.", kind=SEVERITY
    )
    alsologtostderrthreshold: int = flag(
        0, "Least severity that --alsologtostderr sends to stderr.", kind=SEVERITY
    )
    legacy_stderr_threshold_behavior: bool = flag(
        True, "Ignore --stderrthreshold with --logtostderr."
    )
    skip_headers: bool = flag(False, "Leave severity, time, process and file out of the lines.")
    add_dir_header: bool = flag(False, "Name the directory of the source file too.")
    log_dir: str = flag("", "Accepted; use --log-file.")
    one_output: bool = flag(False, "Accepted; there is one output file only.")
    skip_log_headers: bool = flag(False, "Accepted; log files have no head.")
    log_backtrace_at: str = flag(":0", "Accepted.")


class Log:
    """The log of one module; made by `get`."""

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def info(self, message: str, /, **values: object) -> None:
        self._logger.log(logging.INFO, message, extra={"values": values}, stacklevel=2)

    def warning(self, message: str, /, **values: object) -> None:
        self._logger.log(logging.WARNING, message, extra={"values": values}, stacklevel=2)

    def error(self, message: str, /, **values: object) -> None:
        self._logger.log(logging.ERROR, message, extra={"values": values}, stacklevel=2)

    def exception(self, message: str, /, **values: object) -> None:
        """An error with the traceback of the exception being handled: for our own faults."""
        self._logger.log(
            logging.ERROR, message, extra={"values": values}, stacklevel=2, exc_info=True
        )

    def v(self, verbosity: int, message: str, /, **values: object) -> None:
        """A record that appears with `-v` at `verbosity` or above."""
        if self._logger.isEnabledFor(logging.INFO - verbosity):
            self._logger.log(
                logging.INFO - verbosity, message, extra={"values": values}, stacklevel=2
            )

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
    formatter = KlogFormatter(options)
    for handler in handlers:
        handler.setFormatter(formatter)
        logging.root.addHandler(handler)
    logging.root.setLevel(logging.INFO)  # of other libraries
    logging.getLogger(PACKAGE).setLevel(_threshold(options.v))
    _vmodule[:] = [(pattern, max(level, options.v)) for pattern, level in options.vmodule]
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger) and logger.name.startswith(f"{PACKAGE}."):
            _apply_vmodule(logger)


def close() -> None:
    """End what `setup` began: no more records are written, the log file is closed."""
    for handler in logging.root.handlers[:]:
        if isinstance(handler.formatter, KlogFormatter):
            logging.root.removeHandler(handler)
            handler.close()


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


class KlogFormatter(logging.Formatter):
    """A record as klog writes it. Control characters never get out raw."""

    def __init__(self, options: LogOptions) -> None:
        super().__init__()
        self._skip_headers = options.skip_headers
        self._add_directory = options.add_dir_header

    def format(self, record: logging.LogRecord) -> str:
        head = "" if self._skip_headers else self._head(record)
        values: dict[str, object] | None = getattr(record, "values", None)
        if values is None:
            text = one_line(record.getMessage())
        else:
            pairs = "".join(f" {key}={show(value)}" for key, value in values.items())
            text = f"{quote(record.getMessage())}{pairs}"
        if record.exc_info:
            # Indented, so that no line of an exception's text can pass for a record.
            trace = self.formatException(record.exc_info).split("\n")
            text += "".join(f"\n    {one_line(line)}" for line in trace)
        return head + text

    def _head(self, record: logging.LogRecord) -> str:
        letter = "IWEF"[max(0, min(3, record.levelno // 10 - 2))]
        stamp = time.strftime("%m%d %H:%M:%S", time.localtime(record.created))
        micros = int(record.created % 1 * 1e6)
        file = record.filename
        if self._add_directory:
            file = f"{Path(record.pathname).parent.name}/{file}"
        return f"{letter}{stamp}.{micros:06d} {record.process:7d} {file}:{record.lineno}] "


def show(value: object) -> str:
    """A value as klog shows it: numbers bare, lists in brackets, all else quoted."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if type(value) in (int, float):
        return str(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return f"[{','.join(map(show, value))}]"
    if isinstance(value, bytes):
        value = value.decode(errors="surrogateescape")
    if isinstance(value, BaseException):
        value = str(value) or type(value).__name__
    return quote(str(value))
