"""Log lines have klog's shape, and klog's flags say which and where."""

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import pytest

from konnectivity.cli.flags import parse
from konnectivity.errors import ConfigError
from konnectivity.observe import klog, logs
from konnectivity.observe.log_options import LogOptions

log = logs.get("konnectivity.tunnel.sample")
other = logs.get("konnectivity.net.other")

LINE = re.compile(r"([IWEF])(\d{4} \d\d:\d\d:\d\d\.\d{6}) ( *\d+) ([\w/.]+):(\d+)\] (.*)")


@pytest.fixture(autouse=True)
def _closed_logs() -> Iterator[None]:
    yield
    logs.setup(LogOptions())  # also forgets --vmodule
    logs.close()


def setup(*argv: str) -> None:
    logs.setup(parse(LogOptions, argv).options)


def texts(written: str) -> list[str]:
    """The lines without their heads."""
    return [line.split("] ", 1)[1] for line in written.splitlines()]


def test_a_line_has_klogs_head_with_the_place_of_the_call(
    capsys: pytest.CaptureFixture[str],
) -> None:
    setup()
    log.info("Agent connected", agent="a1", tunnels=3)
    match = LINE.fullmatch(capsys.readouterr().err.rstrip("\n"))
    assert match
    severity, stamp, pid, file, line, text = match.groups()
    assert severity == "I"
    written = datetime.strptime(f"{datetime.now().year} {stamp}", "%Y %m%d %H:%M:%S.%f")
    assert abs((datetime.now() - written).total_seconds()) < 60
    assert pid == f"{os.getpid():7d}"
    assert file == "test_logs.py"
    assert (
        int(line)
        == test_a_line_has_klogs_head_with_the_place_of_the_call.__code__.co_firstlineno + 4
    )
    assert text == '"Agent connected" agent="a1" tunnels=3'


def test_every_call_style_names_the_callers_line(capsys: pytest.CaptureFixture[str]) -> None:
    setup()
    log.info("a")
    log.warning("b")
    log.error("c")
    log.v(1, "d")
    heads = [LINE.fullmatch(line) for line in capsys.readouterr().err.splitlines()]
    assert [head and head[1] for head in heads] == ["I", "W", "E", "I"]
    lines = [int(head[5]) for head in heads if head]
    assert lines == list(range(lines[0], lines[0] + 4))
    assert {head[4] for head in heads if head} == {"test_logs.py"}


class Reason(StrEnum):
    DRAIN = "drain"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a b", '"a b"'),
        ('a"b\nc\x1b', r'"a\"b\nc\x1b"'),
        ("", '""'),
        (3, "3"),
        (-1.5, "-1.5"),
        (True, "true"),
        (None, "<nil>"),
        (b"ab\xff", r'"ab\xff"'),
        (Reason.DRAIN, '"drain"'),
        (["a", 1], '["a",1]'),
        (("127.0.0.1", 80), '["127.0.0.1",80]'),
        (OSError("no\nway"), r'"no\nway"'),
        (TimeoutError(), '"TimeoutError"'),
        (Path("/x"), '"/x"'),
    ],
)
def test_a_value_is_shown_as_klog_shows_it(value: object, shown: str) -> None:
    assert klog.show(value) == shown


def test_a_record_stays_on_one_line_whatever_the_peer_sent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    setup()
    log.error("100% of\nit", err=ValueError("x\r\nI0101 00:00:00.000000 1 a:1] forged"))
    (text,) = texts(capsys.readouterr().err)
    assert text == r'"100% of\nit" err="x\r\nI0101 00:00:00.000000 1 a:1] forged"'


def test_lines_of_other_libraries_keep_their_text_on_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    setup("-v=10")
    foreign = logging.getLogger("asyncio")
    foreign.warning("slow: %s", "a\nb")
    foreign.debug("detail")
    assert texts(capsys.readouterr().err) == [r"slow: a\nb"]


def test_what_other_libraries_tell_of_their_daily_work_is_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    setup()
    logging.getLogger("some.library").info("HTTP Request: GET")
    logging.getLogger("some.library").warning("trouble")
    assert "HTTP Request" not in (written := capsys.readouterr().err)
    assert "trouble" in written


