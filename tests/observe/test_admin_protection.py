"""W50: admin endpoints behind TLS, client certificates and bearer tokens."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.net.authority import Authority, Identity
from tests.peers.admin import connected, get, serving

from konnectivity.errors import ConfigError
from konnectivity.net.admin_tls import for_admin
from konnectivity.net.reload import CertificateWatch
from konnectivity.observe import protection
from konnectivity.observe.protection import BearerTokens
from konnectivity.observe.route import Response

ROUTES = {"/": lambda _: Response(b"secret")}


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text("first-token\n\n  second-token  \n")
    return path


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are looked at for each request."""
    monkeypatch.setattr(protection, "LOOK_EVERY", 0.0)


@pytest.mark.parametrize("token", ["first-token", "second-token"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_w50_each_token_of_the_file_opens(token_file: Path, token: str, scheme: str) -> None:
    tokens = await asyncio.to_thread(BearerTokens, str(token_file))
    async with serving(ROUTES, guard=tokens.refusal) as port:
        status, _, body = await get(port, "/", f"Authorization: {scheme} {token}")
    assert (status, body) == (200, "secret")


@pytest.mark.parametrize("path", ["/", "/nowhere"])
@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("X: y", ""),
        ("Authorization: Bearer", ""),
        ("Authorization: Basic Zmlyc3QtdG9rZW4=", ""),
        ("Authorization: Bearer first-toke", ', error="invalid_token"'),
        ("Authorization: Bearer first-token2", ', error="invalid_token"'),
        ("Authorization: Bearer first-token second-token", ', error="invalid_token"'),
        ("Authorization: Bearer \xfffirst", ', error="invalid_token"'),
    ],
)
async def test_w50_no_or_a_wrong_token_is_401_and_says_nothing_more(
    token_file: Path, header: str, error: str, path: str
) -> None:
    tokens = await asyncio.to_thread(BearerTokens, str(token_file))
    async with serving(ROUTES, guard=tokens.refusal) as port, connected(port) as client:
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n"
        client.writer.write(request.encode("latin-1"))
        status, headers, body = await client.answer()
    assert (status, body) == (401, "unauthorized\n")
    assert headers["www-authenticate"] == 'Bearer realm="konnectivity"' + error


@pytest.mark.usefixtures("at_once")
async def test_a_new_file_counts_without_a_restart(
    token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = await asyncio.to_thread(BearerTokens, str(token_file))
    async with serving(ROUTES, guard=tokens.refusal) as port:
        assert (await get(port, "/", "Authorization: Bearer first-token"))[0] == 200
        new = token_file.with_suffix(".new")
        new.write_text("third-token")
        new.replace(token_file)
        with caplog.at_level(logging.INFO):
            assert (await get(port, "/", "Authorization: Bearer third-token"))[0] == 200
        assert (await get(port, "/", "Authorization: Bearer first-token"))[0] == 401
    assert "third-token" not in caplog.text
    assert caplog.records


def spoil(path: Path, content: str | None) -> None:
    """Replace a file by other content, or by none."""
    path.unlink()
    if content is not None:
        path.write_text(content)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("content", [None, "", "\n\n", "tök"])
async def test_a_file_that_breaks_later_changes_nothing(
    token_file: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = await asyncio.to_thread(BearerTokens, str(token_file))
    async with serving(ROUTES, guard=tokens.refusal) as port:
        spoil(token_file, content)
        assert (await get(port, "/", "Authorization: Bearer first-token"))[0] == 200
        assert (await get(port, "/", "Authorization: Bearer other"))[0] == 401
    assert "Admin tokens stay as they were" in caplog.text


@pytest.mark.parametrize("content", ["", " \n ", "tök", "x" * 70_000])
def test_a_file_without_tokens_stops_the_start(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"^--admin-token-file=.* holds no tokens") as caught:
        BearerTokens(str(path))
    assert content.strip() == "" or content not in str(caught.value)


def test_a_file_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^cannot read --admin-token-file=.*Is a directory$"):
        BearerTokens(str(tmp_path))


def test_a_token_is_nowhere_in_what_is_kept(token_file: Path) -> None:
    tokens = BearerTokens(str(token_file))
    assert "first-token" not in repr(vars(tokens))


# TLS


def client_context(authority: Authority, identity: Identity | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.bundle)
    if identity is not None:
        context.load_cert_chain(identity.cert, identity.key)
    return context


def server_side(identity: Identity, client_ca: str = "") -> Callable[[], ssl.SSLContext]:
    made = for_admin(CertificateWatch(), cert=identity.cert, key=identity.key, client_ca=client_ca)
    assert made is not None
    return made


def test_without_a_certificate_there_is_no_tls() -> None:
    assert for_admin(CertificateWatch(), cert="", key="", client_ca="") is None


async def test_w50_admin_speaks_tls(authority: Authority, identity: Identity) -> None:
    context = await asyncio.to_thread(server_side, identity)
    async with serving(ROUTES, context=context) as port:
        options = {"ssl": client_context(authority), "server_hostname": "localhost"}
        for _ in range(2):
            assert (await get(port, "/", **options))[2] == "secret"
        async with connected(port, **options) as client:
            await client.ask("/", "Connection: close")
            assert (await client.rest()).endswith("secret")


async def test_w50_admin_asks_for_client_certificates(
    authority: Authority, stranger: Authority, identity: Identity
) -> None:
    context = await asyncio.to_thread(server_side, identity, authority.bundle)
    async with serving(ROUTES, context=context) as port:
        known = client_context(authority, identity)
        assert (await get(port, "/", ssl=known, server_hostname="localhost"))[2] == "secret"
        for other in (None, stranger.issue("localhost")):
            unknown = client_context(authority, other)
            with pytest.raises((ConnectionError, ssl.SSLError, asyncio.IncompleteReadError)):
                await get(port, "/", ssl=unknown, server_hostname="localhost")


# Flags


@pytest.mark.parametrize(
    ("given", "problems"),
    [
        ({}, []),
        ({"cert": "here", "key": "here"}, []),
        ({"cert": "here", "key": "here", "client_ca": "here", "token_file": "here"}, []),
        ({"token_file": "here"}, []),
        ({"cert": "here"}, ['cannot have admin key empty when admin cert is set to "{here}"']),
        ({"key": "here"}, ['cannot have admin cert empty when admin key is set to "{here}"']),
        (
            {"client_ca": "here"},
            ["--admin-client-ca needs --admin-cert and --admin-key: only TLS has certificates"],
        ),
        (
            {"cert": "/a", "key": "/b", "client_ca": "/c", "token_file": "/d"},
            [
                "error checking admin cert /a, got stat /a: no such file or directory",
                "error checking admin key /b, got stat /b: no such file or directory",
                "error checking admin client CA /c, got stat /c: no such file or directory",
                "error checking admin token file /d, got stat /d: no such file or directory",
            ],
        ),
    ],
)
def test_flags_that_do_not_fit_are_named(
    given: dict[str, str], problems: list[str], tmp_path: Path
) -> None:
    here = tmp_path / "file"
    here.touch()
    made = {name: str(here) if value == "here" else value for name, value in given.items()}
    values = [made.get(name, "") for name in ("cert", "key", "client_ca", "token_file")]
    found = list(protection.check(*values))
    assert found == [text.format(here=here) for text in problems]
