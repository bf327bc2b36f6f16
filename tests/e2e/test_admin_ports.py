"""What is on which port, and for whom: probes (W79), protection (W50), profiles."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import (
    ConnectAgent,
    Log,
    Pair,
    StartPair,
    StartServer,
)
from tests.net.authority import Authority, Identity
from tests.peers.admin import get
from tests.peers.program import flags, running

# Probes


async def test_w79_liveness_has_a_path_of_its_own(pair: Pair) -> None:
    for port in (pair.server.options.health_port, pair.agent.options.health_server_port):
        status, _, body = await get(port, "/livez")
        assert (status, body) == (200, "ok")


async def test_readiness_tells_more_when_asked(
    start_server: StartServer, connect_agent: ConnectAgent
) -> None:
    server = await start_server()
    port = server.options.health_port
    cause = "no connection to any proxy agent"
    status, _, body = await get(port, "/readyz")
    assert (status, body) == (500, cause)
    status, _, body = await get(port, "/readyz?verbose")
    failed = f"[+]ping ok\n[-]agent-connected failed: {cause}\ncheck failed\n"
    assert (status, body) == (500, failed)
    await connect_agent()
    for target, text in (
        ("/readyz", "ok"),
        ("/ready", "ok"),
        ("/readyz?verbose", "[+]ping ok\n[+]agent-connected ok\ncheck passed\n"),
    ):
        status, _, body = await get(port, target)
        assert (status, body) == (200, text)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/livez", "/debug/pprof/", "/api/v1/"])
async def test_what_is_not_on_the_admin_port_is_not_found(path: str, pair: Pair) -> None:
    for port in (pair.server.options.admin_port, pair.agent.options.admin_server_port):
        assert (await get(port, path))[0] == 404


async def test_the_health_port_tells_no_status(pair: Pair) -> None:
    for port in (pair.server.options.health_port, pair.agent.options.health_server_port):
        assert (await get(port, "/api/v1/status"))[0] == 404


# Protection


async def test_w50_admin_can_be_closed_while_probes_stay_open(
    start_pair: StartPair, authority: Authority, identity: Identity, tmp_path: Path, log: Log
) -> None:
    tokens = tmp_path / "token"
    tokens.write_text("s3cret-token\n")
    closed = {
        "admin_cert": identity.cert,
        "admin_key": identity.key,
        "admin_token_file": str(tokens),
    }
    pair = await start_pair(server=closed, agent=closed)
    options = {
        "ssl": ssl.create_default_context(cafile=authority.bundle),
        "server_hostname": "localhost",
    }
    for health, admin in (
        (pair.server.options.health_port, pair.server.options.admin_port),
        (pair.agent.options.health_server_port, pair.agent.options.admin_server_port),
    ):
        assert (await get(health, "/livez"))[0] == 200
        assert (await get(health, "/metrics"))[0] == 200
        for path in ("/api/v1/status", "/api/v1/events", "/metrics", "/nowhere"):
            status, headers, _ = await get(admin, path, **options)
            assert (status, headers["www-authenticate"]) == (401, 'Bearer realm="konnectivity"')
        bearer = "Authorization: Bearer s3cret-token"
        status, _, body = await get(admin, "/api/v1/status", bearer, **options)
        assert status == 200
        assert "s3cret" not in body
        assert "admin-cert" in body
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await get(admin, "/metrics", bearer)
    assert not log.has("s3cret")


async def test_a_server_with_an_unusable_token_file_does_not_start(
    server_options: dict[str, Any], tmp_path: Path
) -> None:
    empty = tmp_path / "token"
    empty.touch()
    arguments = flags(**server_options, admin_token_file=str(empty))
    async with running("server", *arguments) as program:
        assert await program.status() == 2
    assert "--admin-token-file" in program.lines[-1]
    assert "Traceback" not in "".join(program.lines)


# Web sites that lead a browser here (DNS rebinding)

REBOUND = "rebound.example.com:8095"


async def test_an_admin_port_on_loopback_answers_to_no_sites_name(pair: Pair) -> None:
    for health, admin in (
        (pair.server.options.health_port, pair.server.options.admin_port),
        (pair.agent.options.health_server_port, pair.agent.options.admin_server_port),
    ):
        for path in ("/", "/api/v1/status", "/api/v1/events", "/api/v1/logs", "/metrics"):
            status, _, body = await get(admin, path, host=REBOUND)
            assert (status, body.count("\n")) == (421, 1)
        for host in (f"127.0.0.1:{admin}", f"localhost:{admin}", f"[::1]:{admin}"):
            assert (await get(admin, "/api/v1/status", host=host))[0] == 200
        assert (await get(health, "/metrics", host=REBOUND))[0] == 200


async def test_the_admin_port_of_several_workers_answers_to_no_sites_name(
    server_options: dict[str, Any],
) -> None:
    port = server_options["admin_port"]
    async with running("server", *flags(**server_options, workers=2)) as program:
        await program.line('"Worker is up"')
        for path in ("/api/v1/status", "/api/v1/status?worker=0", "/api/v1/events"):
            assert (await get(port, path, host=REBOUND))[0] == 421
        assert (await get(port, "/api/v1/status"))[0] == 200


async def test_an_admin_port_that_others_reach_answers_to_any_name(
    start_server: StartServer,
) -> None:
    server = await start_server(admin_bind_address="0.0.0.0")
    assert (await get(server.options.admin_port, "/metrics", host="cp-1:8095"))[0] == 200


async def test_an_admin_port_that_asks_for_tokens_answers_to_any_name(
    start_server: StartServer, tmp_path: Path
) -> None:
    tokens = tmp_path / "token"
    tokens.write_text("s3cret-token\n")
    server = await start_server(admin_token_file=str(tokens))
    port, bearer = server.options.admin_port, "Authorization: Bearer s3cret-token"
    assert (await get(port, "/api/v1/status", host="cp-1:8095"))[0] == 401
    assert (await get(port, "/api/v1/status", bearer, host="cp-1:8095"))[0] == 200


async def test_an_admin_port_with_tls_answers_to_the_names_of_its_certificate(
    start_server: StartServer, authority: Authority
) -> None:
    own = authority.issue("admin.example.com")
    server = await start_server(admin_cert=own.cert, admin_key=own.key)
    options = {
        "ssl": ssl.create_default_context(cafile=authority.bundle),
        "server_hostname": "admin.example.com",
    }
    port = server.options.admin_port
    assert (await get(port, "/metrics", host="admin.example.com:8095", **options))[0] == 200
    with pytest.raises(ssl.SSLCertVerificationError, match="rebound"):
        await get(port, "/metrics", **options | {"server_hostname": "rebound.example.com"})


# Profiling


async def test_profiles_are_there_when_asked_for(start_server: StartServer) -> None:
    server = await start_server(enable_profiling=True, enable_contention_profiling=True)
    port = server.options.admin_port
    assert (await get(port, "/debug/pprof"))[:2][0] == 301
    assert "goroutine" in (await get(port, "/debug/pprof/"))[2]
    assert "late by more than 20 ms" in (await get(port, "/debug/pprof/block"))[2]
    status, _, body = await get(port, "/debug/pprof/goroutine")
    assert (status, "tasks" in body) == (200, True)
