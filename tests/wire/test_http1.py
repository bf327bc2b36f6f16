"""Heads of HTTP/1.1: what is read, what is refused, and how early."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konnectivity.errors import Http1Error
from konnectivity.wire.http1 import (
    ESTABLISHED,
    MAX_FIELDS,
    MAX_HEAD,
    Request,
    parse_request,
    parse_response,
    response,
)

APISERVER = b"CONNECT 10.0.0.1:10250 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def request(head: bytes) -> Request:
    found = parse_request(head)
    assert found is not None
    return found


def refused(head: bytes, *, limit: int = MAX_HEAD) -> Http1Error:
    with pytest.raises(Http1Error) as caught:
        parse_request(head, limit=limit)
    assert "\n" not in str(caught.value)
    return caught.value


# Requests


def test_what_kube_apiserver_sends_is_read() -> None:
    assert parse_request(APISERVER + b"\x16\x03\x01") == Request(
        method="CONNECT",
        target="10.0.0.1:10250",
        host="127.0.0.1",
        minor=1,
        fields=(("host", "127.0.0.1"),),
        rest=b"\x16\x03\x01",
    )


@given(st.integers(0, len(APISERVER) - 1))
def test_a_head_that_is_cut_off_is_waited_for(size: int) -> None:
    assert parse_request(APISERVER[:size]) is None


@pytest.mark.parametrize(
    ("line", "host", "destination"),
    [
        ("example.com:443", "other:1", "example.com:443"),
        ("[::1]:443", "other:1", "[::1]:443"),
        ("example.com", "other:1", "example.com"),
        ("/", "other:1", "other:1"),
        ("/path", "", ""),
    ],
)
def test_the_destination_is_the_target_or_else_the_host(
    line: str, host: str, destination: str
) -> None:
    found = request(f"CONNECT {line} HTTP/1.1\r\nHost:{host}\r\n\r\n".encode())

    assert found.destination == destination


def test_a_host_is_optional() -> None:
    assert request(b"CONNECT a:1 HTTP/1.1\r\n\r\n").host == ""


def test_two_hosts_are_refused() -> None:
    error = refused(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n")

    assert (error.status, str(error)) == (400, "more than one Host header")


def test_field_names_are_lower_case_and_values_stripped() -> None:
    found = request(b"GET / HTTP/1.1\r\nX-A: \t b c \t\r\nx-B:\xe4\r\n\r\n")

    assert found.fields == (("x-a", "b c"), ("x-b", "ä"))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"CONNECT",
        b"CONNECT a:1",
        b"CONNECT  a:1 HTTP/1.1",
        b" CONNECT a:1 HTTP/1.1",
        b"CONNECT a:1 HTTP/1.1 ",
        b"CONNECT a:1 HTTP/1.2",
        b"CONNECT a:1 HTTP/1.",
        b"CONNECT a:1 http/1.1",
        b"CONNECT a b HTTP/1.1",
        b"CONNECT a\t:1 HTTP/1.1",
        b"CONNECT \xff:1 HTTP/1.1",
        b"CONN(ECT a:1 HTTP/1.1",
        b"CONNECT a:1 HTTP/1.1\nHost: b",
        b"CONNECT a:1\rx HTTP/1.1",
    ],
)
def test_a_malformed_request_line_is_refused(line: bytes) -> None:
    assert refused(line + b"\r\n\r\n").status == 400


@pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/3", b"HTTP/0.9"])
def test_other_versions_are_refused_by_name(version: bytes) -> None:
    error = refused(b"CONNECT a:1 " + version + b"\r\n\r\n")

    assert error.status == 505
    assert version.decode() in str(error)


def test_the_preface_of_http2_is_another_version() -> None:
    assert refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").status == 505


@pytest.mark.parametrize(
    "field",
    [
        b"no colon",
        b": no name",
        b"a b: c",
        b"a : c",
        b" folded: c",
        b"a: b\nc: d",
        b"a: b\rc",
        b"a: \x00",
        b"a: \x7f",
        b"\xe4: a",
    ],
)
def test_a_malformed_field_is_refused(field: bytes) -> None:
    assert refused(b"CONNECT a:1 HTTP/1.1\r\n" + field + b"\r\n\r\n").status == 400


# Limits


def test_a_head_may_be_as_long_as_the_limit() -> None:
    head = b"CONNECT a:1 HTTP/1.1\r\na: " + b"x" * 50
    limit = len(head)

    assert parse_request(head + b"\r\n\r\n" + b"rest" * 100, limit=limit) is not None
    assert refused(head + b"x\r\n\r\n", limit=limit).status == 431


def test_a_head_without_end_is_refused_at_the_limit() -> None:
    endless = b"CONNECT a:1 HTTP/1.1\r\n" + b"a: b\r\n" * MAX_HEAD

    assert parse_request(endless[:MAX_HEAD]) is None
    error = refused(endless[: MAX_HEAD + 1])
    assert (error.status, str(error)) == (431, f"the head is longer than {MAX_HEAD} bytes")


def test_fields_are_counted() -> None:
    line = b"CONNECT a:1 HTTP/1.1\r\n"

    assert len(request(line + b"a: b\r\n" * MAX_FIELDS + b"\r\n").fields) == MAX_FIELDS
    assert refused(line + b"a: b\r\n" * (MAX_FIELDS + 1) + b"\r\n").status == 431


def test_a_slow_head_is_cheap_to_look_at_again_and_again() -> None:
    head = b"CONNECT a:1 HTTP/1.1\r\na: " + b"x" * 60_000
    started = time.process_time()

    for size in range(59_000, 60_000):
        assert parse_request(head[:size]) is None

    assert time.process_time() - started < 1.0


@pytest.mark.parametrize(
    "first",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS ClientHello
        b"\x16",
        b"\x00",
        b" ",
        b"\r\n",
        b"(",
        b"\xff\xff",
    ],
)
def test_what_can_never_become_a_request_is_refused_at_once(first: bytes) -> None:
    error = refused(first)

    assert error.status == 400
    assert str(error).startswith("not HTTP/1: ")


def status(parse: Callable[[bytes], object], head: bytes) -> int | None:
    """The status of the refusal, if it is one."""
    try:
        parse(head)
    except Http1Error as error:
        return error.status
    return None


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_http1_errors(data: bytes) -> None:
    for head in (data, data + b"\r\n\r\n", APISERVER[:-2] + data + b"\r\n\r\n"):
        assert status(parse_request, head) in (None, 400, 431, 505)
        assert status(parse_response, head) in (None, 502)


# What follows a request


@pytest.mark.parametrize(
    ("minor", "fields", "keeps"),
    [
        (1, "", True),
        (0, "", False),
        (1, "Connection: close\r\n", False),
        (1, "Connection: Keep-Alive, Close\r\n", False),
        (1, "Connection: x\r\nConnection: close\r\n", False),
        (1, "Connection: closed\r\n", True),
        (0, "Connection: Keep-Alive\r\n", True),
        (0, "Connection: not-keep-alive\r\n", False),
        (1, "Transfer-Encoding: chunked\r\n", False),
        (0, "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n", False),
    ],
)
def test_whether_another_request_may_follow(minor: int, fields: str, keeps: bool) -> None:
    assert request(f"GET / HTTP/1.{minor}\r\n{fields}\r\n".encode()).keeps_alive is keeps


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ("", 0),
        ("Content-Length: 12\r\n", 12),
        ("Content-Length: 12\r\ncontent-length: 12\r\n", 12),
        ("Content-Length: 0\r\n", 0),
    ],
)
def test_the_size_of_a_body_is_its_content_length(fields: str, size: int) -> None:
    assert request(f"GET / HTTP/1.1\r\n{fields}\r\n".encode()).body_size == size


@pytest.mark.parametrize(
    "value", ["x", "-1", "+1", "1 2", "0x10", "²", "", "1" * 19, "1\r\nContent-Length: 2"]
)
def test_a_content_length_that_is_not_one_number_is_refused(value: str) -> None:
    error = refused(f"GET / HTTP/1.1\r\nContent-Length: {value}\r\n\r\n".encode("latin-1"))

    assert (error.status, str(error)) == (400, "Content-Length is not one number")


# Responses


def test_what_upstream_answers_is_read() -> None:
    found = parse_response(ESTABLISHED + b"tunnel bytes")

    assert found is not None
    assert (found.status, found.reason) == (200, "Connection Established")
    assert (found.fields, found.rest) == ((), b"tunnel bytes")


@given(st.integers(0, len(ESTABLISHED) - 1))
def test_an_answer_that_is_cut_off_is_waited_for(size: int) -> None:
    assert parse_response(ESTABLISHED[:size]) is None


@pytest.mark.parametrize("line", [b"HTTP/1.1 407", b"HTTP/1.0 407 ", b"HTTP/1.1 407 No \xe4"])
def test_a_reason_is_optional(line: bytes) -> None:
    found = parse_response(line + b"\r\nA: b\r\n\r\n")

    assert found is not None
    assert (found.status, found.fields) == (407, (("a", "b"),))


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"HTTP/1.1 099 Low\r\n\r\n",
        b"HTTP/1.1 2000 High\r\n\r\n",
        b"HTTP/1.2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 O\x00K\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * (MAX_FIELDS + 1) + b"\r\n",
        b"HTTP/1.1 200 OK\r\na: " + b"x" * MAX_HEAD,
        b"HTTP/1.1 200 OK\r\na: " + b"x" * MAX_HEAD + b"\r\n\r\n",
    ],
)
def test_a_bad_answer_is_a_bad_gateway(head: bytes) -> None:
    with pytest.raises(Http1Error) as caught:
        parse_response(head)

    assert caught.value.status == 502


@pytest.mark.parametrize("first", [b"\x15\x03\x01", b"SSH-2.0-x\r\n", b"H2", bytes(9)])
def test_what_can_never_become_an_answer_is_refused_at_once(first: bytes) -> None:
    with pytest.raises(Http1Error, match="not an HTTP/1 answer") as caught:
        parse_response(first)

    assert caught.value.status == 502


def test_an_answer_is_written_as_it_was_asked_for() -> None:
    written = response(502, "Bad Gateway", "größer\n", fields=(("B", "1"), ("A", "2")))

    assert written == "HTTP/1.1 502 Bad Gateway\r\nB: 1\r\nA: 2\r\n\r\ngrößer\n".encode()
