"""Our own pings, and the judgement of the peer's (spec: limits and gRPC parameters)."""

from __future__ import annotations

import pytest

from konnectivity.wire.keepalive import (
    ACK_LIMIT,
    AGENT_PINGS,
    FRONTEND_PINGS,
    Keepalive,
    PingJudge,
    PingPolicy,
    Verdict,
)

# Our own


def test_a_silent_peer_is_pinged_after_the_interval() -> None:
    keepalive = Keepalive(interval=30.0, now=100.0)

    assert keepalive.check(100.0) == (Verdict.WAIT, 130.0)
    assert keepalive.check(129.9) == (Verdict.WAIT, 130.0)
    assert keepalive.check(130.0) == (Verdict.PING, 150.0)


def test_a_peer_that_talks_is_not_pinged() -> None:
    keepalive = Keepalive(interval=30.0, now=100.0)
    keepalive.heard(125.0)

    assert keepalive.check(130.0) == (Verdict.WAIT, 155.0)


def test_a_peer_that_does_not_answer_is_dead_after_the_limit() -> None:
    keepalive = Keepalive(interval=30.0, now=100.0)
    keepalive.check(130.0)

    assert keepalive.check(149.9) == (Verdict.WAIT, 150.0)
    assert keepalive.check(150.0)[0] is Verdict.DEAD


def test_a_late_look_still_grants_the_whole_limit() -> None:
    """The limit runs from the ping, not from when it was due."""
    keepalive = Keepalive(interval=30.0, now=100.0)

    assert keepalive.check(500.0) == (Verdict.PING, 500.0 + ACK_LIMIT)
    assert keepalive.check(519.0)[0] is Verdict.WAIT


def test_any_sign_of_life_answers_a_ping() -> None:
    keepalive = Keepalive(interval=30.0, now=100.0)
    keepalive.check(130.0)
    keepalive.heard(131.0)

    assert keepalive.check(150.0) == (Verdict.WAIT, 161.0)
    assert keepalive.check(161.0)[0] is Verdict.PING


def test_pings_go_on_as_long_as_they_are_answered() -> None:
    keepalive = Keepalive(interval=10.0, ack_limit=5.0, now=0.0)
    pings, now = 0, 0.0
    while now < 1000.0:
        verdict, now = keepalive.check(now)
        assert verdict is not Verdict.DEAD
        if verdict is Verdict.PING:
            pings += 1
            now -= 4.9
            keepalive.heard(now)

    assert 95 <= pings <= 100


def test_a_ping_ahead_of_its_time_is_answered_by_any_byte_and_missed_like_others() -> None:
    keepalive = Keepalive(interval=3600.0, ack_limit=20.0, now=1000.0)
    assert keepalive.asked(1005.0) == 1025.0
    assert keepalive.pinged == 1005.0
    keepalive.heard(1006.0)
    assert keepalive.pinged is None
    assert keepalive.check(1025.0) == (Verdict.WAIT, 4606.0)
    keepalive.asked(1030.0)
    assert keepalive.check(1049.0) == (Verdict.WAIT, 1050.0)
    assert keepalive.check(1050.0)[0] is Verdict.DEAD


# The peer's


def judge(policy: PingPolicy, gaps: list[float], *, streams: int = 1, content: bool = False) -> int:
    """How many pings with these gaps between them pass."""
    ping_judge, now = PingJudge(policy), 1000.0
    for number, gap in enumerate([0.0, *gaps]):
        now += gap
        if not ping_judge.tolerates(now, after_content=content, streams=streams):
            return number
    return 1 + len(gaps)


def test_the_first_ping_is_never_early() -> None:
    assert PingJudge(AGENT_PINGS).tolerates(0.0, after_content=False, streams=0)


def test_two_early_pings_are_forgiven_and_the_third_is_not() -> None:
    assert judge(AGENT_PINGS, [10.0] * 9) == 3
    assert judge(AGENT_PINGS, [29.9] * 9) == 3


@pytest.mark.parametrize("streams", [0, 1])
def test_an_agent_may_ping_every_thirty_seconds_with_or_without_streams(streams: int) -> None:
    assert judge(AGENT_PINGS, [30.0] * 50, streams=streams) == 51


def test_strikes_are_not_forgotten_by_good_pings() -> None:
    """As in grpc-go: only content of ours forgives."""
    assert judge(AGENT_PINGS, [10.0, 30.0, 10.0, 30.0, 10.0]) == 5


def test_content_in_between_forgives_all_strikes() -> None:
    ping_judge = PingJudge(AGENT_PINGS)
    answers = [
        ping_judge.tolerates(1000.0 + number, after_content=number == 3, streams=1)
        for number in range(7)
    ]

    assert answers == [True] * 6 + [False]
    assert judge(AGENT_PINGS, [0.001] * 1000, content=True) == 1001


def test_a_frontend_may_ping_every_five_minutes_while_it_has_streams() -> None:
    assert judge(FRONTEND_PINGS, [300.0] * 20) == 21
    assert judge(FRONTEND_PINGS, [299.0] * 20) == 3


def test_a_frontend_without_streams_may_ping_every_two_hours() -> None:
    assert judge(FRONTEND_PINGS, [7200.0] * 20, streams=0) == 21
    assert judge(FRONTEND_PINGS, [300.0] * 20, streams=0) == 3
