"""Metrics as a scraper reads them from running programs: W67 to W71."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from tests.e2e.conftest import (
    MODES,
    ConnectAgent,
    OpenProxy,
    OpenTunnel,
    Pair,
    StartAgent,
    StartEndpoint,
    StartFakeServer,
    StartServer,
    until,
)
from tests.peers import schema
from tests.peers.agent import FakeAgent
from tests.peers.endpoint import Endpoint, pour
from tests.peers.frontend import ConnectClient, GrpcTunnel, Refused, Tunnel, ping
from tests.peers.kube_api import KubeApi
from tests.peers.metrics import Page
from tests.peers.ports import free_port
from tests.spec.metrics import AGENT, AGENT_METRICS, SERVER, SERVER_METRICS

from konnectivity import __version__
from konnectivity.agent.app import Agent
from konnectivity.server.agent_figures import AgentTable
from konnectivity.server.app import Server
from konnectivity.tunnel.budget import TunnelLimits
from konnectivity.tunnel.outbox import PAUSE_AT


async def server_page(server: Server) -> Page:
    page = await Page.scrape(server.options.health_port, SERVER)
    page.check(SERVER_METRICS)
    return page


async def agent_page(agent: Agent) -> Page:
    page = await Page.scrape(agent.options.health_server_port, AGENT)
    page.check(AGENT_METRICS)
    return page


async def shows(page: Callable[[], Awaitable[Page]], true: Callable[[Page], bool]) -> Page:
    """Wait until a page is as `true` wants it."""
    async with asyncio.timeout(5):
        while not true(found := await page()):  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.02)
    return found


# What is there from the start


async def test_a_new_server_shows_of_upstreams_metrics_what_upstreams_does(
    start_server: StartServer,
) -> None:
    page = await server_page(await start_server())
    assert page.families.keys() & SERVER_METRICS.keys() == {
        "culled_leases_count",
        "http_connections",
        "ready_backend_connections",
        "ready_backends",
    }
    assert page.value("ready_backends", proxy_strategy="default") == 0


async def test_a_new_agent_shows_its_connections_though_it_has_none(
    start_agent: StartAgent,
) -> None:
    """Upstream's test harness takes a missing `open_server_connections` for a fault."""
    page = await agent_page(await start_agent(proxy_server_port=free_port()))
    assert page.families.keys() & AGENT_METRICS.keys() == {
        "known_server_count",
        "open_server_connections",
    }
    assert page.value("open_server_connections") == 0


async def test_both_programs_tell_their_version_and_the_figures_of_their_process(
    pair: Pair,
) -> None:
    for page in (await server_page(pair.server), await agent_page(pair.agent)):
        assert page.value("build_info", version=__version__) == 1
        assert (page.value("process_resident_memory_bytes") or 0) > 1 << 20
        assert "python_info" in page.families
    admin = await Page.scrape(pair.server.options.admin_port, SERVER)
    assert admin.families.keys() == (await server_page(pair.server)).families.keys()


# Dials and tunnels


@pytest.mark.parametrize("mode", MODES)
async def test_w67_gauges_follow_a_tunnel_exactly_and_every_end_has_its_duration(
    mode: str,
    start_server: StartServer,
    connect_agent: ConnectAgent,
    open_tunnel: OpenTunnel,
) -> None:
    """Scenarios 36 and 37, for tunnels that frontends, endpoints and lost agents end."""
    server = await start_server()
    agent = await connect_agent()

    async def gauges() -> tuple[float | None, float | None, float | None]:
        page = await server_page(server)
        return (
            page.value("pending_backend_dials"),
            page.value("established_connections"),
            page.value("connection_duration_seconds_count"),
        )

    assert await gauges() == (None, None, None)
    dialing = asyncio.create_task(open_tunnel(mode, "endpoint:1"))
    random = (await agent.expect(schema.DIAL_REQ)).dialRequest.random
    assert await gauges() == (1, None, None)
    await agent.send(schema.dial_response(random, 1))
    left = await dialing
    assert await gauges() == (0, 1, None)
    for connect_id in (2, 3):
        await open_through(agent, open_tunnel, mode, connect_id)
    assert await gauges() == (0, 3, None)

    await leave(left)
    await agent.expect(schema.CLOSE_REQ)
    assert await gauges() == (0, 2, 1)  # though the agent has not answered yet
    await agent.send(schema.close_response(2))
    await until(lambda: server.exchange.counters.established == 1)
    assert await gauges() == (0, 1, 2)
    await agent.leave()
    await until(lambda: not server.exchange.counters.established)
    assert await gauges() == (0, 0, 3)


