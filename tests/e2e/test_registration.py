"""How agents and servers introduce themselves, and what either says to a bad introduction."""

from __future__ import annotations

import grpc
import pytest
from tests.e2e.conftest import ConnectAgent, Log, StartAgent, StartFakeServer, StartServer
from tests.net.authority import Authority, Identity
from tests.peers.agent import FakeAgent


async def test_the_server_answers_with_its_id_and_count_before_anything_else(
    start_server: StartServer, connect_agent: ConnectAgent
) -> None:
    await start_server(server_count=3)
    agent = await connect_agent()
    answer = await agent.answer()
    assert (answer["serverid"], answer["servercount"]) == ("server-1", "3")
    # What only our own agents ask for stays away from stock ones.
    assert "konnectivity-credit" not in answer


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ((), "expected one agent ID in the context, got []"),
        (
            (("agentid", "a"), ("agentid", "b")),
            "expected one agent ID in the context, got [a b]",
        ),
        (
            (("agentid", "a"), ("agentidentifiers", "host=x"), ("agentidentifiers", "host=y")),
            "expected at most one set of agent identifiers in the context, got [host=x host=y]",
        ),
        (
            (("agentid", "a"), ("agentidentifiers", "host=x;ipv4=y")),
            "fail to parse url encoded string: invalid semicolon separator in query",
        ),
        (
            (("agentid", "a"), ("agentidentifiers", "host=%zz")),
            'fail to parse url encoded string: invalid URL escape "%zz"',
        ),
    ],
    ids=["no-id", "two-ids", "two-identifiers", "semicolon", "escape"],
)
async def test_an_agent_with_a_bad_introduction_is_told_what_is_wrong(
    metadata: tuple[tuple[str, str], ...],
    text: str,
    start_server: StartServer,
    connect_agent: ConnectAgent,
    authority: Authority,
    identity: Identity,
    log: Log,
) -> None:
    """Scenario 46."""
    server = await start_server()
    good = await connect_agent()
    port = server.options.agent_port
    async with await FakeAgent.connect(port, authority, identity, metadata=metadata) as agent:
        assert await agent.status() == (grpc.StatusCode.UNKNOWN, text)
    await log.wait_for("Agent refused", text.replace('"', '\\"'))
    assert len(server.exchange.backends) == 1
    await good.expect_silence()


@pytest.mark.parametrize("identifiers", ["", "host=a&host=b&ipv4=1.2.3.4&uid=7", "ipv4=${HOST_IP}"])
async def test_identifiers_that_are_only_odd_are_accepted(
    identifiers: str, start_server: StartServer, connect_agent: ConnectAgent
) -> None:
    """Scenario 46."""
    server = await start_server()
    await connect_agent(metadata=[("agentid", ""), ("agentidentifiers", identifiers)])
    assert len(server.exchange.backends) == 1


async def test_the_agent_introduces_itself_as_upstreams_does(
    start_fake_server: StartFakeServer, start_agent: StartAgent
) -> None:
    server = await start_fake_server()
    await start_agent(agent_identifiers="host=node-1&default-route=true")
    sent = dict((await server.session()).metadata)
    assert sent["agentid"] == "agent-1"
    assert sent["agentidentifiers"] == "host=node-1&default-route=true"
    assert "authorization" not in sent


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((("servercount", "1"),), "expected one server ID in the context, got []"),
        (
            (("serverid", "a"), ("serverid", "b"), ("servercount", "1")),
            "expected one server ID in the context, got [a b]",
        ),
        ((("serverid", "a"),), "expected one server count, got 0"),
        ((("serverid", "a"), ("servercount", "many")), "server count 'many' is not a number"),
    ],
    ids=["no-id", "two-ids", "no-count", "bad-count"],
)
async def test_a_server_with_a_bad_answer_is_named_with_its_fault_and_tried_again(
    answer: tuple[tuple[str, str], ...],
    text: str,
    start_fake_server: StartFakeServer,
    start_agent: StartAgent,
    log: Log,
) -> None:
    server = await start_fake_server(answer=answer)
    agent = await start_agent()
    await log.wait_for("Cannot connect to a server", f"127.0.0.1:{server.port}", text)
    await server.session()
    await server.session()
    assert not agent.connections.links


async def test_w28_a_servers_refusal_is_visible_in_the_agents_log(
    start_fake_server: StartFakeServer, start_agent: StartAgent, log: Log
) -> None:
    await start_fake_server(refusal=(grpc.StatusCode.UNKNOWN, "the token is for another cluster"))
    await start_agent()
    await log.wait_for("Cannot connect to a server", "the token is for another cluster")


async def test_a_second_stream_of_one_agent_is_no_second_agent(
    start_server: StartServer, connect_agent: ConnectAgent
) -> None:
    """Scenario 19."""
    server = await start_server()
    first = await connect_agent("twin")
    await connect_agent("twin")
    assert len(server.exchange.backends) == 1
    await first.leave()
    assert len(server.exchange.backends) == 1
