"""Durations and quoted strings in Go's forms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konnectivity.gotext import format_duration, one_line, parse_duration, quote

PRINTED = [
    (0.0, "0s"),
    (1e-9, "1ns"),
    (1.5e-6, "1.5µs"),
    (0.3, "300ms"),
    (0.0015, "1.5ms"),
    (1.0, "1s"),
    (1.5, "1.5s"),
    (59.999, "59.999s"),
    (60.0, "1m0s"),
    (90.25, "1m30.25s"),
    (3600.0, "1h0m0s"),
    (90061.0, "25h1m1s"),
    (-2.0, "-2s"),
    (-0.25, "-250ms"),
]
READ = [
    ("0", 0.0),
    ("+0", 0.0),
    ("1h30m", 5400.0),
    ("1.5h", 5400.0),
    (".5s", 0.5),
    ("1.s", 1.0),
    ("+5s", 5.0),
    ("1us", 1e-6),
    ("1µs", 1e-6),
    ("1\u03bcs", 1e-6),
    ("30s1m", 90.0),
]
REFUSED = ["", "5", "1.5", "s", ".s", "1 s", " 1s", "1s ", "1d", "1H", "--1s", "1s-1s", "00", "٣s"]


@pytest.mark.parametrize(("seconds", "text"), PRINTED)
def test_a_duration_is_printed_as_go_prints_it_and_read_back(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(("text", "seconds"), READ)
def test_every_form_of_a_go_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_go_duration_is_refused_with_an_example_of_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"like 300ms, 1\.5h or 1h0m0s"):
        parse_duration(text)


def test_a_duration_beyond_gos_range_is_refused() -> None:
    assert parse_duration("2562047h") == 2562047 * 3600
    with pytest.raises(ValueError, match="292 years"):
        parse_duration("2562048h")


@given(st.integers(min_value=-(10**15), max_value=10**15))
def test_printing_and_reading_a_duration_loses_nothing(nanoseconds: int) -> None:
    assert parse_duration(format_duration(nanoseconds / 1e9)) == nanoseconds / 1e9


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", '""'),
        ("plain", '"plain"'),
        ('say "no"', r'"say \"no\""'),
        ("back\\slash", r'"back\\slash"'),
        ("a\nb\tc\rd", r'"a\nb\tc\rd"'),
        ("\a\b\f\v", r'"\a\b\f\v"'),
        ("\x00\x1b[31m\x7f", r'"\x00\x1b[31m\x7f"'),
        ("größe 東京", '"größe 東京"'),
        ("\u200b\u2028\U000e0001", r'"\u200b\u2028\U000e0001"'),
        ("\udcff", r'"\xff"'),
    ],
)
def test_a_string_is_quoted_as_go_quotes_it(text: str, quoted: str) -> None:
    assert quote(text) == quoted


@given(st.text())
def test_any_text_becomes_one_printable_line(text: str) -> None:
    assert one_line(text).isprintable()
    assert quote(text).isprintable()
