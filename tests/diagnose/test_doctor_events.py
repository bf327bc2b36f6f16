"""What a server remembers of those who did not get in, for the other viewpoint."""

from __future__ import annotations

from konnectivity.observe.events import Events
from konnectivity.observe.journal import TURNED_AWAY, Journal


def test_peers_that_are_turned_away_are_told_with_their_address_and_the_cause() -> None:
    events = Events()
    journal = Journal(events, peers="agent")
    journal.turned_away("handshake_failed", "10.0.0.7:4711", "unknown CA\x1b[2J")
    journal.turned_away("agent_refused", "10.0.0.8:1", "no", peer="a\x00", reason="rejected")
    failed, refused = events.after(0)
    assert failed.facts == {"address": "10.0.0.7:4711", "error": "unknown CA?[2J"}
    assert refused.facts == {
        "agent": "a?",
        "reason": "rejected",
        "address": "10.0.0.8:1",
        "error": "no",
    }


def test_a_flood_of_them_leaves_room_for_other_events() -> None:
    events = Events()
    journal = Journal(events, peers="agent")
    for port in range(5000):
        journal.turned_away("handshake_failed", f"10.0.0.7:{port}", "no TLS")
    assert len(events.after(0)) == TURNED_AWAY
