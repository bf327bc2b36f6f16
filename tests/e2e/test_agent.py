"""What our agent answers to a server, in upstream's words."""

from __future__ import annotations

import socket

import pytest
from tests.e2e.conftest import StartAgent, StartEndpoint, StartFakeServer, until
from tests.peers import schema
from tests.peers.endpoint import Endpoint, say
from tests.peers.server import Session

from konnectivity.agent import endpoint


@pytest.fixture
async def session(start_fake_server: StartFakeServer, start_agent: StartAgent) -> Session:
    server = await start_fake_server()
    await start_agent()
    return await server.session()


async def test_data_for_an_unknown_tunnel_is_answered(session: Session) -> None:
    """Scenario 65."""
    await session.send(schema.data(7, b"x"))
    answer = (await session.expect(schema.CLOSE_RSP)).closeResponse
    assert (answer.connectID, answer.error) == (7, "unrecognized connectID")


async def test_a_close_request_for_an_unknown_tunnel_is_answered(session: Session) -> None:
    await session.send(schema.close_request(7))
    answer = (await session.expect(schema.CLOSE_RSP)).closeResponse
    assert (answer.connectID, answer.error) == (7, "Unknown connectID")


async def test_a_second_close_request_is_unknown(session: Session, echoing: Endpoint) -> None:
    """Scenario 64."""
    connect_id = await session.dial(echoing.address)
    await session.send(schema.close_request(connect_id), schema.close_request(connect_id))
    errors = [(await session.expect(schema.CLOSE_RSP)).closeResponse.error for _ in range(2)]
    assert errors == ["", "Unknown connectID"]


async def test_data_for_tunnel_zero_and_packets_for_others_are_ignored(session: Session) -> None:
    await session.send(
        schema.data(0, b"x"),
        schema.drain(),
        schema.close_response(1, "x"),
        schema.dial_response(1, 1),
        schema.dial_close(99),
    )
    await session.expect_silence()


@pytest.mark.parametrize(
    ("protocol", "address", "error"),
    [
        ("tcp", "127.0.0.1:1", "dial tcp 127.0.0.1:1: connect: connection refused"),
        ("tcp", "localhost", "dial tcp: address localhost: missing port in address"),
        ("tcp", "127.0.0.1:99999", "dial tcp: address 99999: invalid port"),
        ("tcp", "", "dial tcp: missing address"),
        ("bogus", "127.0.0.1:1", "dial bogus: unknown network bogus"),
        # Upstream's agent dials these, wherever they lead.
        ("unix", "/run/some.sock", "dial unix: unknown network unix"),
        ("udp", "127.0.0.1:53", "dial udp: unknown network udp"),
    ],
)
async def test_a_dial_that_fails_is_answered_in_gos_words(
    protocol: str, address: str, error: str, session: Session
) -> None:
    await session.send(schema.dial_request(5, address, protocol))
    answer = (await session.expect(schema.DIAL_RSP)).dialResponse
    assert (answer.random, answer.connectID, answer.error) == (5, 0, error)


async def test_connect_ids_count_dials_and_failed_ones_leave_gaps(
    session: Session, echoing: Endpoint
) -> None:
    assert await session.dial(echoing.address) == 1
    await session.begin_dial("127.0.0.1:1")
    assert (await session.expect(schema.DIAL_RSP)).dialResponse.error
    assert await session.dial(echoing.address) == 3


async def test_an_endpoint_that_says_something_and_closes_is_passed_on_in_order(
    session: Session, start_endpoint: StartEndpoint
) -> None:
    """Scenario 63."""
    endpoint = await start_endpoint(say(b"bye", stay=False))
    connect_id = await session.dial(endpoint.address)
    assert await session.collect(3) == b"bye"
    answer = (await session.expect(schema.CLOSE_RSP)).closeResponse
    assert (answer.connectID, answer.error) == (connect_id, "")
    await endpoint.wait_until_open(0)


async def test_the_loss_of_the_server_closes_all_endpoints(
    session: Session, echoing: Endpoint
) -> None:
    for _ in range(3):
        await session.dial(echoing.address)
    await until(lambda: echoing.open == 3)
    session.over.set()
    await echoing.wait_until_open(0)


async def test_an_endpoint_that_stays_is_watched_by_keepalive_probes(
    start_fake_server: StartFakeServer,
    start_agent: StartAgent,
    echoing: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "SETTLED", 0.02)
    server = await start_fake_server()
    agent = await start_agent()
    await (await server.session()).dial(echoing.address)
    (connection,) = agent.connections.endpoints.sockets

    def probed() -> bool:
        sock = connection.transport.get_extra_info("socket")
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    await until(probed)
