"""With --log-format=json a record is an object on a line, with the text's keys."""

import json
import logging
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from konnectivity.cli.flags import parse
from konnectivity.errors import ConfigError
from konnectivity.observe import logs
from konnectivity.observe.log_options import LogOptions

log = logs.get("konnectivity.tunnel.sample")


@pytest.fixture(autouse=True)
def _closed_logs() -> Iterator[None]:
    yield
    logs.setup(LogOptions())
    logs.close()


def setup(*argv: str) -> None:
    logs.setup(parse(LogOptions, ["--log-format=json", "-v=5", *argv]).options)


def read(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    written = capsys.readouterr().err
    assert written.isascii()
    return [json.loads(line) for line in written.splitlines()]


def test_a_record_has_a_head_and_its_values(capsys: pytest.CaptureFixture[str]) -> None:
    setup()
    log.v(5, "Tunnel opened", address="10.0.0.1:10250", connectionID=7)
    (record,) = read(capsys)
    assert list(record) == ["ts", "level", "v", "caller", "msg", "address", "connectionID"]
    line = test_a_record_has_a_head_and_its_values.__code__.co_firstlineno + 2
    assert record["caller"] == f"test_log_json.py:{line}"
    assert (record["level"], record["v"], record["msg"]) == ("info", 5, "Tunnel opened")
    assert (record["address"], record["connectionID"]) == ("10.0.0.1:10250", 7)
    assert record["ts"].endswith("Z")
    assert len(record["ts"]) == len("2026-11-22T05:36:16.218186Z")
    written = datetime.fromisoformat(record["ts"])
    assert abs((datetime.now(UTC) - written).total_seconds()) < 60


def test_the_levels_are_words(capsys: pytest.CaptureFixture[str]) -> None:
    setup()
    log.info("a")
    log.warning("b")
    log.error("c")
    logging.getLogger("konnectivity.tunnel.sample").critical("d")
    levels = [(record["level"], record["v"]) for record in read(capsys)]
    assert levels == [("info", 0), ("warning", 0), ("error", 0), ("fatal", 0)]


@pytest.mark.parametrize(
    ("value", "read_back"),
    [
        (3, 3),
        (1.5, 1.5),
        (True, True),
        (None, None),
        (["a", 1, None], ["a", 1, None]),
        (("127.0.0.1", 80), ["127.0.0.1", 80]),
        (math.inf, "inf"),
        (math.nan, "nan"),
        (b"ab\xff", r"ab\udcff"),
        ("a\nb\x1b\u2028\ud800", "a\nb\x1b\u2028\\ud800"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_values_keep_their_type_where_json_has_it(
    value: object, read_back: object, capsys: pytest.CaptureFixture[str]
) -> None:
    setup()
    log.info("m", value=value)
    (record,) = read(capsys)
    assert record["value"] == read_back


def test_a_value_cannot_take_a_name_of_the_head(capsys: pytest.CaptureFixture[str]) -> None:
    setup()
    log.info("right", msg="forged", level="error")
    (record,) = read(capsys)
    assert (record["msg"], record["level"]) == ("right", "info")
    assert (record["msg_"], record["level_"]) == ("forged", "error")


def test_a_traceback_is_a_value_of_its_record(capsys: pytest.CaptureFixture[str]) -> None:
    setup()
    try:
        int("x\ny")
    except ValueError:
        log.exception("Unexpected")
    (record,) = read(capsys)
    assert record["trace"].startswith("Traceback (most recent call last):\n")
    assert record["trace"].endswith(r"base 10: 'x\ny'")


def test_records_of_other_libraries_are_objects_too(capsys: pytest.CaptureFixture[str]) -> None:
    setup()
    logging.getLogger("asyncio").warning("slow: %s", "a\nb")
    (record,) = read(capsys)
    assert (record["level"], record["msg"]) == ("warning", "slow: a\nb")


def test_values_within_a_message_are_values(capsys: pytest.CaptureFixture[str]) -> None:
    setup()
    logging.getLogger("konnectivity.net.h2").warning("HTTP/2 fault peer=%s count=%d", "p", 3)
    (record,) = read(capsys)
    assert (record["msg"], record["peer"], record["count"]) == ("HTTP/2 fault", "p", 3)


def test_the_directory_can_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    setup("--add-dir-header")
    log.info("placed")
    (record,) = read(capsys)
    assert record["caller"].startswith("observe/test_log_json.py:")


def test_another_format_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        setup("--log-format=yaml")
    assert str(caught.value) == (
        'invalid argument "yaml" for "--log-format" flag: a log format is text or json'
    )