def test_values_within_a_message_are_shown_like_others(capsys: pytest.CaptureFixture[str]) -> None:
    setup()
    below = logging.getLogger("konnectivity.net.h2")
    below.warning("HTTP/2 fault peer=%s cause=%s", "10.0.0.7:1", "a\nb")
    below.warning("handshakes failed count=%d", 3)
    below.warning("100%% of it peer=%s", "p")
    below.warning("peer=%s is odd", "p")
    assert texts(capsys.readouterr().err) == [
        r'"HTTP/2 fault" peer="10.0.0.7:1" cause="a\nb"',
        '"handshakes failed" count=3',
        "100% of it peer=p",
        "peer=p is odd",
    ]


def test_a_traceback_is_indented_so_that_it_cannot_pass_for_a_record(
    capsys: pytest.CaptureFixture[str],
) -> None:
    setup()
    try:
        Path("x\nE0101 forged").relative_to("y")
    except ValueError:
        log.exception("Unexpected", peer="p")
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.startswith("E")
    assert first.endswith('] "Unexpected" peer="p"')
    assert rest[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in rest)


@pytest.mark.parametrize(("argv", "highest"), [([], 4), (["-v=0"], 0), (["--v=10"], 10)])
def test_verbosity_decides_which_levels_are_written(
    argv: list[str], highest: int, capsys: pytest.CaptureFixture[str]
) -> None:
    setup(*argv)
    for level in range(12):
        log.v(level, f"level {level}")
        assert log.enabled(level) == (level <= highest)
    expected = [f'"level {level}"' for level in range(highest + 1)]
    assert texts(capsys.readouterr().err) == expected


def test_klogs_levels_are_the_standard_librarys_from_20_down(
    capsys: pytest.CaptureFixture[str],
) -> None:
    setup("-v=3")
    logger = logging.getLogger("konnectivity.tunnel.sample")
    assert logger.getEffectiveLevel() == logging.INFO - 3


def test_vmodule_raises_the_verbosity_of_the_files_it_matches(
    capsys: pytest.CaptureFixture[str],
) -> None:
    setup("-v=1", "--vmodule=sam*=3,later=2,konnectivity/net/*=5")
    later = logs.get("konnectivity.server.later")
    unmatched = logs.get("konnectivity.net2.lone")
    assert [each.enabled(3) for each in (log, later, unmatched)] == [True, False, False]
    assert [each.enabled(2) for each in (log, later, unmatched)] == [True, True, False]
    assert other.enabled(5)
    assert not other.enabled(6)
    setup("-v=1")
    assert not log.enabled(2)
    assert not later.enabled(2)


