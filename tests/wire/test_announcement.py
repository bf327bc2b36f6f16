"""What one server says about all of them survives its way through metadata, and so do we."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konnectivity.wire.announcement import MOST, decode, encode

SERVERS = st.dictionaries(st.text(min_size=1), st.text(), max_size=5)


@given(SERVERS)
def test_what_was_encoded_is_decoded_and_fits_in_a_header(servers: dict[str, str]) -> None:
    text = encode(servers)
    assert text.isascii()
    assert text.isprintable()
    assert decode(text) == servers


def test_an_announcement_can_be_read_by_people() -> None:
    text = encode({"s2": "", "s1": "10.0.0.1:8091", "s3": "[fd00::3]:8091"})
    assert text == "s1=10.0.0.1:8091&s2=&s3=[fd00::3]:8091"


def test_too_many_servers_are_not_announced_and_not_believed() -> None:
    many = {str(number): "" for number in range(MOST + 1)}
    assert encode(many) == ""
    assert decode("&".join(f"{name}=" for name in many)) == {}
    del many["0"]
    assert decode(encode(many)) == many


@pytest.mark.parametrize("text", ["", "s1", "s1&s2", "a=%ff", "&", "=x"])
def test_anything_else_announces_nobody(text: str) -> None:
    assert decode(text) == {}


@given(st.text())
def test_no_text_does_harm(text: str) -> None:
    assert isinstance(decode(text), dict)
