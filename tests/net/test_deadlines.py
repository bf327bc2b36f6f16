from __future__ import annotations

import asyncio

import pytest

from konnectivity.net.deadlines import Deadlines


async def test_limits_expire_in_order_and_not_early() -> None:
    loop, heard = asyncio.get_running_loop(), list[tuple[str, float]]()
    deadlines, began = Deadlines(0.05), loop.time()
    for name in "ab":
        deadlines.start(lambda name=name: heard.append((name, loop.time() - began)))  # type: ignore[misc]
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)
    assert [name for name, _ in heard] == ["a", "b"]
    assert all(at >= 0.049 for _, at in heard)  # the loop counts in milliseconds
    assert heard[1][1] >= 0.069


async def test_a_cancelled_limit_is_silent_and_leaves_nothing_behind() -> None:
    heard: list[str] = []
    deadlines = Deadlines(0.02)
    limits = [deadlines.start(lambda: heard.append("x")) for _ in range(100)]
    for limit in limits:
        limit.cancel()
        limit.cancel()
    assert not deadlines._running
    await asyncio.sleep(0.05)
    assert heard == []


async def test_a_limit_cancelled_by_one_that_expires_with_it_is_silent() -> None:
    heard: list[str] = []
    deadlines = Deadlines(0.02)
    first = deadlines.start(lambda: second.cancel())
    second = deadlines.start(lambda: heard.append("second"))
    second.at = first.at
    await asyncio.sleep(0.05)
    assert heard == []


async def test_closing_drops_all_limits() -> None:
    heard: list[str] = []
    deadlines = Deadlines(0.01)
    deadlines.start(lambda: heard.append("x"))
    deadlines.close()
    await asyncio.sleep(0.03)
    assert heard == []


async def test_a_guard_ends_a_block_that_takes_too_long() -> None:
    with pytest.raises(TimeoutError), Deadlines(0.02).guard():
        await asyncio.sleep(5)


async def test_a_guard_lets_a_quick_block_and_its_errors_pass() -> None:
    deadlines = Deadlines(0.02)
    with deadlines.guard():
        await asyncio.sleep(0)
    with pytest.raises(ValueError, match="own"), deadlines.guard():
        raise ValueError("own")
    await asyncio.sleep(0.05)


async def test_a_guard_does_not_swallow_a_cancellation_from_outside() -> None:
    async def guarded() -> None:
        with Deadlines(5).guard():
            await asyncio.sleep(5)

    task = asyncio.create_task(guarded())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
