"""The flags of klog, which both programs have, and ours for logs.

Source: k8s.io/klog/v2, in the version that upstream's programs are built with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from konnectivity.flag import UINT, Kind, flag, parse_int
from konnectivity.gotext import quote

FORMATS = ("text", "json")
SEVERITIES = {"INFO": 0, "WARNING": 1, "ERROR": 2, "FATAL": 3}


def _parse_format(text: str) -> str:
    if text not in FORMATS:
        raise ValueError("a log format is text or json")
    return text


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


FORMAT = Kind("string", _parse_format, quote)
LEVEL = Kind("Level", parse_int, str)
SEVERITY = Kind("severity", _parse_severity, str)
VMODULE = Kind("pattern=N,...", _parse_vmodule, _show_vmodule)


@dataclass(frozen=True, slots=True)
class LogOptions:
    """The flags of klog and ours. Those marked "accepted" have no effect here."""

    flags_title: ClassVar[str] = "Logging flags"

    log_format: str = flag(
        "text", "Format: text is klog's, json is an object in each line.", kind=FORMAT
    )
    access_log: bool = flag(False, "Log a line for each tunnel, when it ends.")
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
    skip_headers: bool = flag(False, "Leave severity, time, process and file out of text.")
    add_dir_header: bool = flag(False, "Name the directory of the source file too.")
    log_dir: str = flag("", "Accepted; use --log-file.")
    one_output: bool = flag(False, "Accepted; there is one output file only.")
    skip_log_headers: bool = flag(False, "Accepted; log files have no head.")
    log_backtrace_at: str = flag(":0", "Accepted; only faults have a traceback.")