async def leave(tunnel: Tunnel) -> None:
    """Go away without waiting for the other side."""
    if isinstance(tunnel, GrpcTunnel):
        await tunnel.stream.leave()
    else:
        await tunnel.close()


async def open_through(
    agent: FakeAgent, open_tunnel: OpenTunnel, mode: str, connect_id: int
) -> Tunnel:
    dialing = asyncio.create_task(open_tunnel(mode, "endpoint:1"))
    await agent.accept(connect_id)
    return await dialing


@pytest.mark.parametrize("mode", MODES)
async def test_w69_failed_dials_count_alike_in_both_modes(
    mode: str, start_server: StartServer, connect_agent: ConnectAgent, open_tunnel: OpenTunnel
) -> None:
    server = await start_server(retry_dials=False)
    with pytest.raises(Refused):
        await open_tunnel(mode, "endpoint:1")
    agent = await connect_agent()
    refused = asyncio.create_task(open_tunnel(mode, "endpoint:1"))
    random = (await agent.expect(schema.DIAL_REQ)).dialRequest.random
    await agent.send(schema.dial_response(random, error="connection refused"))
    with pytest.raises(Refused):
        await refused
    lost = asyncio.create_task(open_tunnel(mode, "endpoint:1"))
    await agent.expect(schema.DIAL_REQ)
    await agent.leave()
    with pytest.raises(Refused):
        await lost
    page = await server_page(server)
    assert page.all("dial_failure_count", "reason") == {
        "no_agent": 1,
        "error_response": 1,
        "backend_close": 1,
    }


async def test_w69_frontends_that_leave_while_dialing_count_in_both_modes(
    start_server: StartServer,
    connect_agent: ConnectAgent,
    http_connect: ConnectClient,
    open_proxy: OpenProxy,
) -> None:
    server = await start_server()
    agent = await connect_agent()
    tunnel = await http_connect.ask("endpoint:1")
    await agent.expect(schema.DIAL_REQ)
    await tunnel.close()
    stream = await open_proxy()
    await stream.begin_dial("endpoint:1")
    await agent.expect(schema.DIAL_CLS)
    await agent.expect(schema.DIAL_REQ)
    await stream.leave()
    await shows(
        lambda: server_page(server),
        lambda page: page.value("dial_failure_count", reason="frontend_close") == 2,
    )


async def test_an_answer_to_no_dial_counts_as_unrecognized_also_when_its_agent_is_gone(
    start_server: StartServer, connect_agent: ConnectAgent
) -> None:
    server = await start_server()
    agent = await connect_agent()
    await agent.send(schema.dial_response(123, 1))
    await agent.expect(schema.CLOSE_REQ)
    found = {"unrecognized_response": 1.0}
    assert (await server_page(server)).all("dial_failure_count", "reason") == found
    await agent.leave()
    await until(lambda: not len(server.exchange.backends))
    assert (await server_page(server)).all("dial_failure_count", "reason") == found


async def test_http_connections_are_connect_requests_under_way(
    pair: Pair, http_connect: ConnectClient, echoing: Endpoint
) -> None:
    idle = await http_connect.open()
    assert (await server_page(pair.server)).value("http_connections") == 0
    tunnel = await http_connect.dial(echoing.address)
    assert (await server_page(pair.server)).value("http_connections") == 1
    await tunnel.close()
    await shows(lambda: server_page(pair.server), lambda page: page.value("http_connections") == 0)
    await idle.close()


async def test_an_endpoint_that_refuses_is_unknown_to_upstream_and_has_its_cause_beside_it(
    pair: Pair, open_tunnel: OpenTunnel
) -> None:
    """Scenarios 2 and 12; upstream's suite compares the whole family of the first."""
    for mode in MODES:
        with pytest.raises(Refused):
            await open_tunnel(mode, f"127.0.0.1:{free_port()}")
    page = await agent_page(pair.agent)
    name = AGENT + "endpoint_dial_failure_total"
    assert (
        f"# HELP {name} "
        "Number of failures dialing the remote endpoint, by reason (example: timeout).\n"
        f"# TYPE {name} counter\n"
        f'{name}{{reason="unknown"}} 2\n'
    ) in page.text
    assert page.all("endpoint_dial_failure_reasons_total", "reason") == {"refused": 2}


# Packets and bytes


