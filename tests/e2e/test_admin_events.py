"""Events of running programs tell what changes."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from tests.e2e.conftest import (
    ConnectAgent,
    OpenTunnel,
    Pair,
    StartAgent,
    StartServer,
    until,
)
from tests.net.authority import Authority
from tests.peers import schema
from tests.peers.admin import agent_status, following, server_status
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ConnectClient, ping


async def test_events_tell_of_agents_dials_and_the_stop(
    start_server: StartServer, connect_agent: ConnectAgent, http_connect: ConnectClient
) -> None:
    server = await start_server()
    async with following(server.options.admin_port) as follower:
        agent = await connect_agent()
        event = await follower.event("agent_connected")
        assert (event.facts["agent"], event.facts["version"]) == ("fake", "")
        client = await http_connect.ask("endpoint:1")
        dial = await agent.expect(schema.DIAL_REQ)
        await agent.send(schema.dial_response(dial.dialRequest.random, 0, "dial tcp: no"))
        event = await follower.event("dial_failed")
        assert event.facts == {
            "agent": "fake",
            "destination": "endpoint:1",
            "reason": "error_response",
            "error": "dial tcp: no",
            "untold": 0,
        }
        await client.close()
        await agent.say_goodbye()
        event = await follower.event("agent_disconnected")
        assert (event.facts["agent"], event.facts["tunnels"]) == ("fake", 0)
        assert event.facts["cause"] == "it said goodbye"
        stopping = asyncio.create_task(server.stop())
        await follower.event("stopping")
        await stopping


async def test_a_flood_of_failures_is_told_in_few_events(
    start_server: StartServer, http_connect: ConnectClient
) -> None:
    server = await start_server()
    before = (await server_status(server)).last_event
    for _ in range(30):
        await http_connect.answer_to("endpoint:1")
    status = await server_status(server)
    assert status.dials.failed == {"no_agent": 30}
    assert len(status.dials.recent_failures) == 30
    place = server.exchange.events.place(before)
    assert 1 <= len(server.exchange.events.after(place)) < 10


async def test_the_stream_goes_on_where_the_status_was_taken(
    start_server: StartServer, connect_agent: ConnectAgent
) -> None:
    server = await start_server()
    await connect_agent("first")
    status = await server_status(server)
    await connect_agent("second")
    async with following(server.options.admin_port, f"?after={status.last_event}") as follower:
        assert (await follower.event("agent_connected")).facts["agent"] == "second"


async def test_an_abnormal_end_is_an_event_and_a_normal_one_is_none(
    pair: Pair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    events = pair.server.exchange.events
    before = events.place(events.last_id)
    tunnel = await open_tunnel("grpc", echoing.address)
    await ping(tunnel)
    await tunnel.close()
    await until(lambda: not pair.server.exchange.counters.established)
    await open_tunnel("grpc", echoing.address)
    (backend,) = pair.server.exchange.backends.streams()
    (left,) = (each for each in backend.tunnels.values() if each.state.value == "open")  # type: ignore[attr-defined]
    left.overflow()
    (event,) = events.after(before)
    assert (event.kind, event.facts["reason"]) == ("tunnel_ended", "overflow")
    assert event.facts["destination"] == echoing.address


async def test_a_new_certificate_is_an_event(
    start_server: StartServer, authority: Authority, tmp_path: Path
) -> None:
    names = [str(tmp_path / name) for name in ("tls.crt", "tls.key")]

    def install() -> None:
        identity = authority.issue("localhost", "127.0.0.1")
        for source, name in zip((identity.cert, identity.key), names, strict=True):
            shutil.copy(source, f"{name}.new")
        for name in names:
            Path(f"{name}.new").replace(name)

    await asyncio.to_thread(install)
    server = await start_server(
        cluster_cert=names[0], cluster_key=names[1], certificate_reload_interval=0.05
    )
    before = (await server_status(server)).server.certificates[0].fingerprint_sha256
    async with following(server.options.admin_port) as follower:
        await asyncio.to_thread(install)
        event = await follower.event("certificate_reloaded")
    after = (await server_status(server)).server.certificates[0]
    assert (event.facts["flag"], event.facts["path"]) == ("cluster-cert", names[0])
    assert event.facts["fingerprintSha256"] == after.fingerprint_sha256 != before


async def test_the_agent_says_why_it_has_no_server(start_agent: StartAgent) -> None:
    agent = await start_agent()
    async with following(agent.options.admin_server_port, "?after=0-0") as follower:
        event = await follower.event("connection_failed")
        assert event.facts["stage"] == "tcp"
    status = await agent_status(agent)
    assert status.servers == ()
    assert status.connection_failures["tcp"] >= 1
    assert status.agent.unready == "no servers connected"
