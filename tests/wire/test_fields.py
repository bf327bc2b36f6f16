"""Malformed messages (RFC 9113, 8.1.1): refused one by one, the connection goes on."""

from __future__ import annotations

import pytest
from tests.wire.peer import REQUEST, RESPONSE, TRAILERS, Peer, reset

from konnectivity.errors import StreamFault
from konnectivity.wire import frames
from konnectivity.wire.events import Headers, HeadersReceived
from konnectivity.wire.fields import check_fields

HEAD = REQUEST[:4]


def without(name: str) -> Headers:
    return [field for field in REQUEST if field[0] != name]


BAD_REQUESTS = {
    "no method": without(":method"),
    "no path": without(":path"),
    "no scheme": without(":scheme"),
    "only fields": TRAILERS,
    "a pseudo-header field twice": [*HEAD, (":path", "/other")],
    "a pseudo-header field behind others": [*HEAD[:3], ("te", "trailers"), HEAD[3]],
    "a pseudo-header field of responses": [*HEAD, (":status", "200")],
    "an unknown pseudo-header field": [*HEAD, (":protocol", "websocket")],
    "an upper-case name": [*HEAD, ("AgentID", "a")],
    "an empty name": [*HEAD, ("", "a")],
    "a name with a blank": [*HEAD, ("agent id", "a")],
    "a name with a colon": [*HEAD, ("agent:id", "a")],
    "a name with a line break": [*HEAD, ("agentid\r\nhost", "a")],
    "a name with NUL": [*HEAD, ("agentid\0", "a")],
    "a name beyond ASCII": [*HEAD, ("agentïd", "a")],
    "a value with CR": [*HEAD, ("agentid", "a\rb")],
    "a value with LF": [*HEAD, ("agentid", "a\nb")],
    "a value that ends in LF": [*HEAD, ("agentid", "a\n")],
    "a value with NUL": [*HEAD, ("agentid", "a\0b")],
    "a value with DEL": [*HEAD, ("agentid", "a\x7fb")],
    "a path with a line break": [*HEAD[:2], (":path", "/x\r\nhost: y"), HEAD[3]],
    "te other than trailers": [*HEAD, ("te", "gzip")],
    **{
        f"the connection field {name}": [*HEAD, (name, "x")]
        for name in ("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade")
    },
}
BAD_RESPONSES = {
    "no status": TRAILERS,
    "a pseudo-header field of requests": [*RESPONSE[:1], (":path", "/")],
    "status twice": [*RESPONSE[:1], *RESPONSE[:1]],
    "a status of letters": [(":status", "abc")],
    "a status of other digits": [(":status", "20²")],
    "a status of two digits": [(":status", "20")],
    "a status of four digits": [(":status", "2000")],
    "a status below 100": [(":status", "099")],
}


@pytest.mark.parametrize("headers", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_a_malformed_request_ends_its_stream_alone(headers: Headers) -> None:
    peer = Peer()
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]

    fault = reset(peer.say(peer.head(1, raw)))  # type: ignore[arg-type]

    assert (fault.stream_id, fault.code, fault.by_peer) == (1, frames.PROTOCOL_ERROR, False)
    assert fault.message
    assert peer.hear() == [(frames.RST_STREAM, 0, 1, b"\0\0\0\x01")]
    assert isinstance(peer.say(peer.head(3))[0], HeadersReceived)


@pytest.mark.parametrize("headers", BAD_RESPONSES.values(), ids=BAD_RESPONSES)
def test_a_malformed_response_ends_its_stream_alone(headers: Headers) -> None:
    peer = Peer(client=True)
    for _ in range(2):
        peer.connection.open_stream(REQUEST)
    peer.hear()
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]

    fault = reset(peer.say(peer.head(1, raw)))  # type: ignore[arg-type]

    assert (fault.stream_id, fault.code) == (1, frames.PROTOCOL_ERROR)
    assert isinstance(peer.say(peer.head(3))[0], HeadersReceived)


def test_trailers_have_no_pseudo_header_fields() -> None:
    with pytest.raises(StreamFault, match="misplaced field ':status'"):
        check_fields(1, [(":status", "200")], request=False, first=False)


@pytest.mark.parametrize(
    "value", ["", "a b", "\ta", "a ", " a", "é", "~", "Bearer eyJhbGciOi.J9-_", "a=b&c=d,e;f"]
)
def test_values_that_go_accepts_are_accepted(value: str) -> None:
    check_fields(1, [*REQUEST, ("agentid", value)], request=True, first=True)


def test_metadata_keys_of_grpc_are_accepted() -> None:
    keys = ("agentid", "grpc-timeout", "x-data-bin", "under_score", "dotted.key", "0digits9")

    check_fields(1, [*REQUEST, *((key, "v") for key in keys)], request=True, first=True)


def test_authority_is_optional() -> None:
    check_fields(1, without(":authority"), request=True, first=True)


def test_empty_trailers_are_no_fault() -> None:
    check_fields(1, [], request=True, first=False)
