"""An admin port on loopback is not read by web sites that lead a browser to it (DNS rebinding)."""

from __future__ import annotations

import logging
import socket

import pytest
from tests.peers.admin import connected, get, serving

from konnectivity.observe.host import is_loopback, refuse_names
from konnectivity.observe.route import Response

ROUTES = {"/": lambda _: Response(b"secret")}


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8095",
        "localhost.:8095",
        "LocalHost.",
        "localhost:",
        "127.0.0.1",
        "127.0.0.1:8095",
        "127.0.0.1.:8095",
        "10.0.0.7:8095",
        "[::1]",
        "[::1]:8095",
        "[fd00::10]:8095",
        "[::ffff:127.0.0.1]:8095",
        "[fe80::1%25eth0]:8095",
        "",
    ],
)
async def test_addresses_and_localhost_are_answered(host: str) -> None:
    async with serving(ROUTES, guard=refuse_names) as port:
        assert (await get(port, "/", host=host))[::2] == (200, "secret")


async def test_a_client_too_old_for_a_host_is_answered() -> None:
    async with serving(ROUTES, guard=refuse_names) as port, connected(port) as client:
        await client.ask("/", version="1.0", host=None)
        assert (await client.rest()).endswith("secret")


@pytest.mark.parametrize("path", ["/", "/nowhere"])
@pytest.mark.parametrize(
    "host",
    [
        "rebound.example.com",
        "rebound.example.com:8095",
        "konnectivity",
        "localhost.example.com:8095",
        "localhost..",
        "127.0.0.1.example.com",
        "127.0.0.1:8095.example.com",
        "127.0.0.1@rebound.example.com",
        "[::1].example.com",
        "[::1]example.com:8095",
        "[rebound.example.com]",
        "[127.0.0.1]",
        "[]",
        ".",
        ":8095",
        "127.1",
        "2130706433",
        "0x7f000001",
        "localhost:80:95",
        "::1",
        "localhost, rebound.example.com",
    ],
)
async def test_other_names_are_sent_away_with_what_would_be_right(host: str, path: str) -> None:
    async with serving(ROUTES, guard=refuse_names) as port:
        status, _, body = await get(port, path, host=host)
    assert status == 421
    assert "use 127.0.0.1 or localhost" in body
    assert body.count("\n") == 1


async def test_the_log_says_once_by_which_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "konnectivity.observe.host"):
        async with serving(ROUTES, guard=refuse_names) as port:
            for _ in range(3):
                await get(port, "/", host="rebound.example.com" + "x" * 1000)
    (record,) = caplog.records
    (value,) = record.values.values()  # type: ignore[attr-defined]
    assert value.startswith("rebound.example.comxxx")
    assert len(value) == 100


@pytest.mark.parametrize(
    ("family", "address", "loopback"),
    [
        (socket.AF_INET, "127.0.0.1", True),
        (socket.AF_INET, "127.9.9.9", True),
        (socket.AF_INET6, "::1", True),
        (socket.AF_INET6, "::ffff:127.0.0.1", True),
        (socket.AF_INET, "0.0.0.0", False),
        (socket.AF_INET6, "::", False),
    ],
)
def test_where_a_socket_is_bound_is_what_counts(
    family: socket.AddressFamily, address: str, loopback: bool
) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.bind((address, 0))
        assert is_loopback(sock) is loopback