async def test_packets_are_counted_by_segment_and_stay_counted_when_their_stream_is_gone(
    pair: Pair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    tunnel = await open_tunnel("grpc", echoing.address)
    for _ in range(3):
        await ping(tunnel)
    await tunnel.close()
    await until(lambda: not pair.agent.connections.tunnels)
    to_endpoint = {"DIAL_REQ": 1, "DATA": 3, "CLOSE_REQ": 1}
    to_frontend = {"DIAL_RSP": 1, "DATA": 3, "CLOSE_RSP": 1}

    async def counted(page: Page) -> None:
        for segment in SEGMENTS:
            want = to_endpoint if segment in ("from_client", "to_agent") else to_frontend
            found = {
                kind: page.value("stream_packets_total", **labels(segment, kind)) for kind in want
            }
            assert found == want, segment

    await counted(await server_page(pair.server))
    agent = await agent_page(pair.agent)
    for segment, want in (("to_agent", to_endpoint), ("from_agent", to_frontend)):
        for kind, count in want.items():
            assert agent.value("stream_packets_total", **labels(segment, kind)) == count
    await pair.agent.stop()
    await until(lambda: not len(pair.server.exchange.backends))
    await counted(await server_page(pair.server))


SEGMENTS = ("from_client", "to_client", "from_agent", "to_agent")


def labels(segment: str, packet_type: str) -> dict[str, str]:
    return {"segment": segment, "packet_type": packet_type}


async def test_bytes_of_http_connect_are_no_packets_of_its_frontend(
    pair: Pair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    await ping(await open_tunnel("http-connect", echoing.address))
    page = await server_page(pair.server)
    assert page.value("stream_packets_total", **labels("from_client", "DATA")) is None
    assert page.value("stream_packets_total", **labels("to_agent", "DATA")) == 1


async def test_types_that_nobody_knows_are_counted_as_one(
    start_server: StartServer, connect_agent: ConnectAgent
) -> None:
    server = await start_server()
    agent = await connect_agent()
    for kind in (50, 51, 52):
        await agent.send(schema.Packet(type=kind))
    await shows(
        lambda: server_page(server),
        lambda page: page.value("stream_packets_total", **labels("from_agent", "unknown")) == 3,
    )


@pytest.mark.parametrize("mode", MODES)
async def test_w71_bytes_dials_and_tunnels_are_counted_by_direction_and_by_agent(
    mode: str, pair: Pair, open_tunnel: OpenTunnel, echoing: Endpoint
) -> None:
    tunnel = await open_tunnel(mode, echoing.address)
    await ping(tunnel, b"x" * 1000)
    for tunnels in (1, 0):
        page = await server_page(pair.server)
        both = {"to_agent": 1000, "from_agent": 1000}
        assert page.all("tunnel_bytes_total", "segment") == both
        assert page.all("agent_tunnels", "agent") == {"agent-1": tunnels}
        for segment, size in both.items():
            assert page.value("agent_bytes_total", agent="agent-1", segment=segment) == size
        assert (await agent_page(pair.agent)).all("tunnel_bytes_total", "segment") == both
        await tunnel.close()
        await until(lambda: not pair.agent.connections.tunnels)
    with pytest.raises(Refused):
        await open_tunnel(mode, f"127.0.0.1:{free_port()}")
    page = await server_page(pair.server)
    assert page.all("agent_dials_total", "agent") == {"agent-1": 2}
    assert page.all("agent_dial_failures_total", "agent") == {"agent-1": 1}


@pytest.mark.parametrize("mode", MODES)
async def test_w71_the_agent_counts_its_tunnels_by_their_end_and_how_long_they_lasted(
    mode: str, pair: Pair, open_tunnel: OpenTunnel, start_endpoint: StartEndpoint, echoing: Endpoint
) -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    left = await open_tunnel(mode, echoing.address)
    await left.close()
    short = await open_tunnel(mode, (await start_endpoint(close)).address)
    await short.write(b"x")
    assert await short.read() == b""
    await short.close()
    await until(lambda: not pair.agent.connections.tunnels)
    page = await agent_page(pair.agent)
    assert page.all("tunnels_ended_total", "reason") == {"frontend_close": 1, "endpoint_close": 1}
    assert page.value("connection_duration_seconds_count") == 2
    assert page.value("open_endpoint_connections") == 0


async def test_w71_agents_beyond_the_limit_share_their_figures(
    start_server: StartServer, connect_agent: ConnectAgent, open_tunnel: OpenTunnel
) -> None:
    server = await start_server()
    server.exchange.counters.agents = AgentTable(limit=1)
    first = await connect_agent("first")
    await open_through(first, open_tunnel, "grpc", 1)
    second = await connect_agent("second")
    await first.send(schema.drain())
    await until(lambda: any(each.draining for each in server.exchange.backends.streams()))
    for connect_id in (1, 2):
        await open_through(second, open_tunnel, "grpc", connect_id)
    page = await server_page(server)
    assert page.all("agent_tunnels", "agent") == {"first": 1, "other": 2}
    assert page.all("agent_dials_total", "agent") == {"first": 1, "other": 2}


async def test_w71_certificates_in_use_and_on_disk_tell_when_they_expire(pair: Pair) -> None:
    page = await server_page(pair.server)
    for state in ("in_use", "on_disk"):
        expiry = page.value(
            "certificate_expiry_timestamp_seconds", file="cluster-cert", state=state
        )
        assert expiry is not None
        assert expiry > time.time()
    agent = await agent_page(pair.agent)
    files = agent.all("certificate_expiry_timestamp_seconds", "file")
    assert files.keys() == {"ca-cert", "agent-cert"}


# Errors of streams


async def test_streams_that_break_count_with_their_code(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    server = await start_server()
    agent = await connect_agent()
    stream = await open_proxy()
    await stream.begin_dial("endpoint:1")
    await agent.accept()
    await stream.end_dial()
    await stream.leave()
    await agent.expect(schema.CLOSE_REQ)
    done = await open_proxy()
    await done.begin_dial("endpoint:1")
    await agent.accept()
    await done.end_dial()
    await done.half_close()
    await done.status()  # a goodbye is no error
    await agent.leave()
    await until(lambda: not len(server.exchange.backends))
    page = await server_page(server)
    errors = {
        segment: page.value(
            "stream_errors_total", segment=segment, code="Canceled", packet_type="Unknown"
        )
        for segment in ("from_client", "from_agent")
    }
    assert errors == {"from_client": 1, "from_agent": 1}


async def test_a_frontend_that_is_too_slow_counts_as_an_error_on_the_way_to_it(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    server = await start_server(limits=TunnelLimits(queue=1 << 20))
    agent = await connect_agent()
    stream = await open_proxy()
    await stream.begin_dial("endpoint:1")
    await agent.accept()
    await stream.end_dial()
    stream.pause()
    while not server.exchange.counters.tunnels_ended:
        await agent.send(schema.data(1, bytes(64 << 10)))
    stream.resume()
    assert (await stream.status())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    page = await server_page(server)
    assert page.all("stream_errors_total", "segment") == {"to_client": 1}
    assert (
        page.value(
            "stream_errors_total",
            segment="to_client",
            code="ResourceExhausted",
            packet_type="DATA",
        )
        == 1
    )
    assert page.value("overflows_total") == 1


async def test_a_server_that_breaks_off_counts_at_the_agent(
    start_fake_server: StartFakeServer, start_agent: StartAgent
) -> None:
    server = await start_fake_server()
    agent = await start_agent()
    await server.session()
    await until(lambda: agent.connections.links)
    assert (await agent_page(agent)).value("open_server_connections") == 1
    await server.stop()
    await until(lambda: not agent.connections.links)
    page = await agent_page(agent)
    assert page.value("server_connection_failure_count", direction="from_server") == 1
    assert sum(page.all("stream_errors_total", "segment").values()) == 1
    assert page.value("open_server_connections") == 0


async def test_a_link_that_the_agent_closes_itself_is_no_failure(pair: Pair) -> None:
    (link,) = pair.agent.connections.links
    link.close()
    await until(lambda: link not in pair.agent.connections.links)
    page = await agent_page(pair.agent)
    assert page.value("server_connection_failure_count", direction="from_server") is None


# Slow sides


@pytest.mark.parametrize("mode", MODES)
async def test_a_frontend_whose_agent_is_slow_is_seen_and_its_bytes_arrive_in_order(
    mode: str, start_server: StartServer, connect_agent: ConnectAgent, open_tunnel: OpenTunnel
) -> None:
    """Scenario 42, as far as it applies: bounds are in bytes here, and nobody blocks."""
    server = await start_server()
    agent = await connect_agent()
    tunnel = await open_through(agent, open_tunnel, mode, 1)
    page = await server_page(server)
    assert page.value("full_receive_channels", service_method="Proxy") is None
    agent.pause()
    sent = bytes(range(256)) * 512 * 128  # 16 MiB: more than every buffer on the way
    sending = asyncio.create_task(tunnel.write(sent))
    page = await shows(
        lambda: server_page(server),
        lambda page: page.value("full_receive_channels", service_method="Proxy") == 1,
    )
    assert (page.value("waiting_bytes") or 0) >= PAUSE_AT
    agent.resume()
    got = b""
    while len(got) < len(sent):
        got += (await agent.expect(schema.DATA)).data.data
    await sending
    assert got == sent
    page = await server_page(server)
    assert page.value("full_receive_channels", service_method="Proxy") == 0
    assert (page.value("pauses_total", service_method="Proxy") or 0) >= 1
    assert page.value("waiting_bytes") == 0
    assert page.value("tunnel_bytes_total", segment="to_agent") == len(sent)


@pytest.mark.parametrize("mode", MODES)
async def test_packets_wait_for_a_slow_frontend_and_for_no_other(
    mode: str, pair: Pair, open_tunnel: OpenTunnel, start_endpoint: StartEndpoint, echoing: Endpoint
) -> None:
    quick = await open_tunnel(mode, echoing.address)
    await ping(quick)
    page = await server_page(pair.server)
    packets = 2  # an answer to the dial, and data
    assert page.value("frontend_write_duration_seconds_bucket", le="1e-06") == packets
    assert page.value("frontend_write_duration_seconds_count") == packets
    assert page.value("full_receive_channels", service_method="Connect") is None
    slow = await open_tunnel(mode, (await start_endpoint(pour)).address)
    slow.pause()
    await shows(
        lambda: server_page(pair.server),
        lambda page: page.value("full_receive_channels", service_method="Connect") == 1,
    )
    await asyncio.sleep(0.2)
    await leave(slow)
    page = await shows(
        lambda: server_page(pair.server),
        lambda page: page.value("full_receive_channels", service_method="Connect") == 0,
    )
    count = page.value("frontend_write_duration_seconds_count")
    at_once = page.value("frontend_write_duration_seconds_bucket", le="0.1")
    assert (count or 0) - (at_once or 0) >= 1
    assert (page.value("frontend_write_duration_seconds_sum") or 0) >= 0.2
    assert (page.value("pauses_total", service_method="Connect") or 0) >= 1


# Agents


async def test_w70_ready_backends_follow_registration_for_each_strategy(
    start_server: StartServer, connect_agent: ConnectAgent
) -> None:
    """Scenario 45."""
    server = await start_server(proxy_strategies="destHost,defaultRoute,default")

    async def ready() -> tuple[float | None, dict[str, float]]:
        page = await server_page(server)
        return page.value("ready_backend_connections"), page.all("ready_backends", "proxy_strategy")

    assert await ready() == (0, {"destHost": 0, "defaultRoute": 0, "default": 0})
    node = await connect_agent(
        metadata=[("agentid", "a"), ("agentidentifiers", "host=node-1&ipv4=10.0.0.1")]
    )
    _, by_strategy = await ready()
    assert by_strategy["default"] == 1
    assert by_strategy["destHost"] >= 1
    assert by_strategy["defaultRoute"] == 0
    route = await connect_agent(
        metadata=[("agentid", "b"), ("agentidentifiers", "default-route=true")]
    )
    agents, by_strategy = await ready()
    assert (agents, by_strategy["default"], by_strategy["defaultRoute"]) == (2, 2, 1)
    await node.leave()
    await route.leave()
    await until(lambda: not len(server.exchange.backends))
    assert await ready() == (0, {"destHost": 0, "defaultRoute": 0, "default": 0})


# Leases


async def test_w68_lists_and_watches_of_leases_count_as_what_they_are(
    start_server: StartServer, start_agent: StartAgent, folder: Path
) -> None:
    async with KubeApi() as api:
        kubeconfig = str(api.kubeconfig(folder))
        server = await start_server(enable_lease_controller=True, kubeconfig=kubeconfig)
        agent = await start_agent(count_server_leases=True, kubeconfig=kubeconfig)
        success = {"http_response_code": "200", "reason": ""}
        page = await shows(
            lambda: agent_page(agent),
            lambda page: page.value("lease_watches_total", **success) is not None,
        )
        assert page.value("lease_lists_total", **success) == 1
        assert page.value("lease_watches_total", **success) == 1
        assert page.value("lease_list_latency_seconds_count", http_response_code="200") == 1
        page = await shows(
            lambda: server_page(server),
            lambda page: "lease_list_total" in page.families,
        )
        assert (page.value("lease_list_total", http_status_code="200", reason="") or 0) >= 1
        assert page.value("culled_leases_count") == 0
        await agent.stop()
        await server.stop()
