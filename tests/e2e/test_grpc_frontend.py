"""What a gRPC frontend is told, in upstream's words; what calls of other methods are told."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from tests.e2e.conftest import (
    ConnectAgent,
    ConnectGrpc,
    OpenProxy,
    Pair,
    StartServer,
    until,
)
from tests.net.authority import Authority, Identity
from tests.peers import schema
from tests.peers.agent import credentials
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import GrpcClient, Refused
from tests.peers.streams import StreamEnded


async def test_without_an_agent_the_dial_fails_and_the_stream_stays_open(
    start_server: StartServer, open_proxy: OpenProxy
) -> None:
    """Scenario 40."""
    server = await start_server()
    stream = await open_proxy()
    with pytest.raises(Refused, match=r"^No agent available$"):
        await stream.dial("endpoint:1")
    await stream.expect_silence()
    assert server.exchange.counters.dial_failures == {"no_agent": 1}


async def test_an_agents_refusal_is_passed_on(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    await start_server()
    agent = await connect_agent()
    stream = await open_proxy()
    await stream.begin_dial("endpoint:1")
    dial = (await agent.expect(schema.DIAL_REQ)).dialRequest
    assert (dial.protocol, dial.address, dial.random) == ("tcp", "endpoint:1", stream.random)
    await agent.send(schema.dial_response(dial.random, error="dial tcp: out of luck"))
    with pytest.raises(Refused, match=r"^dial tcp: out of luck$"):
        await stream.end_dial()


async def test_an_agents_dial_cls_is_passed_on(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    await start_server()
    agent = await connect_agent()
    stream = await open_proxy()
    await stream.begin_dial("endpoint:1")
    await agent.expect(schema.DIAL_REQ)
    await agent.send(schema.dial_close(stream.random))
    assert (await stream.expect(schema.DIAL_CLS)).closeDial.random == stream.random


async def test_an_agent_that_does_not_answer_in_time_is_named_in_the_refusal(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    await start_server(backend_dial_timeout=0.1)
    await connect_agent()
    with pytest.raises(Refused, match=r"^timed out waiting for backend dial$"):
        await (await open_proxy()).dial("endpoint:1")


@pytest.mark.parametrize(
    ("packet", "error"),
    [
        (schema.data(5, b"x"), "backend not initialized"),
        (schema.close_request(5), "backend uninitialized"),
    ],
    ids=["DATA", "CLOSE_REQ"],
)
async def test_packets_before_any_dial_are_answered(
    packet: object, error: str, pair: Pair, open_proxy: OpenProxy
) -> None:
    """Scenario 43."""
    stream = await open_proxy()
    await stream.send(packet)
    answer = (await stream.expect(schema.CLOSE_RSP)).closeResponse
    assert (answer.connectID, answer.error) == (5, error)


async def test_the_loss_of_the_agent_is_told_and_a_later_close_request_too(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    await start_server()
    agent = await connect_agent()
    stream = await open_proxy()
    await stream.begin_dial("endpoint:1")
    await agent.accept()
    connect_id = await stream.end_dial()
    await agent.leave()
    answer = (await stream.expect(schema.CLOSE_RSP)).closeResponse
    assert (answer.connectID, answer.error) == (connect_id, "")
    await stream.send(schema.data(connect_id, b"too late"), schema.close_request(connect_id))
    answer = (await stream.expect(schema.CLOSE_RSP)).closeResponse
    assert (answer.connectID, answer.error) == (connect_id, "CLOSE_REQ to backend failed")


async def test_the_error_of_an_agents_close_is_passed_on(
    start_server: StartServer, connect_agent: ConnectAgent, open_proxy: OpenProxy
) -> None:
    await start_server()
    agent = await connect_agent()
    stream = await open_proxy()
    await stream.begin_dial("endpoint:1")
    await agent.accept()
    connect_id = await stream.end_dial()
    await agent.send(schema.close_response(connect_id, "endpoint on fire"))
    assert (await stream.expect(schema.CLOSE_RSP)).closeResponse.error == "endpoint on fire"


async def test_a_half_close_tears_the_tunnel_down_and_ends_the_call_with_ok(
    pair: Pair, open_proxy: OpenProxy, echoing: Endpoint
) -> None:
    stream = await open_proxy()
    await stream.dial(echoing.address)
    await stream.half_close()
    code, _ = await stream.status()
    assert code is grpc.StatusCode.OK
    await echoing.wait_until_open(0)
    await until(lambda: not pair.server.exchange.counters.established)


async def test_many_calls_share_one_connection(
    pair: Pair, connect_grpc: ConnectGrpc, echoing: Endpoint
) -> None:
    """Scenarios 82 and 84."""
    client = await connect_grpc()
    streams = [client.proxy() for _ in range(50)]
    ids = await asyncio.gather(*(stream.dial(echoing.address) for stream in streams))
    assert len(set(ids)) == 50
    for stream, connect_id in zip(streams, ids, strict=True):
        await stream.send(schema.data(connect_id, b"%d" % connect_id))
    for stream, connect_id in zip(streams, ids, strict=True):
        assert (await stream.expect(schema.DATA)).data.data == b"%d" % connect_id


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("/AgentService/Connect", "unknown service AgentService"),
        ("/ProxyService/Other", "unknown method Other for service ProxyService"),
        ("/grpc.health.v1.Health/Check", "unknown service grpc.health.v1.Health"),
    ],
)
async def test_the_frontend_listener_serves_its_own_method_alone(
    method: str, text: str, start_server: StartServer, connect_grpc: ConnectGrpc
) -> None:
    await start_server()
    stream = (await connect_grpc()).proxy(method)
    with pytest.raises(StreamEnded):
        await stream.receive()
    assert await stream.status() == (grpc.StatusCode.UNIMPLEMENTED, text)


async def test_the_agent_listener_serves_its_own_method_alone(
    start_server: StartServer, authority: Authority, identity: Identity
) -> None:
    server = await start_server()
    where = f"127.0.0.1:{server.options.agent_port}"
    async with GrpcClient(where, credentials(authority, identity)) as client:
        stream = client.proxy("/ProxyService/Proxy")
        text = "unknown service ProxyService"
        assert await stream.status() == (grpc.StatusCode.UNIMPLEMENTED, text)
