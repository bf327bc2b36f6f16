"""What `/debug/pprof/` says of a running process."""

from __future__ import annotations

import asyncio
import re
import threading
import time
import tracemalloc
from collections import Counter

import pytest
from tests.peers.admin import connected, get, serving

from konnectivity.observe.lag import LagWatch
from konnectivity.observe.profiling import Profiling, sample
from konnectivity.observe.stacks import DEEPEST, MOST_STACKS, collapsed, stack_of

pytestmark = pytest.mark.both_loops


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def wait_here_for_the_test(event: asyncio.Event) -> None:
    await event.wait()


async def test_a_profile_shows_where_the_time_goes() -> None:
    async def work() -> None:
        while True:
            spin(0.02)
            await asyncio.sleep(0)

    working = asyncio.create_task(work())
    async with serving(Profiling().routes) as port:
        began = time.monotonic()
        status, _, body = await get(port, "/debug/pprof/profile?seconds=1")
        assert 0.9 < time.monotonic() - began < 4
    working.cancel()
    assert status == 200
    counts = dict(line.rsplit(" ", 1) for line in body.splitlines())
    spinning = sum(int(n) for stack, n in counts.items() if "test_profiling.spin:" in stack)
    assert spinning > 10
    assert all(re.fullmatch(r"[^ ;]\S*|[^;]+(;[^;]+)*", stack) for stack in counts)


async def test_one_profile_is_taken_at_a_time() -> None:
    async with serving(Profiling().routes) as port, connected(port) as client:
        await client.ask("/debug/pprof/profile?seconds=1")
        await asyncio.sleep(0.1)
        status, _, body = await get(port, "/debug/pprof/profile?seconds=1")
        assert (status, body) == (503, "a profile is being taken already\n")
        assert (await client.answer())[0] == 200


async def busy(port: int) -> bool:
    return (await get(port, "/debug/pprof/profile?seconds=1"))[0] == 503


async def test_a_profile_ends_when_nobody_waits_for_it() -> None:
    async with serving(Profiling().routes, linger=0.1) as port:
        async with connected(port) as client:
            await client.ask("/debug/pprof/profile?seconds=60")
            await asyncio.sleep(0.1)
        async with asyncio.timeout(5):
            while await busy(port):  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("seconds", ["0", "x", "-5"])
async def test_a_profile_of_no_length_is_refused(seconds: str) -> None:
    async with serving(Profiling().routes) as port:
        status, _, body = await get(port, f"/debug/pprof/profile?seconds={seconds}")
    assert (status, body) == (400, "seconds must be a number of 1 or more\n")


async def test_tasks_are_listed_with_the_place_where_they_wait() -> None:
    event = asyncio.Event()
    waiting = [asyncio.create_task(wait_here_for_the_test(event)) for _ in range(3)]
    async with serving(Profiling().routes) as port:
        _, _, body = await get(port, "/debug/pprof/goroutine")
    event.set()
    await asyncio.gather(*waiting)
    assert re.search(
        r"^3 @\n    \S*test_profiling\.wait_here_for_the_test:\d+\n", body, re.MULTILINE
    )
    assert re.search(r"^\d+ threads$", body, re.MULTILINE)


async def test_memory_is_told_when_it_is_traced() -> None:
    async with serving(Profiling().routes) as port:
        status, _, body = await get(port, "/debug/pprof/heap")
        assert (status, "PYTHONTRACEMALLOC=1" in body) == (501, True)
        tracemalloc.start()
        try:
            kept = [bytes(1000) for _ in range(1000)]
            status, _, body = await get(port, "/debug/pprof/heap")
        finally:
            tracemalloc.stop()
    assert len(kept) == 1000
    assert status == 200
    assert re.search(r"^\d{7} bytes in \d+ blocks: .*test_profiling\.py:\d+$", body, re.MULTILINE)


async def test_the_index_leads_to_all_profiles() -> None:
    async with serving(Profiling().routes) as port:
        status, headers, _ = await get(port, "/debug/pprof")
        assert (status, headers["location"]) == (301, "/debug/pprof/")
        _, _, index = await get(port, "/debug/pprof/")
        for name in re.findall(r"^(\w+)(?:\?\S+)?  ", index, re.MULTILINE):
            if name != "profile":
                assert (await get(port, f"/debug/pprof/{name}"))[0] in (200, 501)
        assert (await get(port, "/debug/pprof/other"))[0] == 404


# Lag


async def test_what_holds_the_loop_is_noted() -> None:
    async with LagWatch() as lag:
        await asyncio.sleep(0.25)
        spin(0.5)
        await asyncio.sleep(0.05)
        async with serving(Profiling(lag).routes) as port:
            _, _, body = await get(port, "/debug/pprof/block")
    summary, *stacks = body.splitlines()
    found = re.fullmatch(
        r"(\d+) beats, (\d+) late by more than 20 ms, the latest by (\d+) ms", summary
    )
    assert found
    assert int(found[1]) >= int(found[2]) >= 1
    assert 300 < int(found[3]) < 3000
    assert any("test_profiling.spin:" in stack for stack in stacks)


async def test_a_loop_that_nobody_watches_says_so() -> None:
    async with serving(Profiling().routes) as port:
        status, _, body = await get(port, "/debug/pprof/block")
    assert (status, "--enable-contention-profiling" in body) == (501, True)


async def test_the_watch_ends_with_its_block() -> None:
    async with LagWatch():
        assert [each for each in threading.enumerate() if each.name == "lag-watch"]
    assert not [each for each in threading.enumerate() if each.name == "lag-watch"]


# Stacks


def test_answers_are_bounded_however_deep_or_many_the_stacks() -> None:
    import sys

    def deep(n: int) -> tuple[str, ...]:
        return deep(n - 1) if n else stack_of(sys._getframe())

    stack = deep(300)
    assert len(stack) == DEEPEST
    assert stack[-1].startswith(f"{__name__}.test_answers_are_bounded")
    many = Counter({(f"a{n};b".replace(";", ","),): n + 1 for n in range(2000)})
    assert collapsed(many).count("\n") == MOST_STACKS
    assert collapsed(many).startswith("a1999,b 2000\n")


def test_sampling_stops_when_it_is_told_to() -> None:
    stop = threading.Event()
    stop.set()
    began = time.monotonic()
    assert not sample(30, stop)
    assert time.monotonic() - began < 1