def test_vmodule_does_not_lower_the_verbosity() -> None:
    setup("-v=4", "--vmodule=sample=2")
    assert log.enabled(4)


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        ("--vmodule=sample", "expected a comma-separated list of file=N"),
        ("--vmodule=sample=x", "expected a comma-separated list of file=N"),
        ("--vmodule==1", "expected a comma-separated list of file=N"),
        ("--stderrthreshold=9", "a severity is 0 to 3, or one of INFO, WARNING, ERROR, FATAL"),
        ("--stderrthreshold=x", "not an integer"),
        ("--log-file-max-size=-1", "must not be negative"),
    ],
)
def test_a_bad_value_of_a_log_flag_is_refused(argv: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        setup(argv)
    assert str(caught.value).endswith(f"flag: {reason}")


def test_a_log_file_takes_all_lines_and_stderr_the_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "server.log"
    file.write_text("earlier\n")
    setup("--logtostderr=false", f"--log-file={file}")
    log.info("fine")
    log.error("bad")
    logs.close()
    earlier, *lines = file.read_text().splitlines()
    assert earlier == "earlier"
    assert texts("\n".join(lines)) == ['"fine"', '"bad"']
    assert texts(capsys.readouterr().err) == ['"bad"']


def test_the_severity_that_reaches_stderr_beside_a_log_file_can_be_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = f"--log-file={tmp_path / 'log'}"
    setup("--logtostderr=false", file, "--stderrthreshold=WARNING")
    log.info("one")
    log.warning("two")
    assert texts(capsys.readouterr().err) == ['"two"']
    setup("--logtostderr=false", file, "--alsologtostderr")
    log.v(4, "three")
    assert texts(capsys.readouterr().err) == ['"three"']
    setup("--logtostderr=false", file, "--alsologtostderr", "--alsologtostderrthreshold=1")
    log.info("four")
    log.warning("five")
    assert texts(capsys.readouterr().err) == ['"five"']


def test_a_log_file_is_not_touched_while_logging_to_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "log"
    setup(f"--log-file={file}", "--log-file-max-size=0", "--logtostderr=true")
    log.info("fine")
    assert texts(capsys.readouterr().err) == ['"fine"']
    assert not file.exists()


def test_without_a_log_file_nothing_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    setup("--logtostderr=false")
    log.info("fine")
    assert texts(capsys.readouterr().err) == ['"fine"']


def test_stderrthreshold_counts_with_logtostderr_when_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    setup("--stderrthreshold=1")
    log.info("kept")
    setup("--stderrthreshold=1", "--legacy-stderr-threshold-behavior=false")
    log.info("dropped")
    log.warning("kept too")
    assert texts(capsys.readouterr().err) == ['"kept"', '"kept too"']


def test_a_log_file_over_its_size_is_moved_away_once(tmp_path: Path) -> None:
    file = tmp_path / "log"
    setup("--logtostderr=false", f"--log-file={file}", "--log-file-max-size=1")
    for number in range(3):
        log.info("x" * 700_000, number=number)
    logs.close()
    assert file.read_text().endswith("number=2\n")
    assert (tmp_path / "log.1").read_text().endswith("number=1\n")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["log", "log.1"]


def test_headers_can_be_left_out_or_name_the_directory(capsys: pytest.CaptureFixture[str]) -> None:
    setup("--skip-headers")
    log.info("bare", n=1)
    setup("--add-dir-header")
    log.info("placed")
    bare, placed = capsys.readouterr().err.splitlines()
    assert bare == '"bare" n=1'
    assert " observe/test_logs.py:" in placed


def test_setting_up_again_takes_the_place_of_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    setup()
    setup()
    log.info("once")
    assert texts(capsys.readouterr().err) == ['"once"']


def open_files() -> set[str]:
    files = set()
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor of this very listing
            files.add(str(each.readlink()))
    return files


def test_after_close_the_log_file_is_let_go(tmp_path: Path) -> None:
    file = tmp_path / "log"
    setup("--logtostderr=false", f"--log-file={file}")
    assert str(file) in open_files()
    logs.close()
    assert str(file) not in open_files()


def test_repeats_of_a_warning_are_told_as_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    setup("-v=0")
    for number in range(413):
        log.summarised("dials", "No agent for a dial", address=f"10.0.0.{number}:443")
    assert texts(capsys.readouterr().err) == ['"No agent for a dial" address="10.0.0.0:443"']
    logs.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith('] "No agent for a dial" repeated=412 seconds=0')


async def test_the_sum_comes_by_itself_and_names_the_line_of_the_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    setup()
    for _ in range(3):
        log.summarised("dials", "No agent for a dial", every=0.02)
    await asyncio.sleep(0.05)
    first, repeats = [LINE.fullmatch(line) for line in capsys.readouterr().err.splitlines()]
    assert first
    assert repeats
    assert repeats.groups()[0] == "W"
    assert repeats.groups()[2:5] == first.groups()[2:5]
    assert repeats[6] == '"No agent for a dial" repeated=2 seconds=0'
    assert repeats[4] == "test_logs.py"


def test_the_last_records_can_be_read_again(capsys: pytest.CaptureFixture[str]) -> None:
    setup("-v=2")
    before = len(logs.recent())
    log.v(2, "Dial failed", reason="timeout")
    log.v(3, "hidden")
    assert len(logs.recent()) == before + 1
    entry = logs.recent()[-1]
    assert (entry.level, entry.verbosity, entry.message) == ("info", 2, "Dial failed")
    assert entry.values == {"reason": "timeout"}
    assert entry.caller.startswith("test_logs.py:")
    logs.close()
    log.info("after the end")
    assert logs.recent()[-1] is entry


def test_the_same_key_in_two_modules_is_two_keys(capsys: pytest.CaptureFixture[str]) -> None:
    setup()
    log.summarised("limit", "Dial refused")
    other.summarised("limit", "Dial refused")
    assert texts(capsys.readouterr().err) == ['"Dial refused"'] * 2
