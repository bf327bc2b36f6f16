"""The throwaway CA: what it issues is good for one purpose, and private."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from konnectivity.demo.certificates import Authority, KeyPair


@contextlib.asynccontextmanager
async def tls_server(pair: KeyPair, *, client_ca: Path | None = None) -> AsyncIterator[int]:
    """A TLS listener that greets; yields its port."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def greeting(port: int, context: ssl.SSLContext, name: str) -> bytes:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=name
    )
    try:
        return await reader.read(-1)
    finally:
        writer.close()


@pytest.mark.parametrize("name", ["10.0.0.10", "kubelet.example"])
async def test_a_server_is_trusted_under_each_of_its_names(authority: Authority, name: str) -> None:
    pair = authority.issue_server("kubelet", ["10.0.0.10", "kubelet.example"])
    trust = ssl.create_default_context(cafile=authority.bundle)
    async with tls_server(pair) as port:
        assert await greeting(port, trust, name) == b"hello"


async def test_a_server_is_refused_under_another_name(authority: Authority) -> None:
    pair = authority.issue_server("kubelet", ["10.0.0.10"])
    trust = ssl.create_default_context(cafile=authority.bundle)
    async with tls_server(pair) as port:
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
            await greeting(port, trust, "10.0.0.11")


async def test_a_client_certificate_does_not_serve(authority: Authority) -> None:
    trust = ssl.create_default_context(cafile=authority.bundle)
    trust.check_hostname = False
    async with tls_server(authority.issue_client("agent")) as port:
        with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
            await greeting(port, trust, "agent")


async def test_a_client_is_trusted_by_a_server_that_asks(authority: Authority) -> None:
    server = authority.issue_server("server", ["127.0.0.1"])
    client = authority.issue_client("agent")
    trust = ssl.create_default_context(cafile=authority.bundle)
    trust.load_cert_chain(client.certificate, client.key)
    async with tls_server(server, client_ca=authority.bundle) as port:
        assert await greeting(port, trust, "127.0.0.1") == b"hello"


def test_only_the_owner_reads_the_files(authority: Authority, tmp_path: Path) -> None:
    authority.issue_server("server", ["localhost"])
    authority.issue_client("agent")
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "pki").iterdir()}
    assert modes == dict.fromkeys(
        ["ca.crt", "server.crt", "server.key", "agent.crt", "agent.key"], 0o600
    )
