from __future__ import annotations

from tests.tunnel.ports import RecordingSink

from konnectivity.tunnel.budget import Budget, TunnelLimits
from konnectivity.tunnel.intake import Intake

LIMITS = TunnelLimits(credit=1000, queue=5000, process=8000)


def make(sink: RecordingSink, budget: Budget, granted: list[int] | None) -> Intake:
    grant = granted.append if granted is not None else None
    return Intake(sink, limits=LIMITS, budget=budget, grant=grant)


def test_credit_goes_back_in_quarters_while_the_sink_keeps_up() -> None:
    granted: list[int] = []
    intake = make(RecordingSink(), Budget(LIMITS.process), granted)
    for _ in range(5):
        assert intake.take(bytes(100))
    assert granted == [300]


def test_a_slow_sink_gets_no_credit_until_it_has_caught_up() -> None:
    granted, sink, budget = list[int](), RecordingSink(), Budget(LIMITS.process)
    intake = make(sink, budget, granted)
    sink.slow = True
    assert intake.take(bytes(900))
    assert (granted, budget.held) == ([], 900)
    sink.slow, sink.unsent = False, 0
    intake.caught_up()
    assert (granted, budget.held) == ([900], 0)


def test_without_credit_a_slow_sink_holds_up_to_the_queue_limit_and_then_fails() -> None:
    sink, budget = RecordingSink(), Budget(LIMITS.process)
    intake = make(sink, budget, None)
    sink.slow = True
    assert intake.take(bytes(5000))
    assert not intake.take(b"x")
    assert budget.overflows == 1


def test_w34_the_process_has_one_budget_in_bytes_for_all_tunnels() -> None:
    budget = Budget(LIMITS.process)
    sinks = [RecordingSink(), RecordingSink()]
    intakes = [make(sink, budget, None) for sink in sinks]
    for sink in sinks:
        sink.slow = True
    assert intakes[0].take(bytes(4500))
    assert not intakes[1].take(bytes(4500))
    intakes[1].release()
    assert budget.held == 4500
    intakes[0].release()
    assert budget.held == 0


def test_a_peer_that_ignores_its_credit_loses_the_tunnel() -> None:
    sink = RecordingSink()
    intake = make(sink, Budget(LIMITS.process), [])
    sink.slow = True
    assert intake.take(bytes(2000))
    assert not intake.take(b"x")


def test_a_released_intake_grants_nothing() -> None:
    granted, sink = list[int](), RecordingSink()
    intake = make(sink, Budget(LIMITS.process), granted)
    sink.slow = True
    intake.take(bytes(500))
    intake.release()
    intake.caught_up()
    assert granted == []
