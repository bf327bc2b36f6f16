"""What a program remembers of peers, dials and tunnels."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
from tests.net.authority import Authority, Identity

from konnectivity.observe.events import Events
from konnectivity.observe.journal import (
    LONGEST_TEXT,
    RECENT,
    Journal,
    PeerRecord,
    announced,
    certificate_of,
    printable,
)


def record(name: str = "a") -> PeerRecord:
    return PeerRecord(
        id=name,
        address="10.0.0.7:1234",
        software="",
        version="1",
        credit=True,
        streams=True,
        certificate=None,
        measure=lambda: None,
    )


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def journal(events: Events) -> Journal:
    return Journal(events, peers="agent")


def told(events: Events) -> list[tuple[str, dict[str, Any]]]:
    return [(event.kind, dict(event.facts)) for event in events.after(0)]


def ended(journal: Journal, carrier: object, reason: str) -> None:
    journal.ended(carrier, "x:1", reason=reason, error="", seconds=1.5, traffic=(10, 20))


def test_dials_and_bytes_belong_to_the_peer_that_had_them(journal: Journal) -> None:
    one, other = object(), object()
    journal.connected(one, record("one"))
    journal.connected(other, record("other"))
    journal.dialed(one, "x:1", seconds=0.5)
    journal.dialed(one, "x:2", seconds=0.5, failure="timeout", error="too late")
    ended(journal, one, "frontend_close")
    ended(journal, one, "agent_lost")
    found = journal.peers[one]
    assert (found.dials, found.failed, found.up, found.down) == (2, 1, 20, 40)
    found = journal.peers[other]
    assert (found.dials, found.failed, found.up, found.down) == (0, 0, 0, 0)


def test_the_round_trip_is_asked_for_when_a_peer_comes(journal: Journal) -> None:
    asked = []
    made = record()
    made.measure = lambda: asked.append(1)  # type: ignore[assignment, return-value]
    journal.connected(object(), made)
    assert asked == [1]


def test_the_last_dials_are_kept_and_failed_ones_longer(journal: Journal) -> None:
    journal.dialed(None, "bad:1", seconds=0.0, failure="no_agent")
    for number in range(RECENT * 2):
        journal.dialed(None, f"x:{number}", seconds=0.0)
    assert [each.destination for each in journal.recent] == [
        f"x:{number}" for number in range(RECENT * 2 - 1, RECENT - 1, -1)
    ]
    assert [(each.destination, each.result) for each in journal.recent_failures] == [
        ("bad:1", "no_agent")
    ]


def test_what_others_say_is_cut_and_made_printable(journal: Journal) -> None:
    journal.dialed(None, "x" * 10_000, seconds=0.0, failure="f", error="\x1b[2J" * 1000)
    (dial,) = journal.recent
    assert len(dial.destination) == LONGEST_TEXT
    assert len(dial.error) == LONGEST_TEXT
    assert dial.error.startswith("?[2J?[2J")
    assert printable("a\nb\u202e\u00e9") == "a?b?\u00e9"
    assert announced([("k", "v" * 100), ("k", "w")], "k") == "v" * 64
    assert announced([], "k") == ""


def test_failures_for_one_reason_are_told_once_a_second(journal: Journal, events: Events) -> None:
    for _ in range(5):
        journal.dialed(None, "x:1", seconds=0.0, failure="no_agent")
        journal.dialed(None, "x:1", seconds=0.0, failure="timeout")
    assert [facts["reason"] for _, facts in told(events)] == ["no_agent", "timeout"]


def test_the_next_telling_says_how_many_were_not_told(
    journal: Journal, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        journal.dialed(None, "x:1", seconds=0.0, failure="no_agent")
    monkeypatch.setattr("konnectivity.observe.journal.REPEAT_AFTER", 0.0)
    journal.dialed(None, "x:1", seconds=0.0, failure="no_agent")
    assert [facts["untold"] for _, facts in told(events)] == [0, 4]


@pytest.mark.parametrize(
    ("reason", "is_told"),
    [
        ("frontend_close", False),
        ("endpoint_close", False),
        ("agent_lost", False),
        ("shutdown", False),
        ("endpoint_reset", True),
        ("overflow", True),
        ("violation", True),
    ],
)
def test_ends_that_nobody_asked_for_are_told(
    reason: str, is_told: bool, journal: Journal, events: Events
) -> None:
    carrier = object()
    journal.connected(carrier, record())
    ended(journal, carrier, reason)
    facts = [facts for kind, facts in told(events) if kind == "tunnel_ended"]
    assert bool(facts) is is_told
    for each in facts:
        assert (each["agent"], each["reason"], each["bytesUp"]) == ("a", reason, 10)


def test_a_peer_that_was_never_there_is_not_missed(journal: Journal, events: Events) -> None:
    journal.disconnected(object(), "gone", tunnels=0)
    assert told(events) == []


async def test_the_certificate_of_a_peer_is_known(authority: Authority, identity: Identity) -> None:
    def context(purpose: ssl.Purpose) -> ssl.SSLContext:
        made = ssl.create_default_context(purpose, cafile=authority.bundle)
        made.load_cert_chain(identity.cert, identity.key)
        return made

    server_side = await asyncio.to_thread(context, ssl.Purpose.CLIENT_AUTH)
    client_side = await asyncio.to_thread(context, ssl.Purpose.SERVER_AUTH)
    server = await asyncio.start_server(
        lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=server_side
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client_side, server_hostname="localhost"
        )
        found = certificate_of(writer.transport)
        writer.close()
        await writer.wait_closed()
    assert found is not None
    assert found.subject.startswith("O=")
    assert found.not_after > 1_700_000_000
    assert certificate_of(None) is None
