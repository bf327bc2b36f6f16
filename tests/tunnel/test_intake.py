from __future__ import annotations

from tests.tunnel.ports import RecordingSink

from konnectivity.tunnel.budget import Budget, TunnelLimits
from konnectivity.tunnel.intake import Intake

LIMITS = TunnelLimits(credit=1000, queue=5000, process=8000)


class Tunnel:
    """Whose intake it is; `over` when it was told to end."""

    def __init__(self) -> None:
        self.over = False

    def overflow(self) -> None:
        self.over = True


def make(
    sink: RecordingSink, budget: Budget, granted: list[int] | None, tunnel: Tunnel | None = None
) -> Intake:
    grant = granted.append if granted is not None else None
    return Intake(sink, limits=LIMITS, budget=budget, grant=grant, tunnel=tunnel or Tunnel())


def test_credit_goes_back_in_quarters_while_the_sink_keeps_up() -> None:
    granted: list[int] = []
    intake = make(RecordingSink(), Budget(LIMITS.process), granted)
    for _ in range(5):
        assert intake.take(bytes(100))
    assert granted == [300]


def test_bytes_are_counted_as_they_are_passed_on_to_a_quick_sink_or_a_slow_one() -> None:
    sink = RecordingSink()
    intake = make(sink, Budget(LIMITS.process), None)
    intake.take(bytes(100))
    sink.slow = True
    intake.take(bytes(50))
    assert intake.bytes == 150


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
    stalled = [Tunnel(), Tunnel()]
    intakes = [make(slow_sink(), budget, None, tunnel) for tunnel in stalled]
    assert intakes[0].take(bytes(4500))
    assert intakes[1].take(bytes(4500))
    assert [tunnel.over for tunnel in stalled] == [True, False]
    assert (budget.held, budget.overflows) == (4500, 1)
    intakes[1].release()
    assert budget.held == 0


def slow_sink() -> RecordingSink:
    sink = RecordingSink()
    sink.slow = True
    return sink


def test_who_was_slow_for_a_moment_does_not_pay_for_who_stalls() -> None:
    budget, healthy = Budget(LIMITS.process), Tunnel()
    sink = slow_sink()
    intake = make(sink, budget, None, healthy)
    assert intake.take(bytes(3000))
    stalled = [Tunnel() for _ in range(5)]
    for tunnel in stalled:
        # It catches up and is slow anew, as healthy readers are.
        sink.unsent = 0
        intake.caught_up()
        assert make(slow_sink(), budget, None, tunnel).take(bytes(4000))
        assert intake.take(bytes(3000))
        assert budget.held <= LIMITS.process
    assert not healthy.over
    assert [tunnel.over for tunnel in stalled] == [True, True, True, True, False]


def test_the_only_holder_of_a_budget_that_is_spent_goes_itself() -> None:
    budget = Budget(1000)
    intake = make(slow_sink(), budget, None)
    assert intake.take(bytes(1000))
    assert not intake.take(b"x")
    assert budget.overflows == 1


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
